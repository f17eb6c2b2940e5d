"""The page of a run: what it says is what came of the rows, and nothing that strangers wrote runs in it."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3node.attention.metrics.values import GridMetrics
from m3node.attention.output.report.page import TEMPLATES, write_report
from m3node.attention.output.report.plots import BINS, centres, histogram, mean_grid
from m3node.attention.output.report.summary import (
    SHOWN_CASES,
    SHOWN_ERRORS,
    SHOWN_GROUPS,
    SHOWN_ROWS,
    Summary,
    summarise,
)
from m3node.attention.output.rows import Row
from m3node.attention.questions.question import Question
from m3node.drawing.heat import SCALE
from m3node.notice import ATTENTION_NOTICE, NOT_FOR_CLINICAL_USE
from spot_looker import spot_setup

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'

EVEN = GridMetrics(1.0, 0.5, 0.1, 0.8, 0.1, 0.4, 0.6, None, None, 0.5, 0.5, 0.5, 0.5, None, None)


class Made:
    """Questions, rows and grids of a run that was never made."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.questions: list[Question] = []
        self.rows: list[Row] = []
        (out / "grids").mkdir()

    def add(
        self,
        image: str,
        index: int = 0,
        *,
        correct: bool | None = None,
        cell: tuple[int, int] = (0, 0),
        text: str = "",
        **more: Any,
    ) -> Row:
        asked = text or f"Question {index}?"
        question = Question(len(self.rows) + 2, image, "s", asked, text or "Question 0?", index, strategy="")
        grid = np.zeros((4, 4), dtype=np.float32)
        grid[cell] = 1.0
        np.save(self.out / "grids" / f"{question.key}.npy", grid)
        row = Row(
            key=question.key,
            line=question.line,
            study_id="s",
            dicom_id=image,
            question=asked,
            baseline_question=question.baseline,
            variant_index=index,
            strategy=more.pop("strategy", ""),
            ground_truth="" if correct is None else "yes",
            asked_mode="gated",
            model="m",
            answer=more.pop("answer", "Yes." if correct is not False else "No."),
            correct=correct,
            metrics=replace(EVEN, **more.pop("metrics", {})),
            mode="raw",
            degenerate=False,
            grid_file=f"grids/{question.key}.npy",
            overlay_file=f"overlays/{question.key}_overlay.png",
            visualization_file=f"visualizations/{question.key}_full.png",
        )
        row = replace(row, **more)
        self.questions.append(question)
        self.rows.append(row)
        return row

    def summary(self, robustness: Any = None) -> Summary:
        return summarise(spot_setup(), self.questions, self.rows, self.out, robustness)

    def page(self) -> str:
        return write_report(spot_setup(), self.questions, self.rows, self.out).read_text(encoding="utf-8")


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


class Tags(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    handle_startendtag = handle_starttag


def test_what_strangers_wrote_is_text(made: Made) -> None:
    made.add(HOSTILE, correct=False, text=HOSTILE, answer=HOSTILE, strategy=HOSTILE, ground_truth=HOSTILE)
    made.add(HOSTILE, 1, correct=True, answer=HOSTILE, passed_over=(f"gated: {HOSTILE}",), mode="raw")
    failed = made.add("b", text="b")
    made.rows[-1] = replace(failed, metrics=None, error=HOSTILE, grid_file="")
    page = made.page()
    tags = Tags(page).found
    assert "script" not in {tag for tag, _ in tags}
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert {attributes["src"] for tag, attributes in tags if tag == "img"} == {made.rows[0].overlay_file}
    assert page.count(html.escape("<script>alert(1)")) >= 5


def test_the_page_loads_nothing_but_what_lies_beside_it(made: Made) -> None:
    made.add("a", correct=True)
    tags = Tags(made.page()).found
    for tag, attributes in tags:
        for name in ("src", "href"):
            address = attributes.get(name)
            if address is not None:
                assert re.match(r"(overlays|visualizations)/|#|data:,$|evaluation_results.csv$", address), (
                    tag,
                    address,
                )
        assert "style" not in attributes
    policy = next(one["content"] for tag, one in tags if one.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "unsafe" not in policy


def test_the_policy_knows_the_pages_own_style(made: Made) -> None:
    page = made.page()
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in html.unescape(page)
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_every_page_says_what_it_is_not(made: Made) -> None:
    for page in (made.page(), made.add("a").key and made.page()):
        assert page.count(f"{ATTENTION_NOTICE} {NOT_FOR_CLINICAL_USE}") >= 2
        assert "test model" in page


def test_figures_count_what_there_is(made: Made) -> None:
    made.add("a", correct=True, metrics={"pointing_hit": True, "inside_body": 0.2})
    made.add("a", 1, correct=False, metrics={"pointing_hit": False, "inside_body": 0.4}, cell=(3, 3))
    made.add("b", correct=True, metrics={"inside_body": 0.9, "pointing_hit": True}, degenerate=True)
    failed = made.add("c")
    made.rows[-1] = replace(failed, metrics=None, correct=None, error="gone", grid_file="")
    figures = {figure.name: figure for figure in made.summary().figures}
    assert (figures["questions"].value, figures["questions"].detail) == ("4", "about 3 images")
    assert figures["failed"].value == "1"
    assert (figures["answers right"].value, figures["answers right"].detail) == ("67 %", "2 of 3")
    assert figures["the same answer to all variants"].detail == "0 of 1"
    assert figures["mean divergence"].value == "1.000"
    assert figures["inside the body"].value == "30 %"
    assert figures["pointing hits"].detail == "1 of 2"
    assert figures["degenerate grids"].value == "1"


def test_without_truth_or_body_or_variants_nothing_is_made_up(made: Made) -> None:
    made.add("a", metrics={"inside_body": None})
    summary = made.summary()
    names = {figure.name for figure in summary.figures}
    assert names == {"questions", "failed"}
    assert "Inside the body" not in {one.title for one in summary.histograms}
    assert summary.groups == ()
    assert summary.doubtful == ()
    assert summary.worst_title.startswith("Answers that looked least")
    assert "None" not in made.page()


def test_an_empty_run_has_a_page(made: Made) -> None:
    assert "<h1>" in made.page()


def test_worst_are_wrong_answers_that_looked_least_at_the_body(made: Made) -> None:
    shares = [0.5, 0.1, 0.9, 0.3]
    for number, share in enumerate(shares):
        made.add(f"i{number}", correct=False, metrics={"inside_body": share})
    made.add("right", correct=True, metrics={"inside_body": 0.01})
    for number in range(SHOWN_CASES):
        made.add(f"more{number}", correct=False, metrics={"inside_body": 0.95})
    worst = made.summary().worst
    assert [case.row.dicom_id for case in worst[:4]] == ["i1", "i3", "i0", "i2"]
    assert len(worst) == SHOWN_CASES
    assert worst[0].why.startswith("10 % inside the body")
    assert {case.kind for case in worst} == {"wrong"}


def test_degenerate_grids_count_for_nothing_and_the_page_says_so(made: Made) -> None:
    made.add("flat", correct=False, metrics={"inside_body": 0.01}, degenerate=True)
    assert "show noise" in made.summary().noise
    assert made.summary().grids == ()
    made.add("sound", correct=False, metrics={"inside_body": 0.9})
    made.add("lucky", correct=True, metrics={"inside_body": 0.01}, degenerate=True)
    summary = made.summary()
    assert summary.noise == "2 degenerate grids are left out."
    assert summary.noise in made.page()
    assert {one.title: one.count for one in summary.histograms}["Inside the body"] == 1
    assert [grid.title for grid in summary.grids] == ["all (1)", "wrong answers (1)"]
    assert len(summary.centres) == 1
    assert [case.row.dicom_id for case in summary.worst] == ["sound", "flat"]
    assert summary.doubtful == ()


def test_right_answers_that_looked_elsewhere_are_shown_too(made: Made) -> None:
    made.add("fine", correct=True, metrics={"pointing_hit": True})
    made.add("missed", correct=True, metrics={"pointing_hit": False})
    made.add("outside", correct=True, metrics={"inside_body": 0.3})
    made.add("wrong", correct=False, metrics={"inside_body": 0.1})
    assert [case.row.dicom_id for case in made.summary().doubtful] == ["outside", "missed"]


def test_groups_with_wrong_answers_come_before_those_that_only_moved(made: Made) -> None:
    for image, answers, cells in (
        ("steady", (True, True), ((0, 0), (0, 0))),
        ("moved", (True, True), ((0, 0), (3, 3))),
        ("wrong", (True, False), ((0, 0), (0, 0))),
    ):
        for index, (correct, cell) in enumerate(zip(answers, cells, strict=True)):
            made.add(image, index, correct=correct, cell=cell)
    groups = made.summary().groups
    assert [group.consistency.dicom_id for group in groups] == ["wrong", "moved"]
    assert [len(group.cases) for group in groups] == [2, 2]
    assert [one.strategy for one in made.summary().strategies] == ["baseline", ""]


def test_a_long_run_makes_no_endless_page(made: Made) -> None:
    for number in range(SHOWN_GROUPS + 5):
        for index in range(9):
            made.add(f"i{number}", index, correct=index % 2 == 0, cell=(index % 4, 0))
    summary = made.summary()
    assert len(summary.groups) == SHOWN_GROUPS
    assert all(group.more == 3 for group in summary.groups)
    assert made.page().count("<img") <= SHOWN_GROUPS * 6 + SHOWN_CASES * 2


def test_what_is_left_out_of_the_errors_is_said(made: Made) -> None:
    for number in range(SHOWN_ERRORS + 3):
        made.add(f"i{number}")
    made.rows = [replace(row, metrics=None, answer="", error="no such image") for row in made.rows]
    page = made.page()
    assert page.count("no such image</td>") == SHOWN_ERRORS + min(SHOWN_ROWS, SHOWN_ERRORS + 3)
    assert f"The first {SHOWN_ERRORS} of {SHOWN_ERRORS + 3}" in page


def test_each_figure_has_its_name_before_its_value_as_a_list_of_terms_must(made: Made) -> None:
    made.add("a", correct=True)
    tags = [tag for tag, _ in Tags(made.page()).found]
    assert tags.count("dt") >= 4
    assert all("dt" in tags[number - 2 : number] for number, tag in enumerate(tags) if tag == "dd")


def test_words_can_be_read_on_their_ground_in_light_and_in_dark() -> None:
    """WCAG 2.2, success criterion 1.4.3: a contrast of 4.5 at least."""
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    light, dark = (dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", part)) for part in style.split("@media", 2)[:2])
    for colours in (light, light | dark):
        for ground in ("page", "card"):
            for ink in ("ink", "soft", "accent", "right", "wrong-ink"):
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground, colours[ink])
        assert contrast(colours["warn-ink"], colours["warn-ground"]) >= 4.5
    assert "--kind-ink: var(--wrong-ink)" in style
    assert "--kind-ink: var(--soft)" in style


def contrast(one: str, other: str) -> float:
    """By the relative luminance of sRGB."""
    shares = [np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255 for colour in (one, other)]
    light = [np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4) for share in shares]
    low, high = sorted(float(np.dot(one, (0.2126, 0.7152, 0.0722))) for one in light)
    return (high + 0.05) / (low + 0.05)


# Plots.


def test_a_histogram_stacks_every_value_once() -> None:
    values = [(0.0, "right"), (0.5, "wrong"), (0.5, "right"), (0.51, "open"), (1.0, "right")]
    plot = histogram("t", "a", values, bounds=(0.0, 1.0))
    assert plot is not None
    assert (plot.most, plot.count) == (3, 5)
    told = sorted(bar.says for bar in plot.bars)
    assert "0 % to 5 %: 1 right" in told
    assert "50 % to 55 %: 1 wrong" in told
    assert "95 % to 100 %: 1 right" in told
    middle = sorted((bar for bar in plot.bars if bar.says.startswith("50 %")), key=lambda bar: bar.y)
    assert [bar.y for bar in middle] == pytest.approx([0.0, 50.0, 100.0])
    assert {one.kind: one.says for one in plot.medians}["right"] == "median, right: 50 %"
    assert [text for _, text in plot.ticks] == ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.sampled_from(("right", "wrong", "open"))), min_size=1, max_size=40))
def test_any_values_fit_their_axis(values: list[tuple[float, str]]) -> None:
    plot = histogram("t", "a", values, percent=False)
    assert plot is not None
    assert sum(int(bar.says.rpartition(": ")[2].split()[0]) for bar in plot.bars) == len(values)
    for bar in plot.bars:
        assert bar.x >= -1e-6
        assert bar.x + bar.width <= 320.0 + 1e-6
        assert -1e-6 <= bar.y <= bar.y + bar.height <= 150.0 + 1e-6
    assert all(-1e-6 <= middle.x <= 320.0 + 1e-6 for middle in plot.medians)
    assert 2 <= len(plot.ticks) <= 12
    assert len({text for _, text in plot.ticks}) == len(plot.ticks), "ticks can be told apart"
    assert len(plot.bars) <= 3 * BINS


def test_no_values_no_plot() -> None:
    assert histogram("t", "a", []) is None
    assert mean_grid("all", []) is None
    assert mean_grid("all", [np.ones((2, 2)), np.ones((3, 3))]) is None


def test_a_mean_grid_is_the_mean() -> None:
    grid = mean_grid("all", [np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [0.5, 0.5]])])
    assert grid is not None
    assert [cell.says for cell in grid.cells] == ["50.00 %", "0.00 %", "25.00 %", "25.00 %"]
    assert grid.cells[0].colour == "#{:02x}{:02x}{:02x}".format(*SCALE[255])
    assert (grid.cells[1].x, grid.cells[1].y) == (1, 0)


def test_centres_of_mass_stand_where_the_metrics_say(made: Made) -> None:
    row = made.add("a", metrics={"centre_row": 0.25, "centre_column": 1.2})
    (point,) = centres([row])
    assert (point.x, point.y, point.link) == (100.0, 25.0, row.visualization_file)
