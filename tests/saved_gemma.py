"""A small Gemma3 with random weights on disk, as the library saves it, to be loaded, damaged and looked for."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from m3node.errors import ConfigError
from m3node.gemma.loading import load_model
from m3node.settings import ModelSettings
from small_gemma import small_gemma

HUB_NAME = "someone/medgemma-1.5-tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def save(folder: Path) -> Path:
    """Save it into a folder of its own."""
    folder = folder / "tiny-gemma"
    small_gemma().network.save_pretrained(folder)
    small_gemma().tokenizer.save_pretrained(folder)
    return folder


def put_into_hub(saved: Path, cache: Path) -> Path:
    """Make a cache of the hub with the model in it; return the model's snapshot there."""
    repository = cache / f"models--{HUB_NAME.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(saved, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return snapshot


def forbid_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Forbid connections and look-ups, and note them; the libraries' own offline switches are off."""
    asked: list[Any] = []

    def refuse(*arguments: Any, **_: Any) -> Any:
        asked.append(arguments)
        raise OSError("no network in this test")

    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    assert not constants.is_offline_mode()
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return asked


def settings(model: Path | str, **more: Any) -> ModelSettings:
    return ModelSettings(model=str(model), **{"profile": "test", "device": "cpu"} | more)


def refusal(model: Path | str, **more: Any) -> str:
    """What is said of a model that is not loaded."""
    with pytest.raises(ConfigError) as caught:
        load_model(settings(model, **more))
    return str(caught.value)


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    tree = json.loads(path.read_text(encoding="utf-8"))
    change(tree)
    path.write_text(json.dumps(tree), encoding="utf-8")
