"""Leaves what came of one question in the folder of results: grid, pictures and record, or the record of an error."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from m3node.attention.images.body import BodyKind
from m3node.attention.images.image import InputImage
from m3node.attention.metrics.cells import body_share
from m3node.attention.metrics.grid import grid_metrics
from m3node.attention.output.folder import QuestionFiles
from m3node.attention.output.overlay import WIDTH, draw_overlay
from m3node.attention.output.record import finite, write_record
from m3node.attention.output.rows import Row
from m3node.attention.output.scene import Scene
from m3node.attention.output.setup import Setup
from m3node.attention.output.visualization import DEGENERATE_MARK, TILE, Sheet, draw_visualization
from m3node.attention.questions.answers import is_correct
from m3node.attention.questions.question import Question
from m3node.attention.reading.looked import Looked


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where results go, and what they all depend on."""

    out: Path
    setup: Setup


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """An image that questions were asked about.

    Attributes
    ----------
    image : InputImage
        With its body.
    file : str
        Below the folder of images.
    """

    image: InputImage
    file: str


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A question, what its result depends on, and what it is about.

    Attributes
    ----------
    question : Question
        What is asked.
    basis : mapping
        What its result depends on, as JSON holds it.
    truth : ndarray of bool or None, shape (rows, columns)
        The pixels that it is about.
    """

    question: Question
    basis: Mapping[str, Any]
    truth: npt.NDArray[np.bool_] | None = None


def blank_row(setup: Setup, question: Question) -> Row:
    """Make the row of a question that nothing came of yet."""
    return Row(
        key=question.key,
        line=question.line,
        study_id=question.study_id,
        dicom_id=question.dicom_id,
        question=question.text,
        baseline_question=question.baseline,
        variant_index=question.variant_index,
        strategy=question.strategy,
        ground_truth=question.truth,
        asked_mode=setup.plan.mode.value,
        model=setup.label,
    )


def keep_failure(shelf: Shelf, asked: Asked, shown: Shown | None, error: str) -> Row:
    """Leave the record of a question that could not be answered; a grid or picture of an earlier run goes."""
    row = replace(
        blank_row(shelf.setup, asked.question), error=error, meta_file=QuestionFiles(asked.question.key).record
    )
    if shown is not None:
        row = replace(row, image_file=shown.file, image_kind=shown.image.kind.value)
    write_record(shelf.out, row, asked.basis, {}, {})
    return row


def keep_result(shelf: Shelf, asked: Asked, shown: Shown, looked: Looked) -> Row:
    """Leave all of an answered question."""
    question, image, truth = asked.question, shown.image, asked.truth
    files = QuestionFiles(question.key)
    grid = np.asarray(looked.grid, dtype=np.float32)
    row = replace(
        blank_row(shelf.setup, question),
        answer=looked.answer,
        correct=is_correct(looked.answer, question.truth, question=question.text, baseline=question.baseline),
        metrics=grid_metrics(grid, looked.area, image, truth),
        mode=looked.mode.value,
        passed_over=looked.passed_over,
        degenerate=looked.degenerate,
        layers=shelf.setup.plan.layers,
        image_share=finite(looked.image_share),
        log_prob=finite(looked.log_prob),
        ended=looked.ended,
        terms=looked.terms,
        image_kind=image.kind.value,
        image_file=shown.file,
        grid_file=files.grid,
        meta_file=files.record,
        heads_file="" if looked.by_head is None else files.heads,
        overlay_file=files.overlay,
        visualization_file=files.visualization,
    )
    marks = shelf.setup.marks
    contents = {
        files.grid: _npy(grid),
        files.overlay: draw_overlay(
            Scene.of(image, looked.area, WIDTH),
            grid,
            truth,
            (DEGENERATE_MARK, *marks) if looked.degenerate else marks,
        ),
        files.visualization: draw_visualization(
            Sheet(
                scene=Scene.of(image, looked.area, TILE),
                grid=grid,
                body_share=None if image.body is None else body_share(image.body, looked.area, _cells(grid)),
                body=image.body,
                truth=truth,
                row=row,
                marks=marks,
                region="liver" if shelf.setup.body == BodyKind.LIVER else "body",
            )
        ),
    }
    if looked.by_head is not None:
        contents[files.heads] = _npz(shelf.setup, looked.by_head)
    write_record(shelf.out, row, asked.basis, _rest(shelf.setup, looked, grid), contents)
    return row


def _rest(setup: Setup, looked: Looked, grid: npt.NDArray[np.float32]) -> dict[str, Any]:
    """What the record holds beside row and basis."""
    return {
        "tokens": list(looked.tokens),
        "area": [float(edge) for edge in looked.area],
        "cells": list(grid.shape),
        "layer_weights": dict(zip(map(str, setup.plan.layers), setup.plan.weights, strict=True)),
        "heads": None if looked.by_head is None else {"kind": setup.plan.heads, "shape": list(looked.by_head.shape)},
    }


def _cells(grid: npt.NDArray[np.float32]) -> tuple[int, int]:
    return grid.shape[0], grid.shape[1]


def _npy(grid: npt.NDArray[np.float32]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, grid, allow_pickle=False)
    return stream.getvalue()


def _npz(setup: Setup, by_head: npt.NDArray[np.float32]) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, by_head=by_head.astype(np.float32), layers=np.array(setup.plan.layers))
    return stream.getvalue()
