"""``m3node demo``: a CT series travels to the node and its findings come back, on this machine alone."""

from __future__ import annotations

import argparse
import json
import signal
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.table import Table

from m3node.cli.options import make_folder, text_epilog
from m3node.cli.progress import show_progress
from m3node.errors import ConfigError
from m3node.notice import NOT_FOR_CLINICAL_USE


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "demo",
        help="watch a CT series go in and findings come back",
        description="Makes a CT phantom of an abdomen with known lesions, starts a small archive and the node on free "
        "ports of this machine, sends the series by C-STORE, waits for the results to come back to the archive and "
        "shows planted against found lesions. Exit status: 0 when results came back and, for the phantom, at most one "
        "lesion was missed and at most one is false; 1 when not; 2 on wrong usage.",
        epilog=text_epilog(
            "m3node demo --out demo",
            "m3node demo --out demo --healthy",
            "m3node demo --out demo --input /media/cdrom/DICOM",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where everything goes; made when absent"
    )
    parser.add_argument("--healthy", action="store_true", help="a phantom without lesions")
    parser.add_argument("--input", type=Path, metavar="FOLDER", help="your own DICOM files instead of a phantom")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="another phantom (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out.

    Raises
    ------
    M3NodeError
        The story broke off; `m3node.cli.main` says where and makes it exit status 1.
    """
    from m3node.demo.demo import run_demo  # noqa: PLC0415 - keeps --help and --version quick

    if arguments.input is not None and arguments.healthy:
        raise ConfigError("--healthy is about the phantom, and --input replaces it: give one of them")
    if arguments.input is not None and not arguments.input.exists():
        raise ConfigError(f"there is no folder {arguments.input}")
    if arguments.seed < 0:
        raise ConfigError("--seed takes a number from 0")
    make_folder(arguments.out, "--out")
    # Whoever ends the demonstration, archive and node end with it.
    signal.signal(signal.SIGTERM, _interrupt)
    with show_progress(quiet=arguments.json) as progress:
        report = run_demo(
            arguments.out,
            healthy=arguments.healthy,
            series=arguments.input,
            seed=arguments.seed,
            progress=progress,
        )
    if arguments.json:
        print(json.dumps({**asdict(report), "succeeded": report.succeeded}, indent=1, default=str))
    else:
        _print(report)
    return 0 if report.succeeded else 1


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _print(report: Any) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{report.sent} objects sent, {sum(len(a.objects) for a in report.answers)} result objects came back")
    if report.comparison is not None:
        planted, false = len(report.comparison.rows), len(report.comparison.false)
        if planted or false:
            console.print(_planted(report.comparison))
        console.print(f"{report.comparison.found} of {planted} planted lesions found, {false} false")
    else:
        for answer in report.answers:
            if not answer.reason:
                console.print(_found(answer))
    for answer in report.answers:
        if answer.reason:
            console.print(f"not used: {answer.label}: {answer.reason}", markup=False)
        if answer.picture is not None:
            console.print(f"picture: {answer.picture}", markup=False)
        for item in answer.objects:
            console.print(f"{item.sop_class}: {item.path}", markup=False)
    if report.not_sent:
        console.print(f"{report.not_sent} objects were not taken by the node")
    console.print(f"{report.seconds:.0f} s")


def _planted(comparison: Any) -> Table:
    table = Table(title=NOT_FOR_CLINICAL_USE)
    for heading in ("Lesion", "Planted mm", "Found mm", "Box IoU", "Distance mm"):
        table.add_column(heading, justify="right")
    for row in comparison.rows:
        if row.found_mm is None:
            table.add_row(str(row.number), f"{row.planted_mm:.1f}", "missed", "", "")
        else:
            table.add_row(
                str(row.number),
                f"{row.planted_mm:.1f}",
                f"{row.found_mm:.1f}",
                f"{row.iou:.2f}",
                f"{row.distance_mm:.1f}",
            )
    for lesion in comparison.false:
        table.add_row("false", "", f"{lesion.longest_mm:.1f}", "", "")
    return table


def _found(answer: Any) -> Table:
    table = Table(title=NOT_FOR_CLINICAL_USE, caption=f"{answer.label}: {answer.outcome}")
    for heading in ("Lesion", "Longest mm", "Perpendicular mm", "Volume ml", "Mean HU"):
        table.add_column(heading, justify="right")
    for lesion in answer.lesions:
        table.add_row(
            lesion.label,
            f"{lesion.longest_mm:.1f}",
            f"{lesion.perpendicular_mm:.1f}",
            f"{lesion.volume_ml:.2f}",
            f"{lesion.mean_hu:.0f}",
        )
    return table
