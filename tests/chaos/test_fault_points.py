"""A kill at each single step boundary, and in the middle of each step: the run goes on from its last finished step."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from archive import Archive, open_archive
from checks import Answers, check, read_answers
from killed_node import KilledNode

from lines import whole_lines
from m3node.faults import VARIABLE
from quick_series import SLICES, STEPS, quick_environment, quick_series, series_uid

JOB_STEPS = ("assemble", "detect", "build", "close")
OBJECTS = 4

OVERDUE, NEVER_OVERDUE = 20, 600
"""Seconds after which the object goes again of which no report came: where that is to be seen, and elsewhere."""

SETTINGS = """
[listener]
receivers = 1
callers = [{{ae_title = "PACS"}}]
[completeness]
quiet_seconds = 0.5
[detector]
name = "quick"
[delivery]
retry_first_seconds = 0.2
commitment_seconds = {overdue}
"""


@dataclass
class Scene:
    """A node that dies where it is told, and the archive that it delivers to."""

    node: KilledNode
    archive: Archive
    faults: Path
    steps: Path
    root: Path
    sent: list[Path]

    def answered_with(self, point: str, seed: object, number: int) -> Answers:
        """Have a series answered while a process dies at a point once; what must hold, holds."""
        (self.faults / point).touch()
        self.sent += (files := quick_series(self.root / f"{number}", seed, number))
        self.node.send(*files)
        self.node.until(lambda: not (self.faults / point).exists())
        died = time.monotonic()
        run = f"{series_uid(seed)}.g1"
        self.node.until(lambda: self.node.answered(run) and not list(self.node.layout.outbox.glob("*/*.json")))
        print(f"{point}: answered and delivered {time.monotonic() - died:.1f} s after the death")
        return read_answers(self.node, [series_uid(seed)], SLICES)

    def begun_as_often_as(self, times: dict[str, int], run: str) -> bool:
        """Whether each step of a run was begun so often."""
        found = [json.loads(line) for line in whole_lines(self.steps)]
        return Counter(line["step"] for line in found if line["run"] == run) == times

    def offered(self, answers: Answers) -> int:
        """How many stores the archive saw of a run's objects."""
        return sum(self.archive.offered[uid] for uid in answers.objects)


@contextmanager
def _scene(root: Path, *, confirming: bool, overdue: int = NEVER_OVERDUE) -> Iterator[Scene]:
    faults, steps = root / "faults", root / "steps"
    faults.mkdir()
    environment = quick_environment(**{VARIABLE: faults, STEPS: steps})
    node = KilledNode(root / "node", SETTINGS.format(overdue=overdue), environment)
    with open_archive(Archive("archive", 0.0, 1, report_to=node.port if confirming else 0)) as archive:
        node.config.write_text(f"{node.config.read_text()}\n{archive.toml}")
        try:
            node.start()
            yield Scene(node, archive, faults, steps, root, [])
            assert node.stop() == 0
        finally:
            node.clean_up()


@pytest.mark.slow
@pytest.mark.parametrize("step", JOB_STEPS)
def test_a_kill_before_within_and_after_a_step_repeats_that_step_and_no_other(tmp_path: Path, step: str) -> None:
    # Between the step's end and the engine's note of it nobody can tell that it had ended.
    begun = {"before": 1, "inside": 2, "after": 2}
    with _scene(tmp_path, confirming=False) as scene:
        every = Answers()
        for number, (place, times) in enumerate(begun.items()):
            answers = scene.answered_with(f"{step}.{place}", (step, place), number)
            expected = {**dict.fromkeys(JOB_STEPS, 1), step: times}
            scene.node.until(partial(scene.begun_as_often_as, expected, f"{series_uid((step, place))}.g1"))
            assert scene.offered(answers) == OBJECTS
            every = every.and_those_of(answers)
        _holds(scene, every)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "sent_again"),
    [
        ("store", {"before": 0, "inside": 1, "after": 0}),
        ("commit", {"before": 0, "inside": 0, "after": 0}),
        # A report that was never written down does not come twice: the object is sent again when it is overdue.
        ("report", {"before": 1, "after": 0}),
    ],
)
def test_a_kill_around_a_delivery_sends_again_only_what_nobody_wrote_down(
    tmp_path: Path, step: str, sent_again: dict[str, int]
) -> None:
    overdue = OVERDUE if step == "report" else NEVER_OVERDUE
    with _scene(tmp_path, confirming=step != "store", overdue=overdue) as scene:
        every = Answers()
        for number, (place, times) in enumerate(sent_again.items()):
            answers = scene.answered_with(f"{step}.{place}", (step, place), number)
            assert scene.begun_as_often_as(dict.fromkeys(JOB_STEPS, 1), f"{series_uid((step, place))}.g1")
            assert scene.offered(answers) == OBJECTS + times, place
            every = every.and_those_of(answers)
        _holds(scene, every)


def _holds(scene: Scene, answers: Answers) -> None:
    assert check(scene.node, answers, [scene.archive], scene.sent, scene.sent) == []
    assert answers.answered == answers.series
    assert len(answers.objects) == OBJECTS * answers.series
