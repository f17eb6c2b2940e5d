"""Loads a model by its hub name or from a folder, without the network when it is on disk; once in a process."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, Gemma3Config, Gemma3ForConditionalGeneration
from transformers.utils import logging as library_log

from m3node.errors import ConfigError
from m3node.gemma.files import (
    TEST_FOLDER,
    TEST_MODEL,
    first_line,
    model_folder,
    own_folder,
    weight_files,
    weights_digest,
)
from m3node.gemma.model import GemmaModel, ModelIdentity
from m3node.gemma.profile import ModelProfile, load_profile, profile_for
from m3node.gemma.sizes import ModelSizes, sizes_of
from m3node.settings import ModelSettings

__all__ = ["TEST_MODEL", "load_model", "model_folder", "weights_digest"]

_log = logging.getLogger(__name__)

_SMALL = 20_000_000
"""Weights of a model whose work in one layer is too little to be shared between a CPU's cores."""

_loaded: weakref.WeakValueDictionary[tuple[Any, ...], GemmaModel] = weakref.WeakValueDictionary()
_loading = threading.Lock()


def load_model(settings: ModelSettings) -> GemmaModel:
    """Load the model that the settings name.

    As long as somebody holds it, the same settings and files give the same object: weights of 8 GB are in the memory of
    a process once, whichever detectors and questions use them.

    Raises
    ------
    ConfigError
        It is not there, not to be had, of another kind, or the device is missing; the message says what to do.
    """
    own_folder(settings.model)  # refuses what is not there before anything is said of its profile
    profile = load_profile(settings.profile) if settings.profile else profile_for(settings.model)
    device = _device(settings.device)
    dtype = _dtype(settings.dtype, device)
    folder, revision = model_folder(settings)
    key = (settings.model, revision, settings.profile, str(device), dtype, _stamps(folder))
    with _loading:
        model = _loaded.get(key)
        if model is None:
            model = _loaded[key] = _load(
                settings, profile, folder=folder, revision=revision, device=device, dtype=dtype
            )
    return model


def _load(
    settings: ModelSettings,
    profile: ModelProfile,
    *,
    folder: Path,
    revision: str,
    device: torch.device,
    dtype: torch.dtype,
) -> GemmaModel:
    began = time.monotonic()
    _log.info("loading the model %s to %s as %s", settings.model, device, _name(dtype))
    if dtype is torch.bfloat16 and device.type == "cpu":
        _log.warning("bfloat16 on a CPU is many times slower than float32 where the CPU has no instructions for it")
    _keep_quiet()
    # The digest reads the same files at the same time: the disk gives them once.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="digest") as pool:
        digest = pool.submit(weights_digest, folder)
        network, tokenizer, sizes = _read(settings.model, folder, dtype)
        weights = digest.result()
    # Without this, a copy of the test model under another's profile would sign reports with that one's name.
    if not profile.is_test_model and TEST_FOLDER.is_dir() and weights == weights_digest(TEST_FOLDER):
        raise ConfigError(f"these weights are the test model's; leave detector.medgemma.profile out, or {TEST_MODEL!r}")
    try:
        network.to(device).eval().requires_grad_(False)
    except RuntimeError as error:  # out of memory too
        raise ConfigError(
            f"the model {settings.model!r} cannot be brought to {device}: {first_line(error)}; free its memory, or "
            'name another one (detector.medgemma.device; "cpu" always works, slowly)'
        ) from error
    if device.type == "cpu":
        _spare_threads(network)
    name = folder.resolve().name if not revision else settings.model
    identity = ModelIdentity(
        name=profile.label if settings.model == TEST_MODEL else name,
        revision=revision,
        weights=weights,
        is_test_model=profile.is_test_model,
    )
    _log.info("loaded %s in %.1f s, weights sha256:%s", identity.name, time.monotonic() - began, weights)
    return GemmaModel(
        network=network,
        tokenizer=tokenizer,
        profile=profile,
        sizes=sizes,
        identity=identity,
        device=device,
        dtype=dtype,
    )


def _read(name: str, folder: Path, dtype: torch.dtype) -> tuple[Any, Any, ModelSizes]:
    """Read config, tokenizer and weights; no code that lies beside them is run, and no pickle opened."""
    here: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(folder, **here)
    except Exception as error:
        raise ConfigError(f"the model {name!r} has no config that can be read: {first_line(error)}") from error
    if not isinstance(config, Gemma3Config):
        raise ConfigError(
            f"the model {name!r} is of the kind {config.model_type!r}: only Gemma3 with a vision encoder can be used, "
            "such as google/medgemma-1.5-4b-it"
        )
    if getattr(config, "quantization_config", None) is not None:
        raise ConfigError(f"the model {name!r} is quantised, which is not supported: take the unquantised one")
    if (folder / "adapter_config.json").exists():
        # The library would add it where its package is installed, and leave it out elsewhere: two models, one hash.
        raise ConfigError(f"the model {name!r} comes with an adapter: merge it into the weights and save them as one")
    sizes = sizes_of(config)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **here)
        made: Any = Gemma3ForConditionalGeneration.from_pretrained(
            folder, **here, dtype=dtype, attn_implementation="sdpa", use_safetensors=True, output_loading_info=True
        )
        network, told = made
    except Exception as error:  # the libraries raise bare ones for what is wrong in a file
        raise ConfigError(
            f"the model {name!r} cannot be loaded from {folder}: {first_line(error)}; if its files are damaged, "
            "copy or fetch them again"
        ) from error
    # The library would fill these with random numbers and go on.
    if absent := sorted(told["missing_keys"]):
        raise ConfigError(f"the model {name!r} lacks {len(absent)} weights, such as {absent[0]}: it is not whole")
    _check_tokenizer(name, tokenizer, config)
    return network, tokenizer, sizes


def _check_tokenizer(name: str, tokenizer: Any, config: Gemma3Config) -> None:
    for role, expected in (("boi", None), ("eoi", None), ("image", config.image_token_id)):
        token = getattr(tokenizer, f"{role}_token", None)
        number = tokenizer.convert_tokens_to_ids(token) if token else None
        if number is None or number == tokenizer.unk_token_id or expected not in (None, number):
            raise ConfigError(
                f"the tokenizer of the model {name!r} has no {role}_token, or not the config's: its tokenizer files "
                "are of another model"
            )
    if not tokenizer.chat_template:
        raise ConfigError(f"the model {name!r} has no chat template: an instruction-tuned one is needed, such as …-it")


def _stamps(folder: Path) -> tuple[Any, ...]:
    """Tell files that were replaced meanwhile from those that are loaded."""
    return tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in weight_files(folder))


def _spare_threads(network: Any) -> None:
    """Let a small model work in one thread, unless ``OMP_NUM_THREADS`` says how many.

    Threads that wait for each other many times a token cost it little on an idle machine, and on a busy one tens of
    times what they save.
    """
    if "OMP_NUM_THREADS" not in os.environ and sum(weight.numel() for weight in network.parameters()) < _SMALL:
        torch.set_num_threads(1)


def _keep_quiet() -> None:
    """Take the library's progress bars and advice out of the log; what goes wrong there comes as an exception."""
    library_log.set_verbosity_error()
    library_log.disable_progress_bar()


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type != "cuda":
        return device
    if torch.version.cuda is None and torch.version.hip is None:
        raise ConfigError(
            f"there is no device {name!r} here: this build of torch ({torch.__version__}) is for CPUs; use "
            'device = "cpu", or install a build for GPUs (https://pytorch.org/get-started/locally)'
        )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        raise ConfigError(f'there is no device {name!r} here: torch sees {count} GPUs; use device = "cpu" or "auto"')
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
