"""``m3node model check``: loads the model, asks it of one crop, and says what it is and what it costs."""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from m3node.cli.extras import needs_extra
from m3node.cli.options import add_config, text_epilog
from m3node.cli.progress import show_progress
from m3node.errors import InferenceError
from m3node.notice import NOT_FOR_CLINICAL_USE
from m3node.progress import Progress
from m3node.settings import MedGemmaSettings, load

if TYPE_CHECKING:
    from m3node.detectors.medgemma import MedGemmaDetector
    from m3node.detectors.protocols import ViewResult
    from m3node.gemma.model import GemmaModel
    from m3node.imaging.volume import CTVolume
    from m3node.liver.region import LiverRegion

CROPS = 5
"""Timed after the first one, which also pays for what is made ready only once."""

PHANTOM_SEED = 3
PADDING = 0.15
SLICE_MM = 2.5


def add_parser(subparsers: Any) -> None:
    """Add ``model`` with its one action, ``check``."""
    model = subparsers.add_parser("model", help="look at the model of the detector medgemma")
    actions = model.add_subparsers(metavar="ACTION", required=True)
    check = actions.add_parser(
        "check",
        help="load the model, ask it of one crop, and show what it is and what it costs",
        description="Loads the model (fetching it from the hub when it is not on this disk), shows it one crop of a "
        "synthetic slice several times, and prints the model's identity, device, memory, seconds for loading and for a "
        "crop, and whether the answer could be read. It says nothing about how well the model finds lesions. Exit "
        "status: 0 when the answer could be read, 1 when not, 2 on wrong usage or settings, or when there is no such "
        "model.",
        epilog=text_epilog(
            "m3node model check --model test",
            "m3node model check --model google/medgemma-1.5-4b-it --device cuda",
            "m3node model check --model /models/medgemma-1.5-4b-it --json",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument(
        "--model",
        metavar="NAME|FOLDER",
        help="name on the hub, a folder, or 'test' for the small test model (detector.medgemma.model)",
    )
    check.add_argument("--revision", metavar="REV", help="tag, branch or commit on the hub")
    check.add_argument("--profile", metavar="NAME|FOLDER", help="model profile (default: by the model's name)")
    check.add_argument("--device", help="auto, cpu, cuda or cuda:N")
    check.add_argument("--dtype", help="auto, float32 or bfloat16")
    check.add_argument(
        "--crops", type=int, default=CROPS, metavar="N", help="crops to time after the first (default %(default)s)"
    )
    check.add_argument("--json", action="store_true", help="print JSON")
    add_config(check)
    check.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Carry the check out.

    Raises
    ------
    ConfigError
        There is no such model, device or profile, or the extra is not installed.
    """
    flags = {
        f"detector.medgemma.{key}": getattr(arguments, key)
        for key in ("model", "revision", "profile", "device", "dtype")
        if getattr(arguments, key) is not None
    }
    settings = load(arguments.config, flags).detector.medgemma
    with show_progress(quiet=arguments.json) as progress:
        shown = _check(settings, max(1, arguments.crops), progress)
    if arguments.json:
        print(json.dumps({"schema": "m3node.model-check/1", **shown}, indent=1))
    else:
        _print(shown)
    return 0 if shown["answer"]["read"] else 1


def _check(settings: MedGemmaSettings, crops: int, progress: Progress) -> dict[str, Any]:
    with needs_extra("medgemma"):
        import torch  # noqa: PLC0415 - keeps --help quick, and the core free of it

        from m3node.detectors.medgemma import MedGemmaDetector  # noqa: PLC0415
        from m3node.gemma.loading import load_model  # noqa: PLC0415

    progress("loading the model", 0, 1)
    began = time.perf_counter()
    model = load_model(settings)
    load_seconds = time.perf_counter() - began
    progress("loading the model", 1, 1)
    try:
        seconds, result = _time_crops(MedGemmaDetector(model, settings), crops, progress)
    except torch.OutOfMemoryError as error:
        raise InferenceError(f"there is not enough memory on {model.device} for one crop") from error
    return {
        "model": _describe(model),
        "device": _device(model),
        "load_seconds": round(load_seconds, 3),
        "first_crop_seconds": round(seconds[0], 4),
        "crop_seconds": round(statistics.median(seconds[1:]), 4),
        "crops_timed": len(seconds) - 1,
        "memory": _memory(model),
        "answer": {
            "read": not result.failure,
            "failure": result.failure,
            "boxes": len(result.boxes),
        },
    }


def _time_crops(detector: MedGemmaDetector, crops: int, progress: Progress) -> tuple[list[float], ViewResult]:
    from m3node.m3.views import envelope_views  # noqa: PLC0415

    volume, region = phantom()
    (view,) = envelope_views(volume, region, [0], [PADDING])
    seconds = []
    for number in range(crops + 1):
        progress("looking at a crop", number, crops + 1)
        began = time.perf_counter()
        (result,) = detector.look([view], volume, region)
        seconds.append(time.perf_counter() - began)
    progress("looking at a crop", crops + 1, crops + 1)
    return seconds, result


def phantom() -> tuple[CTVolume, LiverRegion]:
    """Make a volume of one synthetic slice with lesions, and its liver."""
    from m3node.evaluation.phantom_slices import slice_phantom  # noqa: PLC0415
    from m3node.imaging.geometry import PatientGeometry  # noqa: PLC0415
    from m3node.imaging.mask import VoxelMask  # noqa: PLC0415
    from m3node.imaging.volume import CTVolume  # noqa: PLC0415
    from m3node.liver.envelope import make_envelope  # noqa: PLC0415
    from m3node.liver.region import LiverRegion, LiverSource  # noqa: PLC0415
    from m3node.settings import LiverSettings  # noqa: PLC0415

    made = slice_phantom(PHANTOM_SEED)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = SLICE_MM, *made.spacing, 1.0
    rows, columns = made.hu.shape
    geometry = PatientGeometry(affine=affine, positions=np.zeros((1, 3)), shape=(1, rows, columns))
    liver = VoxelMask.from_full(made.liver[None])
    region = LiverRegion(
        parenchyma=liver,
        envelope=make_envelope(liver, geometry, LiverSettings()),
        source=LiverSource.LABEL_MAP,
        reference="",
        algorithm="phantom",
    )
    return CTVolume(hu=made.hu[None], geometry=geometry, sources=()), region


def _describe(model: GemmaModel) -> dict[str, Any]:
    who, sizes = model.identity, model.sizes
    return {
        "name": who.name,
        "is_test_model": who.is_test_model,
        "revision": who.revision,
        "weights": f"sha256:{who.weights}",
        "profile": model.profile.name,
        "image": sizes.image,
        "image_tokens": sizes.tokens**2,
        "vision_layers": sizes.vision_layers,
        "language_layers": sizes.language_layers,
        "parameters": sum(weight.numel() for weight in model.network.parameters()),
    }


def _device(model: GemmaModel) -> dict[str, Any]:
    import torch  # noqa: PLC0415

    gpu = model.device.type == "cuda"
    return {
        "name": str(model.device),
        "chip": torch.cuda.get_device_name(model.device) if gpu else "",
        "dtype": str(model.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "threads": 0 if gpu else torch.get_num_threads(),
    }


def _memory(model: GemmaModel) -> dict[str, Any]:
    """Return peaks in MB since the start of the process; of the GPU what torch took, not what its pool holds."""
    import torch  # noqa: PLC0415

    # ru_maxrss is in KiB on Linux.
    shown: dict[str, Any] = {"process_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)}
    if model.device.type == "cuda":
        shown["gpu_mb"] = round(torch.cuda.max_memory_allocated(model.device) / 1e6)
    return shown


def _print(shown: dict[str, Any]) -> None:
    from m3node.jobs.node.amounts import megabytes  # noqa: PLC0415

    model, device, memory, answer = shown["model"], shown["device"], shown["memory"], shown["answer"]
    revision = f" @ {model['revision']}" if model["revision"] else ""
    where = device["chip"] or f"{device['threads']} threads"
    peak = f"{megabytes(memory['process_mb'])} for the process"
    if "gpu_mb" in memory:
        peak = f"{megabytes(memory['gpu_mb'])} on the GPU, {peak}"
    boxes = f"read, {answer['boxes']} box{'' if answer['boxes'] == 1 else 'es'}"
    lines = (
        ("model", f"{model['name']}{revision}"),
        ("weights", model["weights"]),
        ("profile", model["profile"]),
        (
            "size",
            f"{model['parameters'] / 1e6:,.1f} M parameters, image {model['image']} px, "
            f"{model['image_tokens']} image tokens, {model['vision_layers']} + {model['language_layers']} layers",
        ),
        ("device", f"{device['name']} ({where}), {device['dtype']}, torch {device['torch']}"),
        ("loading", f"{shown['load_seconds']:.1f} s"),
        (
            "a crop",
            f"{shown['crop_seconds']:.3g} s (median of {shown['crops_timed']}; the first one "
            f"{shown['first_crop_seconds']:.3g} s)",
        ),
        ("memory", f"{peak}, at most"),
        ("answer", boxes if answer["read"] else f"could not be read: {answer['failure']}"),
    )
    for name, value in lines:
        print(f"{name:<8} {value}")
    if model["is_test_model"]:
        print("This is a small test model: it shows that everything runs, and means nothing medically.")
    print(NOT_FOR_CLINICAL_USE)
