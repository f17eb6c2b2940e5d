"""``python -m m3node.evaluation.test_model train|measure``."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

from m3node.evaluation.test_model.card import table, write_card
from m3node.evaluation.test_model.measuring import FIRST_SEED, HELD_OUT, measure
from m3node.evaluation.test_model.training import Recipe, train
from m3node.gemma.loading import TEST_MODEL, load_model
from m3node.settings import ModelSettings

_RECIPE = ("seed", "processes", "batch", "vision_steps", "steps")


def main() -> None:
    """Parse and do."""
    parser = argparse.ArgumentParser(
        prog="python -m m3node.evaluation.test_model",
        description="Makes and measures the test model. Not MedGemma, not for any medical use.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train on 2-D phantoms")
    training.add_argument("--out", type=Path, required=True, help="folder for the model's files")
    training.add_argument("--start", type=Path, help="folder of an earlier training, to go on from its weights")
    for name in _RECIPE:
        training.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(Recipe(), name))
    measuring = commands.add_parser("measure", help="measure on held-out 2-D phantoms")
    measuring.add_argument("--model", default=TEST_MODEL, help="folder of a model; the one of the package by default")
    measuring.add_argument("--slices", type=int, default=HELD_OUT)
    measuring.add_argument("--first-seed", type=int, default=FIRST_SEED)
    measuring.add_argument("--card", type=Path, help="folder of the model, to write its README.md with the result")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if arguments.command == "train":
        train(Recipe(**{name: getattr(arguments, name) for name in _RECIPE}), arguments.out, arguments.start)
        return
    torch.set_num_threads(2)
    model = load_model(ModelSettings(model=arguments.model, profile=TEST_MODEL))
    result = measure(model, slices=arguments.slices, first_seed=arguments.first_seed)
    print(table(result))
    print(f"boxes on pictures of one value: {result.blank_boxes}")
    print(f"boxes left when lesions are painted over: {result.boxes_after} of {result.boxes_before}")
    if arguments.card:
        write_card(arguments.card, result, sum(weights.numel() for weights in model.network.parameters()))


if __name__ == "__main__":
    main()
