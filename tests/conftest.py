"""What every test may ask for: the real test data, and the outside programs that end-to-end tests talk to."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

pytest_plugins = ["postgres"]

REQUIRE_ALL = os.environ.get("M3NODE_TEST_REQUIRE_ALL") == "1"
"""Set in CI: what is missing there is a failure, not a skip."""


# A machine with much else to do is no finding: its stalls are longer than what hypothesis allows an example.
hypothesis_settings.register_profile(
    "unhurried", parent=hypothesis_settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("unhurried")


def missing(what: str) -> None:
    """Skip because ``what`` is absent; fail where everything must be there."""
    if REQUIRE_ALL:
        pytest.fail(f"{what} is missing, and M3NODE_TEST_REQUIRE_ALL=1 forbids to skip")
    pytest.skip(f"{what} is missing")


def pytest_configure() -> None:
    """Let Ctrl-C arrive, which a shell makes what it starts in the background ignore, and so every node of a test."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real CTs; ``M3NODE_TEST_DATA``, or ``../shared/data`` beside the checkout."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("M3NODE_TEST_DATA", default)).resolve()
    if not folder.is_dir():
        missing(f"test data folder {folder} (M3NODE_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """Find an outside program (``storescu``, ``Orthanc``, ``dciodvfy`` …) or skip."""

    def find(name: str) -> str:
        found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
        if found is None:
            missing(f"the program {name}")
            raise AssertionError
        return found

    return find


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("M3NODE_") and not name.startswith("M3NODE_TEST_"):
            monkeypatch.delenv(name)
