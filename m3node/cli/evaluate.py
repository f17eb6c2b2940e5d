"""``m3node evaluate``: a detector judged on cases with truth, in all conditions of the ablation."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from m3node.cli.extras import needs_extra
from m3node.cli.options import add_config, add_detector, count, detector_flags, make_folder, text_epilog
from m3node.cli.progress import show_progress
from m3node.errors import ConfigError
from m3node.notice import NOT_FOR_CLINICAL_USE
from m3node.settings import Settings, load

SWEEP_ALPHAS = "1,2,5,10,hard"
_SHOWN = ("best_iou_2d", "recall_3d_0.3", "precision_3d_0.3", "false_lesions", "dice_3d")
"""On the terminal; results.md has all."""
_SHOWN_ON_SLICES = ("best_iou_2d", "hallucination_2d", "silent_2d", "recall_2d_0.3")
EXIT_NOTHING_USABLE = 3


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "evaluate",
        help="judge a detector on cases with truth: tables, plots and pictures",
        description="Runs a detector on every case of a folder in the conditions of the ablation (full slice, crop, "
        "each also steered where the detector can be, and the whole method) and writes results.csv, results.json, "
        "results.md, plots and side-by-side pictures. A case is a folder with a DICOM series or ct.nii.gz, and with "
        "liver.nii.gz and lesions.nii.gz, labels.nii.gz (1 liver, 2 lesion) or a DICOM SEG; case.toml may say "
        'patient = "..." or healthy = true (docs/evaluation.md). What is done is kept in DIR and not done again. '
        "Exit status: 0 done, 1 the detector failed, 2 wrong usage, 3 no case could be used.",
        epilog=text_epilog(
            "m3node phantoms cases",
            "m3node evaluate cases --detector contrast --out results",
            "m3node evaluate cases --detector medgemma --model test --out results",
            "m3node evaluate cases --model FOLDER --sweep --conditions crop,crop-steered --out sweep",
            "m3node evaluate cases --protocol published --out published",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cases", type=Path, metavar="CASES", help="folder of cases")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where results go, outside CASES; made when absent"
    )
    add_detector(parser)
    parser.add_argument(
        "--liver",
        choices=("predicted", "truth"),
        default="predicted",
        help="whose liver crops, steering and the filter use (default: %(default)s); it also chooses the slices",
    )
    parser.add_argument(
        "--protocol",
        choices=("whole", "published"),
        default="whole",
        help="published: liver and one slice a case by the truth, as the method was published; every file is marked so",
    )
    parser.add_argument(
        "--conditions",
        type=_words,
        default=(),
        metavar="LIST",
        help="only these: full, crop, steered, crop-steered, method, method-unsteered",
    )
    parser.add_argument(
        "--sweep", action="store_true", help="a grid of layers and alpha in the place of each steered single view"
    )
    parser.add_argument(
        "--sweep-alpha", type=_words, metavar="LIST", help=f"numbers, or hard (default: {SWEEP_ALPHAS}); with --sweep"
    )
    parser.add_argument(
        "--sweep-layers",
        type=_ranges,
        metavar="LIST",
        help="such as 0-26,14-26 (default: all, those before the profile's, the profile's); with --sweep",
    )
    parser.add_argument(
        "--pictures",
        type=count,
        default=4,
        metavar="N",
        help="side-by-side pictures of N cases with truth, and of all without; 0 for none (default: %(default)s)",
    )
    parser.add_argument("--no-plots", action="store_true", help="no FROC and size plots, which need m3node[evaluate]")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of a table")
    add_config(parser)
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out."""
    # Imported here, which keeps --help and --version quick.
    from m3node.evaluation.ablation.conditions import make_conditions  # noqa: PLC0415
    from m3node.evaluation.ablation.regions import LiverFrom  # noqa: PLC0415
    from m3node.evaluation.ablation.running import Plan, Protocol, run_plan  # noqa: PLC0415
    from m3node.evaluation.cases.layout import find_cases  # noqa: PLC0415
    from m3node.evaluation.report.pictures import choose_cases, write_pictures  # noqa: PLC0415
    from m3node.evaluation.report.plots import write_plots  # noqa: PLC0415
    from m3node.evaluation.report.summary import as_json, summarise  # noqa: PLC0415
    from m3node.evaluation.report.tables import write_tables  # noqa: PLC0415

    settings = load(arguments.config, detector_flags(arguments))
    if not arguments.no_plots:
        with needs_extra("evaluate", "or leave the plots out with --no-plots"):
            import matplotlib.figure  # noqa: F401, PLC0415
    if arguments.out.resolve().is_relative_to(arguments.cases.resolve()):
        raise ConfigError(f"--out: {arguments.out} lies in the folder of cases and would be one; name one outside it")
    cases = find_cases(arguments.cases)
    conditions = make_conditions(settings.detector, arguments.conditions)
    if arguments.sweep:
        conditions = _swept(conditions, settings, arguments)
    elif arguments.sweep_alpha or arguments.sweep_layers:
        raise ConfigError("--sweep-alpha and --sweep-layers go with --sweep")
    make_folder(arguments.out, "--out")
    plan = Plan(conditions, settings, Protocol(arguments.protocol), LiverFrom(arguments.liver), arguments.out)
    with show_progress(quiet=arguments.json) as progress:
        found = run_plan(cases, plan, progress)
        console = Console(highlight=False, soft_wrap=True, stderr=arguments.json)
        for item in found.unusable:
            console.print(f"not used: {item.case}: {item.reason}", markup=False)
        summary = summarise(cases, plan, found)
        files = [*write_tables(summary, arguments.out)]
        files += [] if arguments.no_plots else write_plots(summary, arguments.out)
        chosen = choose_cases(cases, summary, arguments.pictures)
        files += write_pictures(chosen, summary, arguments.out, progress)
    if arguments.json:
        print(json.dumps(as_json(summary), indent=1))
    else:
        _print(summary, files, console)
    return 0 if found.records else EXIT_NOTHING_USABLE


def _swept(conditions: Any, settings: Settings, arguments: argparse.Namespace) -> Any:
    from m3node.evaluation.ablation.conditions import can_be_steered, layer_ranges, swept  # noqa: PLC0415

    ranges = arguments.sweep_layers
    if ranges is None:
        if not can_be_steered(settings.detector):
            raise ConfigError(f"the detector {settings.detector.name!r} has no steering to sweep over")
        ranges = layer_ranges(*_profile_layers(settings))
    return swept(conditions, arguments.sweep_alpha or _words(SWEEP_ALPHAS), ranges)


def _profile_layers(settings: Settings) -> tuple[int, int]:
    """First and last steered layer: the settings', or those of the model's profile."""
    # The profile alone, which needs neither torch nor the model.
    from m3node.gemma.profile import load_profile, profile_for  # noqa: PLC0415

    chosen = settings.detector.medgemma
    if chosen.steering.layers:
        return chosen.steering.layers
    profile = load_profile(chosen.profile) if chosen.profile else profile_for(chosen.model)
    return profile.steered_layers


def _print(summary: Any, files: list[Path], console: Console) -> None:
    from m3node.evaluation.report.tables import shown  # noqa: PLC0415

    if not summary.conditions:
        console.print("No case could be used.")
        return
    keys = _SHOWN if summary.curves else _SHOWN_ON_SLICES
    metrics = [metric for metric in summary.metrics if metric.key in keys]
    table = Table(title=NOT_FOR_CLINICAL_USE, caption=summary.label)
    table.add_column("condition", overflow="fold", min_width=18)
    for metric in metrics:
        table.add_column(metric.title, justify="right")
    for condition in summary.conditions:
        table.add_row(condition.title, *(shown(summary.values[condition.key][metric.key]) for metric in metrics))
    console.print(table)
    for mark in summary.marks[:-1]:
        console.print(mark, markup=False)
    for path in files:
        console.print(str(path), markup=False)


def _words(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if not words:
        raise argparse.ArgumentTypeError("at least one is needed; several are separated by commas")
    return words


def _ranges(text: str) -> tuple[tuple[int, int], ...]:
    ranges: list[tuple[int, int]] = []
    for word in _words(text):
        found = re.fullmatch(r"(\d{1,3})-(\d{1,3})", word)
        if found is None or int(found[1]) > int(found[2]):
            raise argparse.ArgumentTypeError(f"{word!r} is no range of layers such as 14-26")
        ranges.append((int(found[1]), int(found[2])))
    return tuple(ranges)
