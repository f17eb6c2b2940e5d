"""The model card that lies beside the weights: what the model is, how it was made, how good it is."""

from __future__ import annotations

from pathlib import Path

from m3node.evaluation.test_model.measuring import FIRST_SEED, MIN_IOU, PADDINGS, Measurement, Quality
from m3node.evaluation.test_model.training import stages_of

_SHOWN = ("seed", "processes", "batch", "vision_steps", "steps")

_TEXT = """\
---
license: apache-2.0
tags: [test-model, synthetic-data]
---
# m3node test model

**A test model. It is not MedGemma, it has never seen a patient, and it is not for any medical use.** It exists so that
the tests run on a model that really looks at pixels; what it finds on a real CT means nothing.

A Gemma3 with a SigLIP vision encoder, {parameters:.2f} million parameters, stored as float16: image 224 px, patches of
14 px, 64 image tokens, 4 vision layers and 4 language layers of width 128. Language layers 1 and 3 attend globally, the
others within 128 tokens. Tokens are single bytes (so single digits, as Gemma has them) and the five strings that stand
between an answer's numbers.

## Made by

{commands}

on the 2-D phantoms of `m3node/evaluation/phantom_slices.py` and nothing else (`docs/evaluation.md`, "2-D phantoms").
{stages}

The vision encoder learns alone first, from tasks that are dropped afterwards (where is liver, where a lesion, where
are its edges); then everything learns, from answers and those tasks. Taught coordinates are multiples of 5 of 1000. An
error in a coordinate costs the less the nearer it is: its target is a Gaussian around the exact value, and a digit's
target is the Gaussian's sum over all numbers that go on with this digit.

## Measured

By `python -m m3node.evaluation.test_model measure` on {pictures} held-out phantoms (seeds from {first_seed} on),
cropped about the true liver with {paddings} padding in turn, and whole; without steering, and steered to the true
liver by the default settings (soft, α = 5, the later two of four layers, one patch):

{table}

A lesion's best IoU is that of the best box of its picture, 0 where there is none. A box is false when it overlaps
every lesion with an IoU below {min_iou}. Pictures of one value: {blank_boxes} boxes. With their lesions painted over,
the crops that show lesions keep {boxes_after} of {boxes_before} boxes ({boxes_left:.1%}).
"""


def table(measurement: Measurement) -> str:
    """Lay out what was measured as a Markdown table."""
    shown = {
        "crop": measurement.crops,
        "crop, steered": measurement.steered_crops,
        "whole slice": measurement.whole,
        "whole slice, steered": measurement.steered_whole,
    }
    columns = [_column(quality) for quality in shown.values()]
    lines = ["| | " + " | ".join(shown) + " |", "|---" * (len(shown) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(column[name] for column in columns) + " |" for name in columns[0]]
    return "\n".join(lines)


def _column(quality: Quality) -> dict[str, str]:
    return {
        "lesions": str(quality.lesions),
        "answers that can be read": f"{quality.parse_rate:.3f}",
        "mean best IoU": f"{quality.mean_best_iou:.3f}",
        **{f"recall at IoU {bar}": f"{share:.2f}" for bar, share in quality.recall},
        "false boxes a picture": f"{quality.false_boxes:.2f}",
    }


def write_card(folder: Path, measurement: Measurement, parameters: int) -> None:
    """Write ``README.md`` beside the weights, from what was measured and the record of the training."""
    stages = stages_of(folder)
    commands: list[str] = []
    for number, stage in enumerate(stages, start=1):
        recipe = stage["recipe"]
        flags = [f"--{name.replace('_', '-')} {recipe[name]}" for name in _SHOWN]
        flags += [f"--start STAGE{number - 1}"] if number > 1 else []
        commands.append(
            "    python -m m3node.evaluation.test_model train --out " + " ".join([f"STAGE{number}", *flags])
        )
    pictures = sum(
        (r["vision_steps"] + r["steps"]) * r["processes"] * r["batch"] for r in (stage["recipe"] for stage in stages)
    )
    text = _TEXT.format(
        parameters=parameters / 1e6,
        commands="\n".join(commands),
        stages=(
            f"{pictures:,} pictures in {sum(stage['minutes'] for stage in stages):.0f} minutes of four cores that were "
            f"shared with much other work; {stages[-1]['versions']}."
        ),
        pictures=measurement.crops.pictures,
        first_seed=FIRST_SEED,
        paddings=", ".join(f"{padding:.0%}" for padding in PADDINGS),
        table=table(measurement),
        min_iou=MIN_IOU,
        blank_boxes=measurement.blank_boxes,
        boxes_after=measurement.boxes_after,
        boxes_before=measurement.boxes_before,
        boxes_left=measurement.boxes_left,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
