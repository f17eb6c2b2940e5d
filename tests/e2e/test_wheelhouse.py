"""An install without a network, by the README's own lines, and the demo with what was installed.

Opt-in, since it takes more than a minute and asks the package index: ``M3NODE_TEST_WHEELHOUSE=1``, or the path of a
folder that ``make wheelhouse`` has made, which is then taken as it is.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ASKED = os.environ.get("M3NODE_TEST_WHEELHOUSE", "")


def readme_lines(wheelhouse: Path, folder: Path) -> str:
    """The README's install, with our paths in it."""
    (lines,) = re.findall(r"```sh\n(cd wheelhouse\n.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    for theirs, ours in (
        ("cd wheelhouse", f"cd {wheelhouse}"),
        ("python3 -m venv", f"{Path(sys.base_prefix) / 'bin' / 'python3'} -m venv"),
        ("/opt/m3node", str(folder / "opt")),
        ("/tmp/m3node-demo", str(folder / "demo")),
    ):
        assert theirs in lines
        lines = lines.replace(theirs, ours)
    return lines


def without_network() -> list[str]:
    """A prefix that leaves a command nothing but the loopback, where the kernel lets us."""
    prefix = ["unshare", "--net", "--map-root-user", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if shutil.which("unshare") and shutil.which("ip") and not subprocess.run([*prefix, "true"], check=False).returncode:
        return prefix
    return []


def environment(**more: str) -> dict[str, str]:
    """Nothing of pip's settings, and nothing of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON", "M3NODE_"))}
    return {**kept, "PIP_CONFIG_FILE": os.devnull, **more}


@pytest.mark.slow
@pytest.mark.skipif(not ASKED, reason="M3NODE_TEST_WHEELHOUSE=1 makes a wheelhouse and installs from it")
def test_the_readme_s_install_works_without_a_network_and_then_the_demo(tmp_path: Path) -> None:
    wheelhouse = Path(ASKED)
    if ASKED == "1":
        wheelhouse = tmp_path / "wheelhouse"
        subprocess.run(["make", "wheelhouse", f"WHEELHOUSE={wheelhouse}"], cwd=ROOT, check=True)
    script = "set -e\n" + readme_lines(wheelhouse.resolve(), tmp_path)
    answer = subprocess.run(
        [*without_network(), "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env=environment(HOME=str(tmp_path)),
    )
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-3000:]
    assert "5 of 5 planted lesions found, 0 false" in answer.stdout
    # It ran from what was installed, with pip on neither side of it.
    assert len(list((tmp_path / "opt" / "lib").glob("python*/site-packages/m3node/__init__.py"))) == 1
    assert not (tmp_path / "opt" / "bin" / "pip").exists()


def test_a_wheel_that_changed_on_its_way_is_not_installed(tmp_path: Path) -> None:
    wheelhouse = tmp_path / "wheelhouse"
    wheelhouse.mkdir()
    (wheelhouse / "some.whl").write_bytes(b"as it was")
    subprocess.run("sha256sum ./some.whl > SHA256SUMS", shell=True, cwd=wheelhouse, check=True)
    (wheelhouse / "some.whl").write_bytes(b"as it is")
    answer = subprocess.run(
        ["sh", "-c", "set -e\n" + readme_lines(wheelhouse, tmp_path)], capture_output=True, text=True, check=False
    )
    assert answer.returncode != 0
    assert not (tmp_path / "opt").exists()
