"""``m3node attention robustness``: the same questions in other words, and about images that were changed a little."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from m3node.cli.attention_options import add_model, add_questions, add_reading, column_names, make_looker
from m3node.cli.extras import needs_extra
from m3node.cli.options import add_config, count, text_epilog
from m3node.cli.progress import show_progress
from m3node.notice import ATTENTION_NOTICE, NOT_FOR_CLINICAL_USE

if TYPE_CHECKING:
    from m3node.attention.robustness.running import RobustnessRun
    from m3node.attention.robustness.section import RobustnessSection

SCHEMA = "m3node.attention-robustness-summary/1"
EXIT_SOME_FAILED = 1
EXIT_NOTHING_USABLE = 3
_ERRORS_SHOWN = 20


def add_action(actions: Any) -> None:
    """Add the action ``robustness``."""
    parser = actions.add_parser(
        "robustness",
        help="ask again in other words and about changed images; see which answers flip",
        description="Asks each baseline question of the table, its variants, and the baseline question again about the "
        "image after small changes, each with its strength and a seed that makes the same bytes again. It says which "
        "answers flipped, and how alike the grids are once rotation, crop and padding are undone. Leaves a record, "
        "the grids and a picture for each baseline question in DIR/robustness. Exit status: 0 all done, 1 some "
        "questions failed, 2 wrong usage or settings, 3 no question could be answered.",
        epilog=text_epilog(
            "m3node attention robustness questions.csv --images images --out results --model test",
            "m3node attention robustness questions.csv --images images --out results --perturb rotation:5,rotation:-5",
            "m3node attention robustness questions.csv --images images --out results --perturb none",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_questions(parser, counted="baseline questions, with their variants,")
    parser.add_argument(
        "--perturb",
        default="all",
        metavar="LIST",
        help="changes of the image as KIND or KIND:STRENGTH, separated by commas, of noise, contrast, brightness, "
        "blur, pixels, rotation, crop, pad (docs/attention.md says what strengths mean); all: one of each; none: only "
        "other words (default: %(default)s)",
    )
    parser.add_argument("--seed", type=count, default=0, metavar="N", help="from 0 (default: %(default)s)")
    add_model(parser)
    add_reading(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON instead of a table")
    add_config(parser)
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Carry the action out.

    Raises
    ------
    ConfigError
        The table, a flag or the settings cannot be used, there is no such model, or the extra is not installed.
    """
    with needs_extra("attention"):
        # Imported here, which keeps --help and --version quick.
        from m3node.attention.images.finding import ImageFolder  # noqa: PLC0415
        from m3node.attention.images.liver import LiverOutlines  # noqa: PLC0415
        from m3node.attention.questions.table import ColumnNames, read_questions  # noqa: PLC0415
        from m3node.attention.robustness.families import first_families  # noqa: PLC0415
        from m3node.attention.robustness.perturbation import parse_list  # noqa: PLC0415
        from m3node.attention.robustness.running import Bench, open_robustness, run_robustness  # noqa: PLC0415
        from m3node.attention.robustness.section import summary_section  # noqa: PLC0415

    changes = parse_list(arguments.perturb)
    questions = read_questions(arguments.questions, ColumnNames.of(column_names(arguments)))
    if arguments.limit is not None:
        questions = first_families(questions, arguments.limit)
    images = ImageFolder(arguments.images)
    folder = open_robustness(arguments.out, arguments.images, resume=arguments.resume)
    with show_progress(quiet=arguments.json) as progress:
        progress("loading the model", 0, 1)
        looker, setup = make_looker(arguments)
        progress("loading the model", 1, 1)
        bench = Bench(looker, setup, images, LiverOutlines(images), folder, changes, arguments.seed)
        try:
            done = run_robustness(bench, questions, progress, resume=arguments.resume)
        except KeyboardInterrupt:
            print("m3node: stopped; what is done has its records, and --resume goes on with it", file=sys.stderr)
            raise
    section = summary_section(arguments.out, [record.key for record in done.records])
    assert section is not None
    if arguments.json:
        print(json.dumps(_as_json(done, section, arguments.out), indent=1))
    else:
        _print(done, section, folder)
    if not done.usable:
        return EXIT_NOTHING_USABLE
    return EXIT_SOME_FAILED if done.failed else 0


def _as_json(done: RobustnessRun, section: RobustnessSection, out: Path) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "notice": f"{ATTENTION_NOTICE} {NOT_FOR_CLINICAL_USE}",
        "out": str(out),
        "reused": done.reused,
        **section.as_json(),
    }


def _print(done: RobustnessRun, section: RobustnessSection, folder: Path) -> None:
    console = Console(highlight=False, soft_wrap=True)
    many = section.questions
    table = Table(
        title=Text(_plain(f"{many} baseline question{'' if many == 1 else 's'}, model {', '.join(section.models)}")),
        caption="divergence: Jensen–Shannon, base 2, in brackets what resampling alone makes; top: intersection over "
        "union of the largest tenth of the cells; means are over grids of one mode that are not degenerate",
        box=None,
    )
    table.add_column("change", overflow="fold", min_width=14)
    for heading in ("flips", "right", "divergence", "Spearman", "top", "left out", "grids"):
        table.add_column(heading, justify="right", no_wrap=True)
    for change in section.changes:
        table.add_row(
            Text(_plain(change.name)),  # a strategy of the table may hold rich's markup
            f"{change.flips} of {change.asked}",
            f"{change.right} of {change.judged}" if change.judged else "–",
            _number(change.jensen_shannon) + (f" ({_number(change.floor)})" if change.floor else ""),
            _number(change.spearman),
            _number(change.top_overlap),
            "–" if change.left_out_before is None else f"{change.left_out_before:.0%}",
            str(change.compared),
        )
    console.print(table)
    if done.reused:
        console.print(f"{done.reused} were done already and are as they were.")
    for where, why in section.errors[:_ERRORS_SHOWN]:
        console.print(_plain(f"failed: {where}: {why}"), markup=False)
    if len(section.errors) > _ERRORS_SHOWN:
        console.print(
            f"… and {len(section.errors) - _ERRORS_SHOWN} more; the records in {folder} name all", markup=False
        )
    console.print(str(folder), markup=False)
    console.print("The report of 'm3node attention run' with the same --out shows it, too; --resume where it has run.")
    if section.is_test_model:
        console.print("This is a small test model: it shows that everything runs, and means nothing medically.")
    console.print(f"{ATTENTION_NOTICE} {NOT_FOR_CLINICAL_USE}")


def _plain(text: str) -> str:
    """What a table says, fit for a terminal: without escape sequences, on one line."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
