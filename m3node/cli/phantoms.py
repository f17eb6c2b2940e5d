"""``m3node phantoms``: cases with truth for ``m3node evaluate``, made up."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from m3node.cli.options import count, make_folder, text_epilog
from m3node.cli.progress import show_progress
from m3node.errors import ConfigError

FIRST_SEED = 1_000_000


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "phantoms",
        help="make phantom cases for m3node evaluate",
        description="Writes CT phantoms of an abdomen, each of a patient of its own, with five liver lesions or none, "
        "and their true liver and lesions: a folder of cases for m3node evaluate. Seeds from 1000000 on are held out: "
        "the test model has not seen them. A case takes some seconds and 15 MB. They appear in CASES "
        "together, when all are made; what was interrupted goes on with the same command.",
        epilog=text_epilog("m3node phantoms cases", "m3node phantoms cases --ill 3 --healthy 1 --dicom"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, metavar="CASES", help="folder of cases; made when absent")
    parser.add_argument("--ill", type=count, default=12, metavar="N", help="cases with lesions (default: %(default)s)")
    parser.add_argument("--healthy", type=count, default=6, metavar="N", help="cases without (default: %(default)s)")
    parser.add_argument(
        "--seed", type=count, default=FIRST_SEED, metavar="N", help="the first case's seed (default: %(default)s)"
    )
    parser.add_argument("--dicom", action="store_true", help="each CT as a DICOM series instead of NIfTI")
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out."""
    from m3node.evaluation.cases.phantoms import write_phantom_cases  # noqa: PLC0415 - keeps --help quick

    if not arguments.ill + arguments.healthy:
        raise ConfigError("--ill and --healthy are both 0: there is nothing to make")
    make_folder(arguments.out, "CASES")
    with show_progress() as progress:
        folders = write_phantom_cases(
            arguments.out,
            ill=arguments.ill,
            healthy=arguments.healthy,
            first_seed=arguments.seed,
            dicom=arguments.dicom,
            progress=progress,
        )
    print(f"{len(folders)} cases in {arguments.out}")
    return 0
