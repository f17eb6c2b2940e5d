"""What the actions of ``m3node attention`` share: which questions, which model, and how attention is read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from m3node.attention.reading.plan import ANSWER_TOKENS, MAX_NEW_TOKENS, Mode
from m3node.cli.extras import needs_extra
from m3node.cli.options import count
from m3node.settings import MedGemmaSettings, load

if TYPE_CHECKING:
    from m3node.attention.output.setup import Setup
    from m3node.attention.reading.looker import Looker

BODIES = ("auto", "xray", "ct", "liver", "none")
"""Values of ``m3node.attention.images.body.BodyKind``, which is not imported for ``--help``."""


def add_questions(parser: argparse.ArgumentParser, *, counted: str = "questions") -> None:
    """Add the table, the folders, and what is taken of the table; ``--limit`` is about what is ``counted``."""
    parser.add_argument("questions", type=Path, metavar="QUESTIONS.csv", help="table of questions (docs/attention.md)")
    parser.add_argument(
        "--images", type=Path, required=True, metavar="DIR", help="folder below which the images are found by dicom_id"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where results go; made when absent")
    parser.add_argument("--limit", type=at_least_one, metavar="N", help=f"only the first N {counted} of the table")
    parser.add_argument("--resume", action="store_true", help="go on in DIR; what is whole is not done again")
    parser.add_argument(
        "--column",
        type=_column,
        action="append",
        default=[],
        metavar="NAME=COLUMN",
        help="what the table calls a column, such as dicom_id=image; may be given again",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add which model is asked, and where it runs."""
    parser.add_argument(
        "--model",
        metavar="NAME|FOLDER",
        help="name on the hub, a folder, or 'test' for the small test model (detector.medgemma.model)",
    )
    parser.add_argument("--revision", metavar="REV", help="tag, branch or commit on the hub")
    parser.add_argument("--profile", metavar="NAME|FOLDER", help="model profile (default: by the model's name)")
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--dtype", help="auto, float32 or bfloat16")


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add how attention is read, and what the body is looked for by."""
    parser.add_argument(
        "--mode",
        choices=[mode.value for mode in Mode],
        default=Mode.GATED.value,
        help="what a grid is made of; a grid that says nothing is made anew by the next (default: %(default)s)",
    )
    parser.add_argument(
        "--layers",
        default="global",
        metavar="WHICH",
        help="language layers: global, all, a list such as 3,5,11, or last:N, later ones weighing more "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--heads",
        choices=("mean", "groups", "all"),
        default="mean",
        help="kept beside each grid: nothing, or one grid for each layer and group of heads, or head "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--answer-tokens",
        type=at_least_one,
        default=ANSWER_TOKENS,
        metavar="N",
        help="the answer's first tokens that are read (default: %(default)s)",
    )
    parser.add_argument(
        "--max-new-tokens",
        type=at_least_one,
        default=MAX_NEW_TOKENS,
        metavar="N",
        help="longest answer, thinking included (default: %(default)s)",
    )
    parser.add_argument(
        "--terms", type=Path, metavar="FILE", help="medical terms that gate, one a line, instead of the package's"
    )
    parser.add_argument(
        "--body",
        choices=BODIES,
        default="auto",
        help="what the body is found by; auto: by the image; liver: for CT slices whose series lies below DIR "
        "(default: %(default)s)",
    )


def model_settings(arguments: argparse.Namespace) -> MedGemmaSettings:
    """Return the settings' model with what the flags say of it; needs ``--config``.

    Raises
    ------
    ConfigError
        The settings cannot be used.
    """
    flags = {
        f"detector.medgemma.{key}": getattr(arguments, key)
        for key in ("model", "revision", "profile", "device", "dtype")
        if getattr(arguments, key) is not None
    }
    return load(arguments.config, flags).detector.medgemma


def make_looker(arguments: argparse.Namespace) -> tuple[Looker, Setup]:
    """Load the model and what reads its attention, as the flags say, with what results say of both.

    Raises
    ------
    ConfigError
        The extra is not installed, or there is no such model, device, profile, layer or file of terms.
    """
    settings = model_settings(arguments)
    with needs_extra("attention"):
        from m3node.attention.output.setup import Setup  # noqa: PLC0415 - keeps --help quick
        from m3node.attention.questions.terms import load_terms  # noqa: PLC0415
        from m3node.attention.reading.layers import choose_layers  # noqa: PLC0415
        from m3node.attention.reading.looker import Looker  # noqa: PLC0415
        from m3node.attention.reading.plan import ReadingPlan  # noqa: PLC0415
        from m3node.gemma.loading import load_model  # noqa: PLC0415

    terms = load_terms(arguments.terms)
    model = load_model(settings)
    layers, weights = choose_layers(arguments.layers, model)
    plan = ReadingPlan(
        mode=Mode(arguments.mode),
        layers=layers,
        weights=weights,
        heads=arguments.heads,
        answer_tokens=arguments.answer_tokens,
        max_new_tokens=arguments.max_new_tokens,
    )
    return Looker(model, plan, terms), Setup.of(model, plan, terms.terms, arguments.body)


def column_names(arguments: argparse.Namespace) -> dict[str, str]:
    """What ``--column`` says: the name of the column by the name that this program has for it."""
    return dict(arguments.column)


def at_least_one(text: str) -> int:
    """Parse how many, from 1."""
    number = count(text)
    if number < 1:
        raise argparse.ArgumentTypeError("a number from 1 is needed")
    return number


def _column(text: str) -> tuple[str, str]:
    ours, equals, theirs = text.partition("=")
    if not equals or not ours.strip() or not theirs.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=COLUMN, such as dicom_id=image")
    return ours.strip(), theirs.strip()
