"""What is on disk is loaded without the network; what is not is asked for, or refused with what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from m3node.gemma import files
from m3node.gemma.loading import load_model
from saved_gemma import COMMIT, HUB_NAME, forbid_network, put_into_hub, refusal, save, settings


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models"))


@pytest.fixture
def hub(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache of this machine with the model in it; returns its snapshot."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return put_into_hub(saved, tmp_path / "hub")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    return forbid_network(monkeypatch)


def test_a_folder_is_loaded_without_the_network(saved: Path, no_network: list[Any]) -> None:
    model = load_model(settings(saved))
    assert model.identity.name == "tiny-gemma"
    assert model.identity.revision == ""
    assert model.dtype is torch.float32
    assert model.network.config.get_text_config()._attn_implementation == "sdpa"
    assert not model.network.training
    assert not any(weight.requires_grad for weight in model.network.parameters())
    assert no_network == []


def test_a_model_of_the_hub_that_is_on_disk_is_loaded_without_the_network(hub: Path, no_network: list[Any]) -> None:
    model = load_model(settings(HUB_NAME))
    assert (model.identity.name, model.identity.revision) == (HUB_NAME, COMMIT)
    assert load_model(settings(HUB_NAME, revision=COMMIT)).identity == model.identity
    assert no_network == []


def test_a_model_that_is_neither_on_disk_nor_to_be_reached(hub: Path, no_network: list[Any]) -> None:
    said = refusal("someone/other-model")
    assert "is not on this disk, and the hub cannot be reached" in said
    assert "copy its files into a folder" in said
    assert no_network != []


def test_a_revision_that_is_not_on_disk_is_asked_for(hub: Path, no_network: list[Any]) -> None:
    assert "cannot be reached" in refusal(HUB_NAME, revision="v2")


def test_a_half_fetched_model_of_the_hub_is_not_taken_for_a_whole_one(hub: Path, no_network: list[Any]) -> None:
    (hub / "model.safetensors").unlink()
    said = refusal(HUB_NAME)
    assert no_network != []  # it was asked for the rest
    assert "if a download was cut off, try with a network" in said


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            GatedRepoError,
            "is gated: accept its terms at https://huggingface.co/google/medgemma-1.5-4b-it and set HF_TOKEN",
        ),
        (RepositoryNotFoundError, "the hub has no model"),
        (RevisionNotFoundError, "has no revision 'v7'"),
    ],
)
def test_what_the_hub_refuses_says_what_to_do(
    kind: type[Exception], expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer = httpx2.Response(403, request=httpx2.Request("GET", "https://huggingface.co"))

    def refuse(*_: Any, local_files_only: bool = False, **__: Any) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("not here")
        raise kind("no", response=answer)  # type: ignore[call-arg]

    monkeypatch.setattr(files, "snapshot_download", refuse)
    assert expected in refusal("google/medgemma-1.5-4b-it", revision="v7")


def test_a_full_disk_is_called_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: Any, local_files_only: bool = False, **__: Any) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("not here")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "snapshot_download", fill)
    assert "the disk is too full" in refusal("google/medgemma-1.5-4b-it")


@pytest.mark.parametrize("name", ["/no/such/folder", "./none", "~/none-of-that-name", "a/b/c", r"C:\models"])
def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(name: str, no_network: list[Any]) -> None:
    assert "there is no folder" in refusal(name)
    assert "there is no folder" in refusal(name, profile="")
    assert no_network == []


def test_a_name_that_cannot_be_one(no_network: list[Any]) -> None:
    assert "neither a folder nor a model's name" in refusal("some one/model")
    assert no_network == []


def test_nothing_is_fetched_for_which_there_is_no_profile(no_network: list[Any]) -> None:
    assert "name one in detector.medgemma.profile" in refusal("google/gemma-3-4b-it", profile="")
    assert no_network == []
