"""Loads a model by its hub name or from a folder, without the network when it is on disk."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from transformers import AutoConfig, AutoTokenizer, Gemma3ForConditionalGeneration

from m3node.errors import ConfigError
from m3node.gemma.model import GemmaModel, ModelIdentity
from m3node.gemma.profile import load_profile, profile_for
from m3node.gemma.sizes import sizes_of
from m3node.settings import ModelSettings

_log = logging.getLogger(__name__)

TEST_MODEL = "test"
_WANTED = ("*.json", "*.safetensors", "*.model", "*.jinja")


def load_model(settings: ModelSettings) -> GemmaModel:
    """Load the model that the settings name.

    Raises
    ------
    ConfigError
        It is not there, not to be had, of another kind, or the device is missing; the message says what to do.
    """
    folder, revision = model_folder(settings)
    profile = load_profile(settings.profile) if settings.profile else profile_for(settings.model)
    device = _device(settings.device)
    dtype = _dtype(settings.dtype, device)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        sizes = sizes_of(config)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        network: Any = Gemma3ForConditionalGeneration.from_pretrained(
            folder, local_files_only=True, dtype=dtype, attn_implementation="sdpa"
        )
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"the model {settings.model!r} cannot be loaded from {folder}: {error}") from error
    network.to(device).eval().requires_grad_(False)
    name = settings.model if not Path(settings.model).is_dir() else folder.name
    identity = ModelIdentity(
        name=profile.label if settings.model == TEST_MODEL else name,
        revision=revision,
        weights=weights_digest(folder),
        is_test_model=profile.is_test_model,
    )
    return GemmaModel(
        network=network,
        tokenizer=tokenizer,
        profile=profile,
        sizes=sizes,
        identity=identity,
        device=device,
        dtype=dtype,
    )


def model_folder(settings: ModelSettings) -> tuple[Path, str]:
    """Return where the model's files lie, and the hub's commit; fetched only when they are not on disk yet."""
    own = Path(settings.model)
    if settings.model == TEST_MODEL:
        return Path(__file__).parent / "test_model", ""
    if own.is_dir():
        return own, ""
    wanted: dict[str, Any] = {"revision": settings.revision or None, "allow_patterns": _WANTED}
    try:
        folder = Path(snapshot_download(settings.model, local_files_only=True, **wanted))
    except (LocalEntryNotFoundError, OSError, ValueError):
        folder = _fetch(settings, wanted)
    return folder, folder.name


def _fetch(settings: ModelSettings, wanted: dict[str, Any]) -> Path:
    _log.info("fetching the model %s", settings.model)
    hint = (
        f"accept its licence at https://huggingface.co/{settings.model}, then set HF_TOKEN or run 'hf auth login'; "
        "or copy its files into a folder and name that (detector.medgemma.model)"
    )
    try:
        return Path(snapshot_download(settings.model, **wanted))
    except GatedRepoError as error:
        raise ConfigError(f"the model {settings.model!r} is gated: {hint}") from error
    except RepositoryNotFoundError as error:
        raise ConfigError(f"the hub has no model {settings.model!r}, or not for you: {hint}") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        raise ConfigError(f"the model {settings.model!r} is not on this disk and cannot be fetched: {hint}") from error


def weights_digest(folder: Path) -> str:
    """SHA-256 over the weight files, their names and contents."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(f'there is no device {name!r} here: {torch.cuda.device_count()} GPUs; use device = "cpu"')
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32
