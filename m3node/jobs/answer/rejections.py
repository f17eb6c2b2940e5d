"""Records why a stack or an instance gets no results, in the same place where results would lie."""

from __future__ import annotations

import datetime as dt
import logging
from pathlib import Path

from m3node import __version__
from m3node.detectors.protocols import DetectorIdentity
from m3node.intake.series.manifest import StackKey
from m3node.layout import DataLayout
from m3node.rejection import Rejection
from m3node.results.findings import Findings, Outcome
from m3node.results.store import save_findings

_log = logging.getLogger(__name__)

NO_DETECTOR = DetectorIdentity(name="", version="", description="")
"""Nobody looked."""


def rejected_findings(rejection: Rejection, *, manifest_key: str = "", settings_digest: str = "") -> Findings:
    """Return the findings of a stack that nobody looked at."""
    return Findings(
        manifest_key=manifest_key,
        outcome=Outcome.REJECTED,
        content_time=dt.datetime.now().astimezone().isoformat(timespec="seconds"),
        software_version=__version__,
        detector=NO_DETECTOR,
        settings_digest=settings_digest,
        region=None,
        lesions=(),
        views_total=0,
        views_read=0,
        failures=(),
        tracking_uids=(),
        predecessors=(),
        rejection=rejection,
    )


def record_rejection(layout: DataLayout, key: StackKey, generation: int, digest: str, rejection: Rejection) -> Path:
    """Write ``results/<label>.g<generation>/findings.json`` with the reason, once.

    Parameters
    ----------
    layout : DataLayout
        The data folder.
    key : StackKey
        The stack, or the series of a single instance.
    generation : int
        From 1 for stacks; 0 for single instances.
    digest : str
        SHA-256 over what is rejected, so that the same rejection is recorded once and another one beside it.
    rejection : Rejection
        The reason.

    Returns
    -------
    Path
        The folder that holds the record.
    """
    name = f"{key.label}.g{generation}"
    if generation == 0:
        name = f"{name}.{digest[:12]}"
    folder = layout.results / name
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "findings.json").exists():
        save_findings(rejected_findings(rejection, manifest_key=digest), folder)
        _log.warning("not used: %s [%s]", rejection.message, rejection.reason.value)
    return folder
