"""The workflow that answers one manifest, and its four steps; the engine repeats a step until it has ended.

::

    assemble   is it this run's turn? the volume is read, into memory of this process
    detect     findings.json, masks.npz, overlay.png
    build      the DICOM objects
    close      the outbox, then run.json
"""

from __future__ import annotations

from dbos import DBOS

from m3node.faults import fault_point
from m3node.jobs.engine import names
from m3node.jobs.engine.again import try_again
from m3node.jobs.engine.bench import Bench
from m3node.jobs.engine.work import Words, work_on

_bench: Bench | None = None


def use(bench: Bench) -> None:
    """Set what the jobs of this process share; before the engine is launched."""
    global _bench  # noqa: PLW0603 - the engine calls workflows with nothing but their arguments
    _bench = bench


def _at_hand() -> Bench:
    assert _bench is not None, "use() comes before launch()"
    return _bench


@DBOS.workflow(name=names.ANSWER, max_recovery_attempts=None)
def answer(run: str) -> Words:
    """Answer a manifest.

    Parameters
    ----------
    run : str
        Stem of the manifest's file, and name of the folder in ``results/``.
    """
    bench = _at_hand()
    with bench.job(DBOS.workflow_id or ""):
        words: Words = {}
        for name, step in (("assemble", assemble), ("detect", detect), ("build", build)):
            _before(bench, name)
            words = step(run)
            if words:
                break
        if not words or "end" in words:
            _before(bench, "close")
            words = close(run, words.get("end", {}))
        if "waits" in words:
            pause = float(words["delay"])
            grown = min(pause * names.attempt_of(DBOS.workflow_id or ""), max(pause, names.LONGEST_PAUSE))
            try_again(bench.dispatcher, names.ANSWER, names.JOBS, run, priority=words["priority"], delay=grown)
        return words


@DBOS.step(name="assemble")
def assemble(run: str) -> Words:
    """See whether it is this run's turn, and read its volume."""
    return work_on(_at_hand(), "assemble", run)


@DBOS.step(name="detect")
def detect(run: str) -> Words:
    """Find liver and lesions, and keep what was found."""
    return work_on(_at_hand(), "detect", run)


@DBOS.step(name="build")
def build(run: str) -> Words:
    """Build the objects that are missing."""
    return work_on(_at_hand(), "build", run)


@DBOS.step(name="close")
def close(run: str, end: Words) -> Words:
    """Queue what was built, and write the record."""
    return work_on(_at_hand(), "close", run, end)


def _before(bench: Bench, step: str) -> None:
    bench.between_steps()
    fault_point(f"{step}.before")
