"""Others' validators, wrapped so that a test sees only what they call an error."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PIXELMED_JAR = Path("/usr/share/java/pixelmed.jar")

# Expanding the IOD's XSLT needs more stack and more XPath steps than Java allows by default.
_JAVA_OPTIONS = (
    "-Xss64m",
    "-Xmx1g",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djdk.xml.xpathTotalOpLimit=0",
    "-Djdk.xml.xpathExprGrpLimit=0",
    "-Djdk.xml.xpathExprOpLimit=0",
)

Program = Callable[[str], str]


def dciodvfy_errors(program: Program, path: Path) -> list[str]:
    """Lines that David Clunie's IOD verifier calls errors."""
    done = subprocess.run(
        [program("dciodvfy"), str(path)], check=False, capture_output=True, text=True, errors="replace"
    )
    # One that crashed names no errors, and must not pass for a clean object.
    assert done.returncode in (0, 1), done.stderr[-500:]
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


def dcmpschk_says(program: Program, path: Path) -> str:
    """What DCMTK's presentation state checker prints."""
    done = subprocess.run([program("dcmpschk"), str(path)], check=False, capture_output=True, text=True)
    return done.stdout + done.stderr


def pixelmed_errors(program: Program, kind: str, paths: Sequence[Path]) -> dict[Path, list[str]]:
    """Errors of Pixelmed's validators, one Java start for each file.

    Parameters
    ----------
    kind : str
        ``sr`` (templates of an SR document) or ``iod`` (an object's modules).
    """
    validator = {"sr": "DicomSRValidator", "iod": "DicomInstanceValidator"}[kind]
    java = program("java")
    command = [java, *_JAVA_OPTIONS, "-cp", str(PIXELMED_JAR), f"com.pixelmed.validate.{validator}"]

    def errors(path: Path) -> list[str]:
        done = subprocess.run([*command, str(path)], check=False, capture_output=True, text=True, timeout=120)
        lines = (done.stdout + done.stderr).splitlines()
        # The exit status is 0 whatever is found, so a validator that did not run must not pass for a clean object.
        assert any("validation complete" in line.lower() for line in lines), "\n".join(lines[-5:])
        return [line for line in lines if line.startswith(("Error", "Exception"))]

    with ThreadPoolExecutor(max_workers=2) as pool:
        return dict(zip(paths, pool.map(errors, paths), strict=True))
