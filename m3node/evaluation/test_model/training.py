"""Trains the test model: the vision encoder alone first, then all of it; several processes, gradients averaged."""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import distributed
from torch.multiprocessing.spawn import start_processes
from torch.nn import functional as F  # noqa: N812 - its usual name
from transformers.modeling_outputs import BaseModelOutputWithPooling

from m3node.evaluation.test_model.answers import Teacher
from m3node.evaluation.test_model.batches import pixels_of, sequences_of
from m3node.evaluation.test_model.examples import Example, stream
from m3node.evaluation.test_model.helpers import Helpers
from m3node.evaluation.test_model.network import new_model
from m3node.gemma.loading import TEST_MODEL, load_model
from m3node.gemma.model import GemmaModel
from m3node.settings import ModelSettings

_log = logging.getLogger(__name__)

RECORD = "training.json"
"""Beside the weights: the recipe that they follow from."""

_TRAINING_STREAM = 20
"""Keeps the training's random numbers apart from those of `slice_phantom`, so held-out slices are never trained on."""

_BETAS = (0.9, 0.98)
_DECAY = 0.02
_KEPT = 0.99


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that the weights follow from.

    Attributes
    ----------
    seed : int
        Examples, and first weights unless the training goes on from others.
    processes, batch : int
        Processes (of one thread each, when there are several), and examples of each in a step.
    vision_steps, steps : int
        Steps of the vision encoder alone, and after them of the whole model.
    matrix_rate, rate : float
        Highest learning rates of the layers' matrices (Muon) and of all else (AdamW); they rise over the first 100
        steps of each part and fall over the last 30 % of the whole.
    sigma : tuple of float
        Width of the targets' Gaussians, first and last, of 1000.
    """

    seed: int = 4
    processes: int = 4
    batch: int = 8
    vision_steps: int = 220
    steps: int = 1080
    matrix_rate: float = 0.02
    rate: float = 1.5e-3
    sigma: tuple[float, float] = (10.0, 6.0)


def train(recipe: Recipe, out: Path, start: Path | None = None) -> None:
    """Train, and write the model's files to a folder, now and then and at the end.

    Parameters
    ----------
    recipe : Recipe
        Take another seed than before when going on: the same one draws the same examples.
    out : Path
        Made when absent.
    start : Path or None
        Folder of a model made by this function, to go on from its weights.
    """
    out.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        work = (recipe, out, start, f"{folder}/meeting")
        if recipe.processes == 1:
            _work(0, *work)
        else:
            start_processes(_work, args=work, nprocs=recipe.processes, start_method="spawn")
    stage = {
        "recipe": asdict(recipe),
        "minutes": round((time.monotonic() - begun) / 60, 1),
        "versions": f"torch {torch.__version__}, transformers {transformers.__version__}",
    }
    stages = [*(stages_of(start) if start else []), stage]
    (out / RECORD).write_text(json.dumps(stages, indent=2) + "\n", encoding="utf-8")


def stages_of(folder: Path) -> list[dict[str, Any]]:
    """Read how a model was trained: the recipe, minutes and versions of each stage, the first one first."""
    stages: list[dict[str, Any]] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    return stages


def save(model: GemmaModel, out: Path) -> None:
    """Write a model's files, weights in float16."""
    network: Any = copy.deepcopy(model.network).half()
    network.save_pretrained(out)
    model.tokenizer.save_pretrained(out)
    for path in out.glob("*.safetensors"):
        path.chmod(0o644)  # written for their owner alone


def _work(rank: int, recipe: Recipe, out: Path, start: Path | None, meeting: str) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    together = recipe.processes > 1
    if together:
        torch.set_num_threads(1)
        # Four processes with one thread each are twice as fast as one with four.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=recipe.processes)
    model = new_model(recipe.seed)
    network: Any = model.network.train()
    if start:
        network.load_state_dict(_weights(start))
    hidden, width = network.config.vision_config.hidden_size, network.config.text_config.hidden_size
    helpers = Helpers(hidden, width)
    average: Any = copy.deepcopy(network).eval() if rank == 0 else None
    examples = stream(np.random.default_rng([recipe.seed, _TRAINING_STREAM, rank]))
    teacher = Teacher(model.tokenizer)
    parameters = [*network.parameters(), *helpers.parameters()]
    optimizers = _optimizers(network, helpers, recipe)
    total, started, losses = recipe.vision_steps + recipe.steps, time.monotonic(), np.zeros(3)
    for step in range(total):
        seeing_only = step < recipe.vision_steps
        share = step / total
        sigma = recipe.sigma[0] + (recipe.sigma[1] - recipe.sigma[0]) * share
        for optimizer, rate in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * _pace(step, recipe)
        batch = _batch(examples, recipe.batch)
        helping, answering = _losses(model, helpers, teacher, batch, sigma, seeing_only=seeing_only)
        loss = helping if seeing_only else answering + 0.5 * (1.0 - 0.8 * share) * helping
        for parameter in parameters:
            parameter.grad = None
        loss.backward()
        if together:
            _average_gradients(parameters, recipe.processes)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer, _ in optimizers:
            optimizer.step()
        losses += 1.0, helping.item(), answering.item()
        if rank == 0:
            _follow(average, network, min(_KEPT, (1 + step) / (10 + step)))
            if (step + 1) % 50 == 0:
                _log.info(
                    "step %d of %d, %.0f s: helpers %.3f, answers %.3f",
                    step + 1,
                    total,
                    time.monotonic() - started,
                    *(losses[1:] / losses[0]),
                )
                losses[:] = 0.0
            if (step + 1) % 250 == 0 or step + 1 == total:
                save(_with_network(model, average), out)
    if together:
        distributed.destroy_process_group()


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    found = load_model(ModelSettings(model=str(folder), profile=TEST_MODEL, device="cpu"))
    weights: dict[str, torch.Tensor] = found.network.state_dict()
    return weights


def _optimizers(network: Any, helpers: Helpers, recipe: Recipe) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the layers' matrices: in a trial it was after 80 steps where AdamW was after 160."""
    matrices: list[torch.nn.Parameter] = []
    others = list(helpers.parameters())
    for name, parameter in network.named_parameters():
        inner = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
        (matrices if inner else others).append(parameter)
    return [
        (torch.optim.Muon(matrices, lr=recipe.matrix_rate, weight_decay=_DECAY), recipe.matrix_rate),
        (torch.optim.AdamW(others, lr=recipe.rate, betas=_BETAS, weight_decay=_DECAY), recipe.rate),
    ]


def _losses(
    model: GemmaModel,
    helpers: Helpers,
    teacher: Teacher,
    batch: Sequence[Example],
    sigma: float,
    *,
    seeing_only: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    network: Any = model.network
    patches = network.model.vision_tower(pixel_values=pixels_of(model, batch)).last_hidden_state
    tokens = network.model.multi_modal_projector(patches)
    helping = helpers.loss(patches, tokens, batch, sigma)
    if seeing_only:
        return helping, torch.zeros(())
    words = sequences_of(model, teacher, batch, sigma)
    states = network.model(
        input_ids=words.ids,
        attention_mask=words.mask,
        token_type_ids=words.kinds,
        mm_encoder_outputs={"image": BaseModelOutputWithPooling(last_hidden_state=patches, pooler_output=tokens)},
        use_cache=False,
    ).last_hidden_state
    log_probs = F.log_softmax(network.lm_head(states[words.asked]), dim=1)
    each = -(words.targets * log_probs).sum(dim=1)
    return helping, (each * words.weights).sum() / words.weights.sum()


def _batch(examples: Iterator[Example], size: int) -> list[Example]:
    return [next(examples) for _ in range(size)]


def _pace(step: int, recipe: Recipe) -> float:
    """Share of the highest learning rate: up at the start of both parts, down towards the end."""
    total = recipe.vision_steps + recipe.steps
    since = step if step < recipe.vision_steps else step - recipe.vision_steps
    rising = min(1.0, (since + 1) / 100)
    falling = min(1.0, (total - step) / (0.3 * total))
    return rising * (1.0 - math.cos(math.pi * falling)) / 2


def _average_gradients(parameters: Sequence[torch.nn.Parameter], processes: int) -> None:
    # A part without use in this step has none yet; every process must send the same numbers.
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= processes
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter).clone()


@torch.no_grad()
def _follow(average: Any, network: Any, kept: float) -> None:
    for mean, now in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(now, 1.0 - kept)


def _with_network(model: GemmaModel, network: Any) -> GemmaModel:
    return GemmaModel(
        network=network,
        tokenizer=model.tokenizer,
        profile=model.profile,
        sizes=model.sizes,
        identity=model.identity,
        device=model.device,
        dtype=model.dtype,
    )
