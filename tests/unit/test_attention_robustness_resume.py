"""What an earlier run left: kept where it is whole and still holds, never mixed with another's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from m3node.attention.images.image import InputImage
from m3node.attention.reading.looked import Looked
from m3node.attention.robustness import record as record_module
from m3node.attention.robustness.running import open_robustness, run_robustness
from m3node.durable import write_over
from m3node.errors import ConfigError
from m3node.progress import silent
from spot_looker import ASKED, QUESTIONS, SpotLooker, bench, question, write_spots


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    write_spots(root)
    return root


def test_what_is_whole_is_not_done_again(images: Path, tmp_path: Path) -> None:
    questions = [q for q in QUESTIONS if q.dicom_id == "one"]
    first = run_robustness(bench(tmp_path, images, SpotLooker()), questions, silent, resume=False)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "robustness").iterdir()}

    idle = SpotLooker()
    again = run_robustness(bench(tmp_path, images, idle, resume=True), questions, silent, resume=True)
    assert (again.reused, idle.encoded) == (2, [])
    assert again.records == first.records
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "robustness").iterdir()} == before

    (tmp_path / "robustness" / f"{first.records[1].key}.png").unlink()
    half = run_robustness(bench(tmp_path, images, SpotLooker(), resume=True), questions, silent, resume=True)
    assert half.reused == 1
    for other in ({"seed": 6}, {"changes": "noise:5"}):
        looker = SpotLooker()
        changed = run_robustness(bench(tmp_path, images, looker, resume=True, **other), questions, silent, resume=True)  # type: ignore[arg-type]
        assert changed.reused == 0
        assert looker.encoded


def test_a_failed_question_and_a_changed_image_are_done_again(images: Path, tmp_path: Path) -> None:
    own = tmp_path / "images"
    own.mkdir()
    asked = [question(2, "one", ASKED), question(3, "later", ASKED)]
    (own / "one.png").write_bytes((images / "one.png").read_bytes())
    out = tmp_path / "out"
    assert run_robustness(bench(out, own, SpotLooker(), changes="none"), asked, silent, resume=False).failed == 1
    (own / "later.png").write_bytes((images / "two.png").read_bytes())
    second = run_robustness(bench(out, own, SpotLooker(), changes="none", resume=True), asked, silent, resume=True)
    assert (second.failed, second.reused) == (0, 1)
    (own / "one.png").write_bytes((images / "two.png").read_bytes())
    third = run_robustness(bench(out, own, SpotLooker(), changes="none", resume=True), asked, silent, resume=True)
    assert third.reused == 1


def test_what_failed_is_tried_again_with_nothing_else_changed(images: Path, tmp_path: Path) -> None:
    asked = [q for q in QUESTIONS if q.dicom_id == "two"]
    for resume, encoded in ((False, 1), (True, 1)):
        looker = SpotLooker()
        run_robustness(bench(tmp_path, images, looker, changes="none", resume=resume), asked, silent, resume=resume)
        assert len(looker.encoded) == encoded


def test_what_a_killed_run_left_half_written_goes_with_the_next(images: Path, tmp_path: Path) -> None:
    part = open_robustness(tmp_path, images, resume=False) / ".0f.part"
    part.write_bytes(b"half")
    open_robustness(tmp_path, images, resume=True)
    assert not part.exists()


def test_a_record_never_stands_for_other_files(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [question(2, "one", ASKED)]
    run_robustness(bench(tmp_path, images, SpotLooker(), changes="none"), asked, silent, resume=False)
    (path,) = (tmp_path / "robustness").glob("*.json")

    def full(path: Path, content: bytes) -> None:
        if path.suffix == ".png":
            raise OSError(28, "No space left on device")
        write_over(path, content)

    monkeypatch.setattr(record_module, "write_over", full)
    with pytest.raises(OSError, match="No space"):
        run_robustness(bench(tmp_path, images, SpotLooker(), seed=9, resume=True), asked, silent, resume=True)
    assert not path.exists()


def test_an_earlier_runs_folder_is_not_mixed_with_another(images: Path, tmp_path: Path) -> None:
    folder = open_robustness(tmp_path, images, resume=False)
    open_robustness(tmp_path, images, resume=False)  # empty yet
    (folder / "x.json").write_text("{}")
    with pytest.raises(ConfigError, match="--resume"):
        open_robustness(tmp_path, images, resume=False)
    with pytest.raises(ConfigError, match="folder of images"):
        open_robustness(images / "out", images, resume=False)


def test_a_model_whose_numbers_are_none_leaves_a_record_that_is_kept(images: Path, tmp_path: Path) -> None:
    class Overflowing(SpotLooker):
        def ask(self, features: torch.Tensor, image: InputImage, texts: Sequence[str]) -> list[Looked]:
            nothing = {"log_prob": float("-inf"), "image_share": float("nan")}
            return [replace(looked, **nothing) for looked in super().ask(features, image, texts)]

    asked = [question(2, "one", ASKED)]
    first = run_robustness(bench(tmp_path, images, Overflowing(), changes="noise"), asked, silent, resume=False)
    assert first.failed == 0
    said = first.records[0].said
    assert said is not None
    assert (said.answer, said.log_prob, said.image_share) == ("No.", None, None)
    again = run_robustness(
        bench(tmp_path, images, SpotLooker(), changes="noise", resume=True), asked, silent, resume=True
    )
    assert (again.reused, again.records) == (1, first.records)
