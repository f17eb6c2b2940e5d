"""A run whose worker died is cancelled at once, and nobody takes it up again."""

from __future__ import annotations

import signal
from pathlib import Path

from m3node.jobs.engine import names
from working import run_of, workplace

ARCHIVE = '[[destinations]]\nname = "archive"\nae_title = "ARCHIVE"\nhost = "127.0.0.1"\nport = 1\n'


def test_a_run_that_a_dead_worker_had_begun_is_cancelled_and_not_gone_on_with(tmp_path: Path) -> None:
    with workplace(tmp_path, toml=ARCHIVE) as place:
        manifest, other = place.series(0), place.series(1)
        place.enqueue(manifest)
        (place.faults / "detect.before").touch()
        assert place.work().wait() == -signal.SIGKILL
        assert "is cancelled" in place.actions.cancel_run(run_of(manifest), "sent by mistake")
        record = place.record(manifest)
        assert record is not None
        assert (record.cancelled, record.objects) == ("sent by mistake", ())

        place.enqueue(other)
        place.work()  # the same slot: it goes on with what it had begun
        place.until_ended(other)
        place.until(lambda: not place.dispatcher.live(names.JOBS))
        assert not place.begun("detect", manifest)
        (work,) = place.dispatcher.attempts_of(names.job_prefix(manifest.key))
        assert work.state == "CANCELLED"
        assert [path.name for path in (place.layout.outbox / "archive").glob(f"{run_of(manifest)}.*")] == []
