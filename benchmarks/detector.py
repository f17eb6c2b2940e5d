"""The detector ``medgemma`` on a study, against plain ways with transformers; where its time goes; its memory.

``python -m benchmarks.detector --device cuda`` takes random weights of MedGemma 1.5 4B's size in bf16, 40 slices × 3
paddings, and answers that are forced to 60, 300 and 1,000 tokens. On a CPU it is the package's small test model in
float32 and 10 slices. Ours is the detector's own ``look``: windows, squares, steering, encoder, answers, parser. The
rivals (benchmarks/gemma_rivals.py) do their preparation with PIL, and the batched ones are not steered and do not note
probabilities, which spares them that work:

one a call
    A view after the other through ``generate``, steered by a mask of every query by every key of the encoder. It is
    timed on a few views and the time multiplied, since the whole would take too long.
batched, dynamic / static
    ``generate`` with the pixels of as many views as ours takes together, with either of transformers' caches.
batched, static, compiled
    The same as transformers compiles it by itself on a GPU, with ``--compiled``; its first run is reported apart.

Every side runs once before it is timed; that run gives the peak memory (on a CPU, of the process, weights included).
Pairs of runs alternate; on a CPU whose cores others want too, ``--threads 1 --cpu-time`` counts the process's own
seconds instead of the wall's. Before anything is timed, answers are compared where that means something: in float32.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gemma_flops import Peak, encoder_flops, peak_of, prefill_flops
from gemma_models import full_size_model, never_ending, trained_test_model
from gemma_rivals import batched, one_a_call, pixel_values
from m3node.detectors.medgemma import MedGemmaDetector
from m3node.detectors.medgemma.questions import make_questions
from m3node.detectors.protocols import View
from m3node.evaluation.phantom import abdomen_phantom
from m3node.gemma.cache import roomy_cache
from m3node.gemma.encoder import image_features
from m3node.gemma.generation import padded, read_in
from m3node.gemma.images import SquareFrame, normalised, square_images
from m3node.gemma.model import GemmaModel
from m3node.imaging.volume import CTVolume
from m3node.imaging.windows import ct_windows
from m3node.liver.envelope import make_envelope
from m3node.liver.region import LiverRegion, LiverSource
from m3node.m3.views import envelope_views, viewed_slices
from m3node.settings import LiverSettings, MedGemmaSettings, SteeringMode, SteeringSettings
from table import RatioRow, print_ratios

PADDINGS = (0.10, 0.15, 0.20)
BAR_ONE_A_CALL, BAR_BATCHED = 1 / 20, 1 / 1.5
"""For the model's full size on a GPU."""
BAR_ON_CPU = 1.0
BAR_STEERED, BAR_STEERED_STUDY = 1.03, 0.01
BAR_SAME = 0.95
"""Answers of the test model that a plain way gives word for word, at the least. PIL resizes the axes in an order of its
own, which can turn a pixel by one level, and sums in other orders can turn a digit."""
BAR_GROWTH_MB = 30.0
"""From the first tenth of the crops to the last; memory that the allocator keeps comes and goes by about so much."""

CONSOLE = Console(width=120)


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """Views of a phantom's liver, with the volume and the region that they are from."""

    views: Sequence[View]
    volume: CTVolume
    region: LiverRegion


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """What all tables are made with."""

    model: GemmaModel
    study: Study
    batch: int
    pairs: int
    full_size: bool
    clock: Callable[[], float]

    def detector(self, tokens: int, mode: SteeringMode = SteeringMode.SOFT) -> MedGemmaDetector:
        """Make the detector on the one model."""
        steering = SteeringSettings(mode=mode)
        settings = MedGemmaSettings(max_new_tokens=tokens, batch_views=self.batch, steering=steering)
        return MedGemmaDetector(self.model, settings)

    def look(self, detector: MedGemmaDetector, views: Sequence[View]) -> list[str]:
        """Ask it about views; what it said."""
        return [result.raw_text for result in detector.look(views, self.study.volume, self.study.region)]

    @property
    def prompt(self) -> tuple[int, ...]:
        """The question that every view is asked."""
        return make_questions(self.model, MedGemmaSettings()).crop

    def bar(self, value: float) -> float | None:
        """A bar of the full size on a GPU."""
        return value if self.full_size and self.model.device.type == "cuda" else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Print all tables; the exit status says whether the bars are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--model", choices=("full-size", "test"), help="full-size on a GPU, else test")
    parser.add_argument("--slices", type=int, help="40 on a GPU, else 10; there are three views of each")
    parser.add_argument("--tokens", type=int, nargs="+", default=[60, 300, 1000], help="of every answer")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=0, help="views together; 0 for what the detector would take")
    parser.add_argument("--one-a-call", type=int, default=4, help="views that the first rival is timed on; 0 for none")
    parser.add_argument("--compiled", action="store_true", help="one more rival, on a GPU")
    parser.add_argument("--peak-tflops", type=float, help="of the chip, where the table of chips does not have it")
    parser.add_argument("--crops", type=int, default=1000, help="in a row, for the last table; 0 for none")
    parser.add_argument("--threads", type=int, help="of a CPU; as the detector has it without")
    parser.add_argument("--cpu-time", action="store_true", help="seconds of the process instead of the wall's")
    wanted = parser.parse_args(arguments)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    logging.getLogger("m3node").setLevel(logging.ERROR)  # forced answers cannot be read, one by one
    bench = _make_bench(wanted)
    if wanted.threads:  # after the model, which chooses for itself
        torch.set_num_threads(wanted.threads)
    _introduce(bench)
    met = [_same_answers(bench)] if not bench.full_size and bench.model.dtype is torch.float32 else []
    never_ending(bench.model)
    met.append(_preparation(bench))
    steering = _steering(bench)
    met.append(steering.met)
    peak = peak_of(bench.model.device, bench.model.dtype, wanted.peak_tflops, bench.clock)
    _arithmetic(bench, peak)
    for tokens in wanted.tokens:
        met.append(_studies(bench, tokens, steering, wanted.one_a_call, compiled=wanted.compiled))
    if wanted.crops:
        met.append(_flat(bench, wanted.crops, min(wanted.tokens)))
    return int(not all(met))


def make_study(slices: int) -> Study:
    """Make views of the middle slices of a phantom's liver, 512×512 pixels of 0.8 mm."""
    spacing = (160.0 / slices, 0.8, 0.8)
    phantom = abdomen_phantom(shape=(round(200.0 / spacing[0]), 512, 512), spacing=spacing)
    volume = CTVolume(hu=phantom.hu, geometry=phantom.geometry, sources=())
    envelope = make_envelope(phantom.liver, phantom.geometry, LiverSettings())
    region = LiverRegion(
        parenchyma=phantom.liver, envelope=envelope, source=LiverSource.LABEL_MAP, reference="", algorithm="truth"
    )
    seen = viewed_slices(envelope, phantom.geometry)
    if len(seen) < slices:
        sys.exit(f"the phantom's liver is on {len(seen)} slices only")
    first = (len(seen) - slices) // 2
    views = list(envelope_views(volume, region, seen[first : first + slices], PADDINGS))
    return Study(views=views, volume=volume, region=region)


def _make_bench(wanted: argparse.Namespace) -> Bench:
    on_gpu = torch.device(wanted.device).type == "cuda"
    full_size = (wanted.model or ("full-size" if on_gpu else "test")) == "full-size"
    if full_size:
        model = full_size_model(wanted.device, torch.bfloat16 if on_gpu else torch.float32)
    else:
        model = trained_test_model(wanted.device)
    study = make_study(wanted.slices or (40 if on_gpu else 10))
    # What the detector takes by itself for the longest answers; transformers gets as many.
    longest = MedGemmaDetector(model, MedGemmaSettings(max_new_tokens=max(wanted.tokens)))
    batch = min(wanted.batch or longest._together.items, len(study.views))
    if on_gpu and wanted.cpu_time:
        sys.exit("--cpu-time says nothing about a GPU")
    clock = time.process_time if wanted.cpu_time else time.perf_counter
    return Bench(model=model, study=study, batch=batch, pairs=wanted.pairs, full_size=full_size, clock=clock)


def _introduce(bench: Bench) -> None:
    device = bench.model.device
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    dtype = str(bench.model.dtype).removeprefix("torch.")
    CONSOLE.print(
        f"{bench.model.identity.name}, {dtype}, {where}, torch {torch.__version__}: "
        f"{len(bench.study.views)} views ({len(PADDINGS)} a slice), {bench.batch} together, "
        f"prompts of {len(bench.prompt)} tokens"
    )


def _same_answers(bench: Bench) -> bool:
    """The test model's own answers, to their own ends: ours against both plain ways."""
    model, views = bench.model, bench.study.views
    met = True
    for mode, name in ((SteeringMode.OFF, "batched generate"), (SteeringMode.SOFT, "one a call, steered by a mask")):
        detector = bench.detector(model.profile.max_new_tokens, mode)
        tokens = detector._max_new_tokens
        if mode is SteeringMode.OFF:
            theirs = batched(model, views, bench.prompt, tokens, batch=bench.batch)
        else:
            theirs = one_a_call(model, views, bench.prompt, tokens, **_led(detector))
        ends = set(model.network.generation_config.eos_token_id)
        texts = [model.tokenizer.decode(_until(ids, ends), skip_special_tokens=False) for ids in theirs]
        same = sum(a == b for a, b in zip(bench.look(detector, views), texts, strict=True))
        good = same >= BAR_SAME * len(views)
        met &= good
        CONSOLE.print(f"answers that are word for word those of {name}: {same} of {len(views)}{'' if good else ': NO'}")
    return met


def _led(detector: MedGemmaDetector) -> dict[str, Any]:
    return {"steering": detector._steering, "layers": detector._steered_layers}


def _until(ids: Sequence[int], ends: set[int]) -> list[int]:
    return list(ids[: next((at for at, token in enumerate(ids) if token in ends), None)])


def _preparation(bench: Bench) -> bool:
    """Windows, square and resize of a batch, to the device's pixels."""
    model, views = bench.model, bench.study.views[: bench.detector(1)._encoded_together.items]
    frames = [SquareFrame.of(view.hu.shape, view.spacing) for view in views]

    def ours() -> torch.Tensor:
        images = [ct_windows(view.hu) for view in views]
        return normalised(square_images(images, frames, model.sizes.image, model.device), model.dtype)

    def one_at_a_time() -> torch.Tensor:
        return torch.cat([pixel_values([view], model) for view in views])

    far = (ours().float() - one_at_a_time().float()).abs().max().item() * 127.5
    mine, theirs = _pairs(bench, ours, one_at_a_time)
    CONSOLE.print(f"windows and resize differ from PIL's by at most {far:.1f} of 255 levels")
    return print_ratios(
        f"Windows and resize of {len(views)} crops to {model.sizes.image}×{model.sizes.image} (seconds)",
        [RatioRow("a batch | PIL one at a time", mine, theirs, bench.bar(1.0))],
    )


@dataclass(frozen=True, slots=True)
class _Steering:
    """Seconds a view that steering costs, and whether its bar is met."""

    seconds_a_view: float
    met: bool


@torch.inference_mode()
def _steering(bench: Bench) -> _Steering:
    """From views to features: with and without steering; that includes the mask's way to the patches."""
    steered, plain = bench.detector(1), bench.detector(1, SteeringMode.OFF)
    views = bench.study.views[: steered._encoded_together.items]
    shown = [(view, SquareFrame.of(view.hu.shape, view.spacing)) for view in views]
    with_it, without = _pairs(bench, partial(steered._encode, shown), partial(plain._encode, shown), more=3)
    met = print_ratios(
        f"Views to features, {len(views)} together (seconds)",
        [RatioRow("steered | not steered", with_it, without, bench.bar(BAR_STEERED))],
    )
    cost = median(a - b for a, b in zip(with_it, without, strict=True))
    return _Steering(seconds_a_view=cost / len(views), met=met)


@torch.inference_mode()
def _arithmetic(bench: Bench, peak: Peak) -> None:
    """The encoder and the reading of prompts, as a share of what the chip can do."""
    model, prompt = bench.model, bench.prompt
    config: Any = model.network.config
    together = bench.detector(1)._encoded_together.items
    side = model.sizes.image
    pixels = torch.rand(together, 3, side, side, device=model.device).mul_(2).sub_(1).to(model.dtype)
    first_to_last = (0, model.sizes.vision_layers - 1)
    tokens = model.sizes.tokens**2
    features = torch.randn(bench.batch, tokens, config.text_config.hidden_size, device=model.device, dtype=model.dtype)
    batch = padded(model, [prompt] * bench.batch)

    def prefill() -> torch.Tensor:
        return read_in(model, batch, features, past_key_values=roomy_cache(config.text_config), use_cache=True)

    table = Table(title=f"Arithmetic; peak {peak.flops / 1e12:.3g} TFLOP/s ({peak.source})", title_justify="left")
    for heading in ("what", "seconds", "TFLOP", "TFLOP/s", "of the peak"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for name, work, flops in (
        (
            f"encoder, {together} images",
            partial(image_features, model, pixels, None, first_to_last),
            together * encoder_flops(config),
        ),
        (
            f"prefill, {bench.batch} prompts of {len(prompt)}",
            prefill,
            bench.batch * prefill_flops(config, len(prompt)),
        ),
    ):
        work()
        seconds = median(_timed(bench, work) for _ in range(bench.pairs + 2))
        rate = flops / seconds
        figures = (f"{seconds:.3g}", f"{flops / 1e12:.3g}", f"{rate / 1e12:.3g}", f"{100 * rate / peak.flops:.0f} %")
        table.add_row(name, *figures)
    CONSOLE.print(table)


def _studies(bench: Bench, tokens: int, steering: _Steering, singles: int, *, compiled: bool) -> bool:
    """A study, every answer of so many tokens."""
    model, views, prompt = bench.model, bench.study.views, bench.prompt
    detector = bench.detector(tokens)
    plain = partial(batched, model, views, prompt, tokens, batch=bench.batch)
    rivals: list[tuple[str, Callable[[], object], float, float | None]] = [
        ("batched, dynamic cache", plain, 1.0, bench.bar(BAR_BATCHED) or BAR_ON_CPU),
        (
            "batched, static cache",
            partial(plain, cache_implementation="static", disable_compile=True),
            1.0,
            bench.bar(BAR_BATCHED) or BAR_ON_CPU,
        ),
    ]
    if singles := min(singles, len(views)):
        few = views[:: len(views) // singles][:singles]
        alone = partial(one_a_call, model, few, prompt, tokens, **_led(detector))
        bar = bench.bar(BAR_ONE_A_CALL) or BAR_ON_CPU
        rivals.append((f"one a call (of {singles})", alone, len(views) / singles, bar))
    if compiled:
        rivals.append(("batched, static, compiled", partial(plain, cache_implementation="static"), 1.0, None))

    ours = partial(bench.look, detector, views)
    summary = Table(title=f"A study, {tokens} tokens an answer", title_justify="left")
    for heading in ("who", "first run s", "s a study", "crops/s", "peak MB"):
        summary.add_column(heading, justify="left" if heading == "who" else "right")
    first, peak_mb = _first(bench, ours)
    seconds: list[float] = []
    rows = []
    for name, rival, factor, bar in rivals:
        try:
            their_first, their_peak = _first(bench, rival)
        except torch.OutOfMemoryError:  # ours would halve its batch; a plain way ends
            summary.add_row(name, "out of memory", "", "", "")
            continue
        mine, theirs = _pairs(bench, ours, rival, warm=False)
        theirs = [factor * value for value in theirs]
        seconds += mine
        rows.append(RatioRow(f"m3node | {name}", mine, theirs, bar))
        scaled = factor * their_first
        summary.add_row(name, f"{scaled:.3g}", *_rates(median(theirs), len(views)), f"{their_peak:.0f}")
        model.network.__dict__.pop("_cache", None)  # generate keeps its static cache
    seconds = seconds or [first]
    summary.add_row("m3node", f"{first:.3g}", *_rates(median(seconds), len(views)), f"{peak_mb:.0f}")
    CONSOLE.print(summary)
    met = print_ratios(f"The same, {tokens} tokens (seconds)", rows)
    share = steering.seconds_a_view * len(views) / median(seconds)
    limit = bench.bar(BAR_STEERED_STUDY)
    good = limit is None or share <= limit
    verdict = "" if limit is None else f", bar {100 * limit:g} %: {'met' if good else 'NOT MET'}"
    CONSOLE.print(f"steering is {100 * share:.1f} % of the study{verdict}")
    return met and good


def _rates(seconds: float, views: int) -> tuple[str, str]:
    return f"{seconds:.3g}", f"{views / seconds:.3g}"


def _flat(bench: Bench, crops: int, tokens: int) -> bool:
    """Many crops one after the other, in one process with one detector."""
    detector = bench.detector(tokens)
    step = max(1, crops // 10)
    held = []
    looked = detector.look(islice(cycle(bench.study.views), crops), bench.study.volume, bench.study.region)
    table = Table(title=f"Memory over {crops} crops in a row", title_justify="left")
    for heading in ("crops", "MB held", "MB on the GPU"):
        table.add_column(heading, justify="right")
    for number, _ in enumerate(looked, start=1):
        if number % step:
            continue
        held.append((_status_mb("VmRSS"), _allocated_mb(bench)))
        table.add_row(str(number), f"{held[-1][0]:.0f}", f"{held[-1][1]:.0f}" if held[-1][1] else "")
    CONSOLE.print(table)
    growth = max(held[-1][part] - held[0][part] for part in (0, 1))
    met = growth <= BAR_GROWTH_MB
    CONSOLE.print(f"grown by {growth:.1f} MB since crop {step}, bar {BAR_GROWTH_MB:g}: {'met' if met else 'NOT MET'}")
    return met


def _pairs(
    bench: Bench, ours: Callable[[], object], rival: Callable[[], object], *, warm: bool = True, more: int = 0
) -> tuple[list[float], list[float]]:
    if warm:
        ours()
        rival()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(bench.pairs + more):
        for work, seconds in zip((ours, rival), times, strict=True):
            seconds.append(_timed(bench, work))
    return times


def _timed(bench: Bench, work: Callable[[], object]) -> float:
    _wait(bench)
    started = bench.clock()
    work()
    _wait(bench)
    return bench.clock() - started


def _wait(bench: Bench) -> None:
    if bench.model.device.type == "cuda":
        torch.cuda.synchronize(bench.model.device)


def _first(bench: Bench, work: Callable[[], object]) -> tuple[float, float]:
    """Seconds and peak memory in MB of a side's first run."""
    gc.collect()
    device = bench.model.device
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return _timed(bench, work), torch.cuda.max_memory_allocated(device) / 1e6
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    return _timed(bench, work), _status_mb("VmHWM")


def _status_mb(name: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return float(line.split()[1]) * 1.024 / 1000.0
    return 0.0


def _allocated_mb(bench: Bench) -> float:
    device = bench.model.device
    return torch.cuda.memory_allocated(device) / 1e6 if device.type == "cuda" else 0.0


if __name__ == "__main__":
    sys.exit(main())
