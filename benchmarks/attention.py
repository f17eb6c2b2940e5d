"""What it costs to read where a model looked, against generation alone; and the peak memory of each mode.

``python -m benchmarks.attention --device cuda`` takes random weights of MedGemma 1.5 4B's size in bf16; on a CPU it is
the package's small test model in float32. Ours is `m3node.attention.reading.looker.Looker`: an image encoded once, some
questions about it answered, and their answers read back. The rival is the same without reading: features, and
``m3node.gemma.generation.generate``. Answers are as long as is said, so that both do the same work.

Random weights look everywhere alike, and a grid that is flat would be made in the next mode, and the next: here a flat
one is let pass, so that each row is of one mode.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gemma_models import full_size_model, never_ending, trained_test_model
from m3node.attention.images.image import ImageKind, InputImage
from m3node.attention.questions.terms import TermList
from m3node.attention.reading import grids
from m3node.attention.reading.layers import choose_layers
from m3node.attention.reading.looker import Looker
from m3node.attention.reading.plan import Mode, ReadingPlan
from m3node.gemma.generation import generate
from m3node.gemma.model import GemmaModel
from m3node.gemma.prompts import prompt_ids
from meter import Meter
from table import RatioRow, print_ratios

BAR = 1.3
QUESTIONS = (
    "Is there a pneumothorax on this image?",
    "Does this image show a pneumothorax?",
    "Can a pneumothorax be seen here, and on which side?",
    "Is the heart enlarged, or is there a pleural effusion?",
)
TERMS = TermList(("pneumothorax", "heart", "pleural effusion"))
PADDING = " Consider the lungs, the pleura, the heart, the bones."

CONSOLE = Console(width=120)


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """What all tables are made with."""

    model: GemmaModel
    image: InputImage
    meter: Meter
    layers: str
    pairs: int

    def looker(self, mode: Mode, tokens: int) -> Looker:
        """Make one that reads in one mode, and answers of so many tokens."""
        layers, weights = choose_layers(self.layers, self.model)
        return Looker(self.model, ReadingPlan(mode, layers, weights, max_new_tokens=tokens), TERMS)

    def look(self, mode: Mode, questions: Sequence[str], tokens: int) -> None:
        """Ours."""
        looker = self.looker(mode, tokens)
        for looked in looker.ask(looker.features(self.image), self.image, questions):
            if looked.mode is not mode or not looked.tokens:
                sys.exit(f"{mode} was not what was read: {looked.passed_over}")

    def generate(self, questions: Sequence[str], tokens: int) -> None:
        """Generation alone."""
        features = self.looker(Mode.RAW, tokens).features(self.image)
        prompts = [prompt_ids(self.model, question) for question in questions]
        generate(self.model, prompts, features[None].expand(len(prompts), -1, -1), max_new_tokens=tokens)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print all tables; the exit status says whether the bars are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--model", choices=("full-size", "test"), help="full-size on a GPU, else test")
    parser.add_argument("--tokens", type=int, nargs="+", default=[2, 8, 128], help="of every answer")
    parser.add_argument("--questions", type=int, nargs="+", default=[1, 4], help="about one image, asked together")
    parser.add_argument("--layers", default="global", help="that are read, as m3node attention has it")
    parser.add_argument("--long", type=int, default=1000, help="tokens of the longer prompt, about")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of a CPU; as m3node has it without")
    parser.add_argument("--cpu-time", action="store_true", help="seconds of the process instead of the wall's")
    wanted = parser.parse_args(arguments)
    bench = _make_bench(wanted)
    if wanted.threads:  # after the model, which chooses for itself
        torch.set_num_threads(wanted.threads)
    grids.FLAT = float("inf")
    _introduce(bench)
    met = [_cost(bench, count, wanted.tokens) for count in wanted.questions]
    _memory(bench, wanted.long, min(wanted.tokens))
    return int(not all(met))


def _make_bench(wanted: argparse.Namespace) -> Bench:
    on_gpu = torch.device(wanted.device).type == "cuda"
    if (wanted.model or ("full-size" if on_gpu else "test")) == "full-size":
        model = _of_letters(full_size_model(wanted.device, torch.bfloat16 if on_gpu else torch.float32))
    else:
        model = trained_test_model(wanted.device)
    if on_gpu and wanted.cpu_time:
        sys.exit("--cpu-time says nothing about a GPU")
    generator = np.random.default_rng(0)
    rgb = generator.integers(0, 256, (1024, 832, 3), dtype=np.uint8)
    return Bench(
        model=never_ending(model),
        image=InputImage(path=Path("noise.png"), rgb=rgb, kind=ImageKind.OTHER),
        meter=Meter(model.device, cpu_time=wanted.cpu_time),
        layers=wanted.layers,
        pairs=wanted.pairs,
    )


def _of_letters(model: GemmaModel) -> GemmaModel:
    """Have random weights answer in letters: the stand-in tokenizer has no text for most of the vocabulary."""
    network: Any = model.network
    letters = [model.tokenizer.convert_tokens_to_ids(chr(code)) for code in range(ord("a"), ord("z") + 1)]
    embedding = network.model.language_model.embed_tokens.weight  # and the vocabulary's
    kept = embedding[letters].clone()
    embedding.zero_()
    embedding[letters] = kept
    return model


def _introduce(bench: Bench) -> None:
    model = bench.model
    device = model.device
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    dtype = str(model.dtype).removeprefix("torch.")
    layers, _ = choose_layers(bench.layers, model)
    CONSOLE.print(
        f"{model.identity.name}, {dtype}, {where}, torch {torch.__version__}: {model.sizes.tokens}×{model.sizes.tokens}"
        f" image tokens, {len(layers)} of {model.sizes.language_layers} layers read, {bench.pairs} pairs a row"
    )


def _cost(bench: Bench, count: int, lengths: Sequence[int]) -> bool:
    questions = QUESTIONS[:count]
    rows = []
    for tokens in lengths:
        for mode in (Mode.RAW, Mode.GATED):
            ours, rival = bench.meter.pairs(
                lambda mode=mode, tokens=tokens: bench.look(mode, questions, tokens),
                lambda tokens=tokens: bench.generate(questions, tokens),
                bench.pairs,
            )
            rows.append(RatioRow(f"{mode}, answers of {tokens} tokens | generation alone", ours, rival, BAR))
    return print_ratios(f"An image and {count} question{'s' * (count > 1)} about it (seconds)", rows)


def _memory(bench: Bench, long: int, tokens: int) -> None:
    """One question, short and long; what eager attention of all layers would take, for comparison."""
    model = bench.model
    table = Table(title="Peak memory, one question (MB, weights included)", title_justify="left")
    for heading in ("tokens of the prompt", "generation alone", *Mode, "all layers' attention would be"):
        table.add_column(str(heading), justify="right")
    short = QUESTIONS[0]
    for question in (short, _lengthened(model, short, long)):
        length = len(prompt_ids(model, question))
        peaks = [bench.meter.peak_mb(lambda question=question: bench.generate([question], tokens))]
        peaks += [
            bench.meter.peak_mb(lambda mode=mode, question=question: bench.look(mode, [question], tokens))
            for mode in Mode
        ]
        whole = model.sizes.language_layers * model.sizes.query_heads * (length + tokens) ** 2 * 4 / 1e6
        table.add_row(str(length), *(f"{peak:.0f}" for peak in peaks), f"{whole:.0f}")
    CONSOLE.print(table)


def _lengthened(model: GemmaModel, question: str, tokens: int) -> str:
    one = len(prompt_ids(model, question + PADDING)) - len(prompt_ids(model, question))
    return question + PADDING * max(1, (tokens - len(prompt_ids(model, question))) // one)


if __name__ == "__main__":
    sys.exit(main())
