"""OHIF's built viewer, fetched once from npm, behind an nginx that also passes on an Orthanc's DICOMweb."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ports import free_port
from waiting import wait_for

VERSION = "3.13.2"
SHA512 = "WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
"""Of the package, as the registry states it."""
HERE = Path(__file__).parent / "ohif"
KEPT = Path(__file__).resolve().parents[3] / "build" / f"ohif-{VERSION}"


def fetched() -> Path:
    """Return the folder of the built viewer; 50 MB come from npm when it is not there."""
    viewer = KEPT / "package" / "dist"
    if viewer.is_dir():
        return viewer
    KEPT.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KEPT.parent) as folder:
        # `npm pack` fetches the package alone, without the thousand packages that it was built from.
        subprocess.run(
            ["npm", "pack", "--silent", f"@ohif/app@{VERSION}"], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )
        (package,) = Path(folder).glob("*.tgz")
        digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
        if digest != SHA512:
            raise SystemExit(f"@ohif/app@{VERSION} is not the package that it was: its SHA-512 is {digest}")
        unpacked = Path(folder) / "unpacked"
        with tarfile.open(package) as archive:
            archive.extractall(unpacked, filter="data")
        unpacked.rename(KEPT)
    return viewer


@contextmanager
def serving_ohif(nginx: str, work: Path, orthanc_port: int) -> Iterator[str]:
    """Serve the viewer and the DICOMweb of an Orthanc on a free loopback port; yields the address."""
    work.mkdir(parents=True)
    port = free_port()
    filled = {
        "@WORK@": work,
        "@OHIF@": fetched(),
        "@CONFIG@": HERE / "app-config.js",
        "@PORT@": port,
        "@ORTHANC@": orthanc_port,
    }
    text = (HERE / "nginx.conf").read_text()
    for name, value in filled.items():
        text = text.replace(name, str(value))
    (work / "nginx.conf").write_text(text)
    process = subprocess.Popen([nginx, "-e", str(work / "error.log"), "-c", str(work / "nginx.conf")])
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(lambda: process.poll() is not None or _answers(address))
        if process.returncode is not None:
            raise SystemExit(f"nginx ended: {(work / 'error.log').read_text()[-2000:]}")
        yield address
    finally:
        process.terminate()
        process.wait()


def _answers(address: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError):
        return False
