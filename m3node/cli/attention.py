"""``m3node attention``: where a model looks while it answers questions about images."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from m3node.cli import attention_robustness
from m3node.cli.attention_options import add_model, add_questions, add_reading, column_names, make_looker
from m3node.cli.attention_showing import ask_json, has_viewer, open_picture, plain, print_row, print_run, run_json
from m3node.cli.extras import needs_extra
from m3node.cli.options import add_config, text_epilog
from m3node.cli.progress import show_progress
from m3node.errors import ConfigError

EXIT_SOME_FAILED = 1
EXIT_NOTHING_USABLE = 3


def add_parser(subparsers: Any) -> None:
    """Add ``attention`` with its actions."""
    attention = subparsers.add_parser("attention", help="see where a model looks while it answers questions")
    actions = attention.add_subparsers(metavar="ACTION", required=True)
    _add_run(actions)
    _add_ask(actions)
    attention_robustness.add_action(actions)


def _add_run(actions: Any) -> None:
    parser = actions.add_parser(
        "run",
        help="ask a table of questions; leaves grids, pictures, a table and a report",
        description="Asks each question of the table about its image (DICOM, PNG or JPEG, found by dicom_id below the "
        "folder), reads back where the model looked, and writes evaluation_results.csv, report.html, and for each "
        "question a grid, an overlay and a sheet with everything (docs/attention.md). An interrupted run leaves a "
        "table of what is done, and goes on with --resume. Exit status: 0 all answered, 1 some rows have an error, "
        "2 wrong usage or settings, 3 no row could be answered.",
        epilog=text_epilog(
            "m3node attention run questions.csv --images images --out results --model test",
            "m3node attention run questions.csv --images images --out results --resume",
            "m3node attention run vqa.csv --images images --out results --column dicom_id=image --column answer=label",
            "m3node attention run questions.csv --images images --out results --mode rollout --layers last:4",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_questions(parser)
    add_model(parser)
    add_reading(parser)
    parser.add_argument("--json", action="store_true", help="print a summary as JSON")
    add_config(parser)
    parser.set_defaults(handler=run)


def _add_ask(actions: Any) -> None:
    parser = actions.add_parser(
        "ask",
        help="ask one question about one image; shows the answer, its numbers and its picture",
        description="Asks one question, prints the answer and the metrics of its grid, and draws the picture. On a "
        "desktop it is opened, too. Exit status: 0 answered, 1 not, 2 wrong usage or settings.",
        epilog=text_epilog(
            'm3node attention ask chest.png "Is there a pleural effusion?" --model test',
            'm3node attention ask chest.dcm "Where is the nodule?" --out results --no-open',
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a DICOM, PNG or JPEG file")
    parser.add_argument("question", metavar="QUESTION", help="what is asked, in quotes")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where grid and pictures go (default: a new folder for temporary files)"
    )
    parser.add_argument(
        "--open",
        action=argparse.BooleanOptionalAction,
        help="open the picture with the desktop's viewer (default: when asked from a terminal on a desktop)",
    )
    add_model(parser)
    add_reading(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, and open nothing")
    add_config(parser)
    parser.set_defaults(handler=ask)


def run(arguments: argparse.Namespace) -> int:
    """Ask a table of questions.

    Raises
    ------
    ConfigError
        The table, a flag or the settings cannot be used, there is no such model, or the extra is not installed.
    """
    with needs_extra("attention"):
        # Imported here, which keeps --help and --version quick.
        from m3node.attention.images.finding import ImageFolder  # noqa: PLC0415
        from m3node.attention.images.liver import LiverOutlines  # noqa: PLC0415
        from m3node.attention.output.folder import open_folder  # noqa: PLC0415
        from m3node.attention.output.keeping import Shelf  # noqa: PLC0415
        from m3node.attention.output.report.page import write_report  # noqa: PLC0415
        from m3node.attention.questions.table import ColumnNames, read_questions  # noqa: PLC0415
        from m3node.attention.robustness.section import summary_section  # noqa: PLC0415
        from m3node.attention.running import Desk, run_questions  # noqa: PLC0415

    questions = read_questions(arguments.questions, ColumnNames.of(column_names(arguments)))[: arguments.limit]
    images = ImageFolder(arguments.images)
    open_folder(arguments.out, arguments.images, resume=arguments.resume)
    with show_progress(quiet=arguments.json) as progress:
        progress("loading the model", 0, 1)
        looker, setup = make_looker(arguments)
        progress("loading the model", 1, 1)
        desk = Desk(looker, images, LiverOutlines(images), Shelf(arguments.out, setup))
        try:
            done = run_questions(desk, questions, progress, resume=arguments.resume)
        except KeyboardInterrupt:
            print("m3node: stopped; the table holds what is done, and --resume goes on with it", file=sys.stderr)
            raise
        write_report(setup, questions, done.rows, arguments.out, summary_section(arguments.out))
    if arguments.json:
        print(json.dumps(run_json(done, setup, arguments.out), indent=1))
    else:
        print_run(done, setup, arguments.out)
    if done.failed == len(done.rows):
        return EXIT_NOTHING_USABLE
    return EXIT_SOME_FAILED if done.failed else 0


def ask(arguments: argparse.Namespace) -> int:
    """Ask one question.

    Raises
    ------
    ConfigError
        A flag or the settings cannot be used, there is no such model, or the extra is not installed.
    """
    with needs_extra("attention"):
        from m3node.attention.images.finding import ImageFolder  # noqa: PLC0415
        from m3node.attention.images.liver import LiverOutlines  # noqa: PLC0415
        from m3node.attention.output.folder import make_folders  # noqa: PLC0415
        from m3node.attention.output.keeping import Shelf  # noqa: PLC0415
        from m3node.attention.questions.question import BASELINE, Question  # noqa: PLC0415
        from m3node.attention.running import Desk, ask_one  # noqa: PLC0415

    image: Path = arguments.image
    # What no terminal could have meant would be no text in files either.
    text = arguments.question.encode(errors="replace").decode().strip()
    if not text:
        raise ConfigError("QUESTION is empty")
    if not image.is_file():
        raise ConfigError(f"IMAGE: there is no file {image}")
    question = Question(line=1, dicom_id=image.name, study_id="", text=text, baseline=text, variant_index=BASELINE)
    images = ImageFolder(image.parent)
    with show_progress(quiet=arguments.json) as progress:
        progress("loading the model", 0, 1)
        looker, setup = make_looker(arguments)
        progress("loading the model", 1, 1)
        out = arguments.out or Path(tempfile.mkdtemp(prefix="m3node-attention-"))
        make_folders(out)
        row = ask_one(Desk(looker, images, LiverOutlines(images), Shelf(out, setup)), question, image)
    if arguments.json:
        print(json.dumps(ask_json(row, setup, out), indent=1))
        return EXIT_SOME_FAILED if row.error else 0
    if row.error:
        print(f"m3node: {plain(row.error)}", file=sys.stderr)
        return EXIT_SOME_FAILED
    print_row(row, setup, out)
    if sys.stdout.isatty() and has_viewer() if arguments.open is None else arguments.open:
        open_picture(out / row.visualization_file)
    return 0
