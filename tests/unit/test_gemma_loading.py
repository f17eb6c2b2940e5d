"""A model is loaded from what is on disk; what cannot be loaded is refused with a sentence that says what to do."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
from safetensors.torch import load_file, save_file

from m3node.detectors.medgemma import MedGemmaDetector
from m3node.errors import ConfigError
from m3node.gemma import files, loading
from m3node.gemma.files import weights_digest, what_is_missing
from m3node.gemma.loading import load_model
from m3node.gemma.model import GemmaModel
from m3node.settings import MedGemmaSettings, ModelSettings
from small_gemma import small_gemma

HUB_NAME = "someone/medgemma-1.5-tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with random weights, as the library saves it."""
    folder = tmp_path_factory.mktemp("models") / "tiny-gemma"
    small_gemma().network.save_pretrained(folder)
    small_gemma().tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """A copy of it to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "tiny-gemma"))


@pytest.fixture
def hub(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache of this machine with the model in it; returns its snapshot."""
    cache = tmp_path / "hub"
    repository = cache / f"models--{HUB_NAME.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(saved, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    return snapshot


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Forbid and count connections and look-ups; the libraries' own offline switches are off."""
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
    with pytest.raises(ConfigError) as caught:
        load_model(settings(model, **more))
    return str(caught.value)


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    tree = json.loads(path.read_text(encoding="utf-8"))
    change(tree)
    path.write_text(json.dumps(tree), encoding="utf-8")


def test_a_folder_is_loaded_without_the_network(saved: Path, no_network: list[Any]) -> None:
    model = load_model(settings(saved))
    assert model.identity.name == "tiny-gemma"
    assert model.identity.revision == ""
    assert model.dtype is torch.float32
    assert not model.network.training
    assert not any(weight.requires_grad for weight in model.network.parameters())
    assert no_network == []


def test_the_weights_are_those_that_were_saved(saved: Path) -> None:
    loaded = load_model(settings(saved)).network.state_dict()
    expected = small_gemma().network.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


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


def test_a_file_is_no_folder(saved: Path) -> None:
    assert "is a file; name the folder" in refusal(saved / "model.safetensors")


@pytest.mark.parametrize(
    ("gone", "expected"),
    [
        ("config.json", "there is no config.json"),
        ("tokenizer.json", "there is no tokenizer.json"),
        ("model.safetensors", "there is no model.safetensors"),
    ],
)
def test_a_half_copied_folder_says_which_file_is_missing(copy: Path, gone: str, expected: str) -> None:
    (copy / gone).unlink()
    said = refusal(copy)
    assert expected in said
    assert "copy it again" in said


def test_a_missing_shard_is_named(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[:20], "model-00002-of-00002.safetensors": names[20:]}
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held}, copy / shard, metadata={"format": "pt"})
    where = {name: shard for shard, held in shards.items() for name in held}
    (copy / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    assert load_model(settings(copy)).identity.weights == weights_digest(copy)
    (copy / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors is missing" in refusal(copy)


@pytest.mark.parametrize("index", ["", "[]", '{"weight_map": {}}', '{"weight_map": {"a": "../other.safetensors"}}'])
def test_an_index_that_cannot_be_followed(copy: Path, index: str) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors.index.json").write_text(index)
    assert "model.safetensors.index.json" in what_is_missing(copy)


@pytest.mark.parametrize("damage", ["cut", "header", "empty"])
def test_damaged_weights(copy: Path, damage: str) -> None:
    path = copy / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(
        {"cut": whole[: len(whole) // 2], "header": struct.pack("<Q", 1 << 60) + whole[8:], "empty": b""}[damage]
    )
    said = refusal(copy)
    assert "copy" in said
    assert "again" in said


def test_weights_that_are_missing_are_not_made_up(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    del tensors[max(tensors)]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert "lacks 1 weights" in refusal(copy)


def test_a_pickle_is_not_opened(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    assert "they may hold code" in refusal(copy)


def test_code_that_lies_beside_a_model_is_not_run(copy: Path) -> None:
    (copy / "evil.py").write_text(f"open({str(copy / 'ran')!r}, 'w')\nclass Config: pass\n")
    edit_json(copy / "config.json", lambda tree: tree.update(model_type="evil", auto_map={"AutoConfig": "evil.Config"}))
    assert "has no config that can be read" in refusal(copy)
    assert not (copy / "ran").exists()


def test_a_model_of_another_kind(copy: Path) -> None:
    (copy / "config.json").write_text('{"model_type": "llama"}')
    assert "is of the kind 'llama': only Gemma3 with a vision encoder" in refusal(copy)


def test_a_gemma3_that_cannot_see(copy: Path) -> None:
    edit_json(copy / "config.json", lambda tree: tree.update(tree.pop("text_config"), model_type="gemma3_text"))
    assert "is of the kind 'gemma3_text'" in refusal(copy)


def test_a_quantised_model(copy: Path) -> None:
    quantised = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    edit_json(copy / "config.json", lambda tree: tree.update(quantization_config=quantised))
    assert "is quantised" in refusal(copy)


def test_an_adapter_beside_the_weights(copy: Path) -> None:
    (copy / "adapter_config.json").write_text("{}")
    assert "comes with an adapter: merge it" in refusal(copy)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_json_that_is_broken(copy: Path, name: str) -> None:
    (copy / name).write_text('{"model_type": ')
    assert str(copy.name) in refusal(copy)


@pytest.mark.parametrize("role", ["boi", "eoi", "image"])
def test_a_tokenizer_that_knows_no_image(copy: Path, role: str) -> None:
    def forget(tree: dict[str, Any]) -> None:
        tree.pop(f"{role}_token", None)
        for held in ("extra_special_tokens", "model_specific_special_tokens"):
            if isinstance(tree.get(held), dict):
                tree[held].pop(f"{role}_token", None)

    edit_json(copy / "tokenizer_config.json", forget)
    assert f"has no {role}_token" in refusal(copy)


def test_a_tokenizer_whose_image_token_is_not_the_configs(copy: Path) -> None:
    edit_json(copy / "config.json", lambda tree: tree.update(image_token_index=9, image_token_id=9))
    assert "or not the config's" in refusal(copy)


def test_a_model_without_a_chat_template(copy: Path) -> None:
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    edit_json(copy / "tokenizer_config.json", lambda tree: tree.pop("chat_template", None))
    assert "has no chat template" in refusal(copy)


def test_a_folder_that_no_profile_fits_asks_for_one(saved: Path) -> None:
    assert "name one in detector.medgemma.profile" in refusal(saved, profile="")


def test_nothing_is_fetched_for_which_there_is_no_profile(no_network: list[Any]) -> None:
    assert "name one in detector.medgemma.profile" in refusal("google/gemma-3-4b-it", profile="")
    assert no_network == []


def test_a_device_that_is_not_there(saved: Path) -> None:
    said = refusal(saved, device="cuda:17")
    assert "there is no device 'cuda:17' here" in said
    assert 'use device = "cpu"' in said


def test_a_device_without_room_is_a_clear_error(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nadvice")

    monkeypatch.setattr(loading.Gemma3ForConditionalGeneration, "to", full)
    said = refusal(saved, dtype="bfloat16")
    assert "cannot be brought to cpu: CUDA out of memory. Tried to allocate 20.00 MiB.; free its memory" in said


def test_bfloat16_on_a_cpu_is_allowed_and_warned_of(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = load_model(settings(saved, dtype="bfloat16"))
    assert {weight.dtype for weight in model.network.parameters()} == {torch.bfloat16}
    assert "bfloat16 on a CPU" in caplog.text


def test_one_process_holds_one_model(saved: Path) -> None:
    first = load_model(settings(saved))
    assert load_model(settings(saved)) is first
    assert load_model(settings(saved, dtype="float32")) is first  # what auto means here


@pytest.mark.parametrize(("said", "expected"), [(None, "1"), ("2", "2")])
def test_a_small_model_works_in_one_thread_unless_told_otherwise(
    said: str | None, expected: str, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if said is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    script = f"{script_that_loads(saved)}import torch\nprint(torch.get_num_threads())\n"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    assert told.stdout.strip() == expected


def test_threads_that_load_at_once_get_the_same_one(copy: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        models = list(pool.map(lambda _: load_model(settings(copy)), range(4)))
    assert len({id(model) for model in models}) == 1


def test_layers_that_the_model_has_not_are_named(saved: Path) -> None:
    model = load_model(settings(saved, profile="medgemma-1.5"))
    with pytest.raises(ConfigError, match=r"steering\.layers: the model has layers 0 to 2 there, none of number 14"):
        MedGemmaDetector(model, MedGemmaSettings())


def test_it_is_let_go_when_nobody_holds_it(copy: Path) -> None:
    model: GemmaModel | None = load_model(settings(copy))
    assert model is not None
    held = weakref.ref(model)
    model = None
    gc.collect()
    assert held() is None


def test_files_that_were_replaced_are_loaded_anew(copy: Path) -> None:
    first = load_model(settings(copy))
    tensors = load_file(copy / "model.safetensors")
    save_file(
        {name: tensor + 1 for name, tensor in tensors.items()}, copy / "model.safetensors", metadata={"format": "pt"}
    )
    os.utime(copy / "model.safetensors", ns=(1, 1))
    second = load_model(settings(copy))
    assert second is not first
    assert second.identity.weights != first.identity.weights


def test_the_digest_covers_names_and_contents_of_the_weights(copy: Path) -> None:
    path = copy / "model.safetensors"
    content = hashlib.sha256(path.read_bytes()).digest()
    assert weights_digest(copy) == hashlib.sha256(b"model.safetensors" + content).hexdigest()
    (copy / "adapter.safetensors").write_bytes(b"never loaded")
    assert weights_digest(copy) == hashlib.sha256(b"model.safetensors" + content).hexdigest()


def test_the_test_models_weights_cannot_sign_as_another_model(
    saved: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "TEST_FOLDER", saved)
    assert load_model(settings(copy)).identity.is_test_model
    assert "these weights are the test model's" in refusal(copy, profile="medgemma-1.5")


def test_a_process_that_loads_prints_nothing_and_has_telemetry_off(saved: Path) -> None:
    script = (
        f"{script_that_loads(saved)}from huggingface_hub import constants\nassert constants.HF_HUB_DISABLE_TELEMETRY\n"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    assert (told.stdout, told.stderr) == ("", "")


def script_that_loads(folder: Path) -> str:
    return (
        "from m3node.gemma.loading import load_model\nfrom m3node.settings import ModelSettings\n"
        f"load_model(ModelSettings(model={str(folder)!r}, profile='test', device='cpu'))\n"
    )
