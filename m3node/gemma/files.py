"""Where a model's files lie, whether they are all there, and the hash of its weights."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import disable_progress_bars

from m3node.errors import ConfigError
from m3node.settings import ModelSettings

_log = logging.getLogger(__name__)

# Below the hub's library; at INFO it writes every request's address, signatures included.
_TRANSPORT = "httpx2"

TEST_MODEL = "test"
TEST_FOLDER = Path(__file__).parent / "test_model"

_CONFIG = "config.json"
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_TOKENIZER = ("tokenizer.json", "tokenizer.model")
# No pickles, no code: what is not asked for is not fetched either.
_WANTED = ("*.json", "*.safetensors", "*.model", "*.jinja")


def model_folder(settings: ModelSettings) -> tuple[Path, str]:
    """Return where the model's files lie, and the hub's commit; empty for a folder of one's own.

    What is on disk is taken without asking the network; only what is not there, or not whole, is fetched.

    Raises
    ------
    ConfigError
        There is no such folder, its files are not whole, or the hub does not give them.
    """
    own = own_folder(settings.model)
    if own is not None:
        return own, ""
    folder = _on_disk(settings) or _fetch(settings)
    if lack := what_is_missing(folder):
        raise ConfigError(
            f"the model {settings.model!r} cannot be used: {lack}; if a download was cut off, try with a network"
        )
    return folder, folder.name


def own_folder(name: str) -> Path | None:
    """Return the folder that a name stands for; None when it is a name on the hub.

    Raises
    ------
    ConfigError
        It can only be a folder, and there is none, or its files are not whole.
    """
    own = TEST_FOLDER if name == TEST_MODEL else Path(name).expanduser()
    if own.is_dir():
        if lack := what_is_missing(own):
            raise ConfigError(f"the model's folder {own} is not whole: {lack}; copy it again")
        return own
    if name == TEST_MODEL:
        raise ConfigError("this package has no test model: it was built without its weights (m3node/gemma/test_model)")
    if own.is_file():
        raise ConfigError(f"the model {name!r} is a file; name the folder that holds it and its {_CONFIG}")
    if name.startswith(("/", ".", "~")) or name.count("/") > 1 or "\\" in name:
        raise ConfigError(f"there is no folder {own} to load a model from (detector.medgemma.model)")
    return None


def what_is_missing(folder: Path) -> str:
    """Say which of a model's files is not there; empty when all are."""
    if not (folder / _CONFIG).is_file():
        return f"there is no {_CONFIG}"
    if not any((folder / name).is_file() for name in _TOKENIZER):
        return f"there is no {' or '.join(_TOKENIZER)}"
    try:
        files = weight_files(folder)
    except ConfigError as error:
        return str(error)
    for path in files:
        if not path.is_file() or path.stat().st_size == 0:
            return f"{path.name} is missing or empty"
    return ""


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the files that hold the weights, sorted by name: one, or the shards that the index names.

    Raises
    ------
    ConfigError
        There are no weights in the safetensors format, or the index cannot be read.
    """
    if (folder / _SINGLE).is_file():
        return (folder / _SINGLE,)
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        names = sorted({str(name) for name in index["weight_map"].values()})
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no {_SINGLE} and no {_INDEX}; weights in other formats are not read, since they may hold code"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{_INDEX} cannot be read") from error
    if not names or any(Path(name).name != name for name in names):
        raise ConfigError(f"{_INDEX} names no files beside it")
    return tuple(folder / name for name in names)


def weights_digest(folder: Path) -> str:
    """SHA-256 over the weight files, their names and contents.

    Read anew each time: a digest that is remembered beside a file says what once lay there. Half a gigabyte a second
    or more for each file, several files at once.
    """
    files = weight_files(folder)
    with ThreadPoolExecutor(max_workers=min(4, len(files)), thread_name_prefix="weights") as pool:
        digests = list(pool.map(_digest, files))
    return _together(files, digests)


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _together(files: Sequence[Path], digests: Sequence[bytes]) -> str:
    whole = hashlib.sha256()
    for path, digest in zip(files, digests, strict=True):
        whole.update(path.name.encode())
        whole.update(digest)
    return whole.hexdigest()


def _arguments(settings: ModelSettings) -> dict[str, Any]:
    return {"repo_id": settings.model, "revision": settings.revision or None, "allow_patterns": _WANTED}


def _on_disk(settings: ModelSettings) -> Path | None:
    """Return the hub's snapshot in the cache of this machine; None when it is not there, or half of it."""
    try:
        folder = Path(snapshot_download(local_files_only=True, **_arguments(settings)))
    except HFValidationError as error:
        raise ConfigError(f"{settings.model!r} is neither a folder nor a model's name on the hub") from error
    except (LocalEntryNotFoundError, OSError):
        return None
    # Without the hub's own listing, an interrupted download of an older version looks like a whole one.
    return None if what_is_missing(folder) else folder


def _fetch(settings: ModelSettings) -> Path:
    name = settings.model
    _log.info("fetching the model %s", name)
    logging.getLogger(_TRANSPORT).setLevel(logging.WARNING)
    page = f"https://huggingface.co/{name}"
    folder = "or copy its files into a folder and name that (detector.medgemma.model, --model)"
    try:
        # A person at a terminal sees the bars; a log gets the one line above.
        with nullcontext() if sys.stderr.isatty() else disable_progress_bars():
            return Path(snapshot_download(**_arguments(settings)))
    except GatedRepoError as error:
        raise ConfigError(
            f"the model {name!r} is gated: accept its terms at {page} and set HF_TOKEN to a token of that account "
            f"(or run 'hf auth login'); {folder}"
        ) from error
    except RevisionNotFoundError as error:
        raise ConfigError(
            f"the model {name!r} has no revision {settings.revision!r} (detector.medgemma.revision)"
        ) from error
    except RepositoryNotFoundError as error:
        raise ConfigError(
            f"the hub has no model {name!r}, or shows it to its owners only: check the name; where it is private, set "
            f"HF_TOKEN; {folder}"
        ) from error
    except IncompleteSnapshotError as error:
        raise ConfigError(
            f"only a part of the model {name!r} is on this disk, and the hub cannot be reached for the rest: try again "
            f"with a network; {folder}"
        ) from error
    except LocalEntryNotFoundError as error:
        raise ConfigError(
            f"the model {name!r} is not on this disk, and the hub cannot be reached: run 'm3node model check' once "
            f"with a network; {folder}"
        ) from error
    except Exception as error:  # the transfer libraries below have errors of their own kinds
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise ConfigError(f"the disk is too full for the model {name!r}; HF_HOME says where it goes") from error
        raise ConfigError(f"the model {name!r} cannot be fetched: {first_line(error)}; {folder}") from error


def first_line(error: Exception) -> str:
    """Return what an error of a library says, without the advice that follows."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
