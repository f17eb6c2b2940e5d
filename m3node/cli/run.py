"""``m3node run``: answer one input from the command line."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from m3node.cli.options import add_config, add_detector, detector_flags, make_folder, text_epilog
from m3node.cli.progress import show_progress
from m3node.errors import ConfigError
from m3node.notice import NOT_FOR_CLINICAL_USE
from m3node.settings import load

EXIT_NOTHING_ELIGIBLE = 3

PICTURES = ("overlay.png", "attention.png")
"""What a person may look at without a viewer of DICOM; the second one comes of a NIfTI volume."""


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "run",
        help="answer a folder, ZIP, DICOM file or NIfTI volume",
        description="Finds liver lesions in every eligible CT stack of INPUT and writes the results below DIR: for "
        "each stack DIR/<SeriesInstanceUID>[.stack]/ with report.sr.dcm, volumes.sr.dcm, segmentation.seg.dcm, "
        "presentation.pr.dcm, findings.json and overlay.png. Exit status: 0 when a stack was answered, 3 when none "
        "was eligible, 2 on wrong usage.",
        epilog=text_epilog(
            "m3node run /media/cdrom --out results",
            "m3node run series.zip --out results --json",
            "m3node run ct.nii.gz --liver-mask liver.nii.gz --out results",
            "m3node run series/ --model google/medgemma-1.5-4b-it --attention-map --out results",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", type=Path, metavar="INPUT", help="folder, ZIP, DICOM file, or NIfTI volume")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where results go; made when absent")
    add_detector(parser)
    parser.add_argument("--liver-mask", type=Path, metavar="FILE", help="NIfTI liver mask of a NIfTI volume")
    parser.add_argument(
        "--attention-map",
        action="store_true",
        help="show where the model looked: attention.sc.dcm (pictures) and attention.pm.dcm (numbers); of a NIfTI "
        "volume, attention.png and attention.npz",
    )
    parser.add_argument("--min-slices", type=int, metavar="N", help="fewest slices of a stack (default 8)")
    parser.add_argument("--json", action="store_true", help="print a JSON summary instead of a table")
    add_config(parser)
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out."""
    from m3node.jobs.inputs.dicom import process_input, summary  # noqa: PLC0415 - keeps --help and --version quick
    from m3node.jobs.inputs.nifti import is_nifti, process_nifti  # noqa: PLC0415

    if not arguments.input.exists():
        raise ConfigError(f"there is no input {arguments.input}")
    flags = {
        **detector_flags(arguments),
        "eligibility.min_slices": arguments.min_slices,
        "results.attention_map": arguments.attention_map or None,
    }
    settings = load(arguments.config, {key: value for key, value in flags.items() if value is not None})
    nifti = is_nifti(arguments.input)
    if arguments.liver_mask is not None and not nifti:
        raise ConfigError("--liver-mask goes with a NIfTI volume; a DICOM series brings its liver as a DICOM SEG")
    make_folder(arguments.out, "--out")
    with show_progress(quiet=arguments.json) as progress:
        if nifti:
            report = process_nifti(arguments.input, arguments.liver_mask, arguments.out, settings, progress)
        else:
            report = process_input(arguments.input, arguments.out, settings, progress)
    if arguments.json:
        print(json.dumps(summary(report), indent=1))
    else:
        _print(report, arguments.out)
    return 0 if report.processed else EXIT_NOTHING_ELIGIBLE


def _print(report: Any, out: Path) -> None:
    console = Console(highlight=False, soft_wrap=True)
    answered = [stack for stack in report.stacks if stack.rejection is None]
    if answered:
        table = Table(title=NOT_FOR_CLINICAL_USE)
        for heading in ("Stack", "Outcome", "Lesions"):
            table.add_column(heading, overflow="fold")
        for stack in answered:
            table.add_row(stack.label, stack.outcome.value, str(stack.lesions))
        console.print(table)
        for path in (stack.folder / name for stack in answered for name in PICTURES):
            if path.exists():
                console.print(f"picture: {path}", markup=False)
    for stack in report.stacks:
        if stack.rejection is not None:
            # A file's name may look like markup.
            why = f"{stack.rejection.message} [{stack.rejection.reason.value}]"
            console.print(f"not used: {stack.label}: {why}", markup=False)
    if not answered:
        console.print("No stack was eligible.")
    console.print(f"summary: {out / 'findings.json'}", markup=False)
