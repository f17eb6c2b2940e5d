"""Baseline questions asked in other words and about changed images, by a model whose attention follows bright spots."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m3node.attention.images.reading import read_image
from m3node.attention.robustness.asking import comparable
from m3node.attention.robustness.families import families, first_families
from m3node.attention.robustness.perturbation import Perturbation, parse_list
from m3node.attention.robustness.record import Change, RobustnessRecord, Said, read_record
from m3node.attention.robustness.running import RobustnessRun, run_robustness
from m3node.attention.robustness.section import summarise, summary_section
from m3node.attention.robustness.similarity import Similarity
from m3node.attention.robustness.undoing import Frame, undo
from m3node.gemma.images import SquareFrame
from m3node.progress import silent
from spot_looker import ASKED, CELLS, CHANGES, QUESTIONS, SpotLooker, bench, question, write_spots


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    write_spots(root)
    return root


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, images: Path) -> tuple[Path, RobustnessRun, SpotLooker]:
    out, looker = tmp_path_factory.mktemp("out"), SpotLooker()
    return out, run_robustness(bench(out, images, looker), QUESTIONS, silent, resume=False), looker


def by_name(record: RobustnessRecord) -> dict[str, Change]:
    return {change.name: change for change in record.changes if change.group == "perturbation"}


def test_each_image_and_each_changed_one_is_encoded_once_for_all_questions(
    done: tuple[Path, RobustnessRun, SpotLooker],
) -> None:
    _, _, looker = done
    changes = len(parse_list(CHANGES))
    assert len(looker.encoded) == 2 * (1 + changes)
    # All five questions about the first image together, then both baselines about each of its changed ones.
    assert [len(texts) for texts in looker.asked[: 1 + changes]] == [5, *[2] * changes]
    assert all(looker.with_body)  # which says where pixels are set


def test_flips_are_told_from_answers(done: tuple[Path, RobustnessRun, SpotLooker]) -> None:
    first = done[1].records[0]
    assert first.said is not None
    assert (first.said.answer, first.said.normalised, first.said.correct) == ("No.", "no", True)
    words = {change.question: change for change in first.changes if change.group == "paraphrase"}
    assert words["Do you see a nodule?"].flipped is False
    assert words["Is there always a nodule?"].flipped is True
    # The other answer, and rightly so: its truth is the other one, too.
    assert words["Are the lungs free of nodules?"].flipped is False
    assert {name: change.flipped for name, change in by_name(first).items()} == {
        "noise:5": False,
        "brightness:90": True,
        "rotation:20": False,
        "crop:0.2": False,
        "pad:0.5": False,
    }
    brighter = by_name(first)["brightness:90"].said
    assert brighter is not None
    assert (brighter.normalised, brighter.correct) == ("yes", False)


def test_a_model_that_follows_the_spot_looks_at_it_also_after_the_change_is_undone(
    done: tuple[Path, RobustnessRun, SpotLooker],
) -> None:
    out, run, _ = done
    record = run.records[0]
    changes = by_name(record).values()
    assert [change.arrays for change in changes] == [f"perturbation_{number}" for number in range(len(changes))]
    with np.load(out / "robustness" / f"{record.key}_grids.npz") as grids:
        original = grids["original"]
        for name, change in by_name(record).items():
            undone, shown = grids[change.arrays], grids[f"{change.arrays}_as_shown"]
            compared = grids[f"{change.arrays}_compared"]
            assert undone.sum() == pytest.approx(1.0, abs=1e-5)
            assert not undone[~compared].any()
            here, there = (np.array(np.unravel_index(g.argmax(), g.shape)) for g in (original, undone))
            assert np.abs(here - there).max() <= 1, name
            similarity = change.similarity
            assert similarity is not None
            assert similarity.cells == compared.sum()
            # What the record says is enough to bring the grid back again.
            assert change.area is not None
            assert change.shape is not None
            assert record.area is not None
            assert record.shape is not None
            again = undo(
                shown,
                Frame(change.area, change.shape),
                np.array(change.to_original),
                Frame(record.area, record.shape),
            )
            assert np.array_equal(again.grid, undone)
            assert similarity.left_out_after == again.left_out
            if name in {"rotation:20", "crop:0.2", "pad:0.5"}:
                assert similarity.jensen_shannon < 0.1
                assert similarity.left_out_before > 0
                assert similarity.floor > 0
            else:
                assert np.array_equal(undone, shown)
                assert (similarity.floor, similarity.left_out_before, similarity.cells) == (0.0, 0.0, CELLS**2)
        assert np.array_equal(grids["paraphrase_0"], original)
    rotated = by_name(record)["rotation:20"]
    assert rotated.similarity is not None
    assert rotated.similarity.spearman is not None
    assert rotated.similarity.spearman > 0.9


def test_a_record_holds_all_that_it_takes_to_make_the_same_image_again(
    done: tuple[Path, RobustnessRun, SpotLooker], images: Path
) -> None:
    out, run, _ = done
    held = json.loads((out / "robustness" / f"{run.records[0].key}.json").read_bytes())
    assert held["schema"] == "m3node.attention-robustness/1"
    assert "not for diagnosis" in held["notice"]
    assert held["basis"]["seed"] == 5
    image = read_image(images / "one.png")
    for change in held["record"]["changes"]:
        if change["group"] == "perturbation":
            made = Perturbation.parse(change["name"], change["seed"])
            assert made.strength == change["strength"]
            changed = made.apply(image)
            assert list(changed.image.shape) == change["shape"]
            assert changed.to_original.tolist() == change["to_original"]
            assert list(SquareFrame.of(changed.image.shape, image.spacing).area) == change["area"]


def test_the_same_seed_gives_the_same_files_to_the_byte_and_another_does_not(
    done: tuple[Path, RobustnessRun, SpotLooker], images: Path, tmp_path: Path
) -> None:
    first = done[0] / "robustness"
    for seed in (5, 6):
        run_robustness(bench(tmp_path / str(seed), images, SpotLooker(), seed=seed), QUESTIONS, silent, resume=False)
    files = sorted(path.name for path in first.iterdir())
    same, other = tmp_path / "5" / "robustness", tmp_path / "6" / "robustness"
    assert sorted(path.name for path in same.iterdir()) == files
    assert all((same / name).read_bytes() == (first / name).read_bytes() for name in files)
    grids = next(name for name in files if name.endswith(".npz"))
    assert (other / grids).read_bytes() != (first / grids).read_bytes()


def test_what_fails_fails_alone_and_says_why(done: tuple[Path, RobustnessRun, SpotLooker]) -> None:
    out, run, _ = done
    records = {(record.dicom_id, record.question): record for record in run.records}
    gone, second = records["gone", ASKED], records["two", ASKED]
    assert "gone" in gone.error
    assert not gone.changes
    (variant,) = [change for change in second.changes if change.group == "paraphrase"]
    assert "<image>" in variant.error
    assert variant.said is None
    assert all(change.said is not None for change in by_name(second).values())
    # The baseline of a variant without a text is still asked.
    unworded = records["two", "Where?"]
    assert unworded.said is not None
    assert unworded.changes[0].error
    assert run.failed == 3
    assert run.usable
    held = read_record(out / "robustness" / f"{gone.key}.json")
    assert held is not None
    assert held[0] == gone
    assert not (out / "robustness" / f"{gone.key}.png").exists()


def test_grids_that_say_nothing_are_not_averaged(done: tuple[Path, RobustnessRun, SpotLooker]) -> None:
    flat = next(record for record in done[1].records if "flat" in record.question)
    assert not any(change.comparable for change in flat.changes)
    assert all(change.similarity is not None for change in flat.changes)
    assert all(one.compared == 0 and one.jensen_shannon is None for one in summarise([flat]))


def test_a_picture_shows_all_of_them(done: tuple[Path, RobustnessRun, SpotLooker]) -> None:
    out, run, _ = done
    with Image.open(out / "robustness" / f"{run.records[0].key}.png") as sheet:
        shown = np.asarray(sheet.convert("RGB"), dtype=int)
    assert shown.shape[1] > 4 * 190
    # Amber notices at the bottom, whatever the test model says.
    bottom = shown[-60:]
    assert ((bottom[..., 0] > 200) & (bottom[..., 2] < 120)).sum() > 200


def test_each_image_and_change_has_a_seed_of_its_own(done: tuple[Path, RobustnessRun, SpotLooker]) -> None:
    first, second = (next(r for r in done[1].records if r.dicom_id == name and r.changes) for name in ("one", "two"))
    seeds = [change.seed for record in (first, second) for change in by_name(record).values()]
    assert len(set(seeds)) == 2 * len(parse_list(CHANGES))
    # Both questions about one image saw the same changed images.
    flat = next(record for record in done[1].records if "flat" in record.question)
    assert [change.seed for change in by_name(flat).values()] == [change.seed for change in by_name(first).values()]


def test_grids_of_two_modes_are_not_comparable() -> None:
    one = Said("No.", "no", True, -1.0, 0.5, "raw", (), False)
    assert comparable(one, replace(one, answer="Yes.", normalised="yes"))
    assert not comparable(one, replace(one, mode="gated"))
    assert not comparable(replace(one, degenerate=True), one)


def test_variants_find_their_baseline_also_where_the_table_has_no_row_of_it() -> None:
    lonely = [question(3, "one", "In other words?", 2, truth="yes"), question(2, "one", "Otherwise?", 1)]
    (family,) = families(lonely)
    assert family.baseline.text == ASKED
    assert family.baseline.truth == ""
    assert [variant.text for variant in family.variants] == ["Otherwise?", "In other words?"]
    # A table that counts its variants from 0.
    counted = [question(2, "one", "Otherwise?", 0), question(3, "one", ASKED, 1)]
    assert families(counted)[0].baseline.text == ASKED
    assert [q.line for q in first_families(QUESTIONS, 2)] == [2, 3, 4, 5, 6]


def test_the_section_adds_up_by_change(done: tuple[Path, RobustnessRun, SpotLooker]) -> None:
    section = summary_section(done[0])
    assert section is not None
    assert (section.questions, section.failed, section.steady) == (5, 3, 0)
    assert section.is_test_model
    assert section.models == ("spots",)
    changes = {one.name: one for one in section.changes}
    assert list(changes) == [
        *("negation", "other words", "paraphrase"),
        *("noise:5", "brightness:90", "rotation:20", "crop:0.2", "pad:0.5"),
    ]
    assert (changes["paraphrase"].flips, changes["paraphrase"].asked, changes["paraphrase"].failed) == (1, 2, 1)
    assert (changes["brightness:90"].flips, changes["brightness:90"].asked) == (2, 4)  # "two" is a yes anyway
    assert changes["noise:5"].flips == 0
    assert changes["noise:5"].compared == 3
    assert (
        section.unsteady[0].flips / section.unsteady[0].asked >= section.unsteady[-1].flips / section.unsteady[-1].asked
    )
    assert any("gone" in where for where, _ in section.errors)
    assert all((done[0] / one.picture).is_file() for one in section.unsteady)
    assert summary_section(done[0] / "robustness") is None
    json.dumps(section.as_json(), allow_nan=False)


def test_means_by_hand() -> None:
    said = Said("No.", "no", True, -1.0, 0.5, "raw", (), False)
    alike = Similarity(0.1, 0.02, 0.8, None, 0.5, 60, 0.1, 0.2)
    changes = (
        Change(
            "perturbation", "rotation:5", "a", "q", "no", 0, said=said, flipped=False, comparable=True, similarity=alike
        ),
        Change(
            *("perturbation", "rotation:5", "b", "q", "no", 0),
            said=replace(said, correct=False),
            flipped=True,
            comparable=True,
            similarity=replace(alike, jensen_shannon=0.3, pearson=None),
        ),
        Change(
            "perturbation",
            "rotation:5",
            "c",
            "q",
            "",
            0,
            said=replace(said, correct=None),
            flipped=False,
            similarity=alike,
        ),
        Change("perturbation", "rotation:5", "d", "q", "no", 0, error="memory ran out"),
    )
    (found,) = summarise([RobustnessRecord("k", "s", "d", "q", "no", said=said, changes=changes)])
    assert (found.asked, found.flips, found.right, found.judged, found.compared, found.failed) == (3, 1, 1, 2, 2, 1)
    assert found.jensen_shannon == pytest.approx(0.2)
    assert found.pearson == pytest.approx(0.8)
    assert found.spearman is None
    assert found.flip_rate == pytest.approx(1 / 3)
