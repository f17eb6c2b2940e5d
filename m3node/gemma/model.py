"""A loaded model and who it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import Gemma3ForConditionalGeneration, PreTrainedTokenizerBase

from m3node.gemma.profile import ModelProfile
from m3node.gemma.sizes import ModelSizes


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which weights answer.

    Attributes
    ----------
    name : str
        Hub name, or the folder's own name without its path.
    revision : str
        Commit of the hub that was loaded; empty for a folder.
    weights : str
        SHA-256 over the names and contents of the weight files.
    is_test_model : bool
        It proves the path and nothing about medicine.
    """

    name: str
    revision: str
    weights: str
    is_test_model: bool


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class GemmaModel:
    """A model in memory, ready to be asked; its weights are never changed.

    Attributes
    ----------
    network : Gemma3ForConditionalGeneration
        In evaluation mode, without gradients, on ``device``; attention implementation ``sdpa``.
    tokenizer : PreTrainedTokenizerBase
        With ``boi_token``, ``image_token``, ``eoi_token`` and a chat template.
    """

    network: Gemma3ForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase
    profile: ModelProfile
    sizes: ModelSizes
    identity: ModelIdentity
    device: torch.device
    dtype: torch.dtype
