"""A model is in a process once, as it was saved, and on the device and in the numbers that were asked for."""

from __future__ import annotations

import gc
import hashlib
import os
import shutil
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from m3node.detectors.medgemma import MedGemmaDetector
from m3node.errors import ConfigError
from m3node.gemma import loading
from m3node.gemma.files import weights_digest
from m3node.gemma.loading import load_model
from m3node.gemma.model import GemmaModel
from m3node.settings import MedGemmaSettings
from saved_gemma import refusal, save, settings
from small_gemma import small_gemma


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models"))


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """A copy of it to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "tiny-gemma"))


def test_the_weights_are_those_that_were_saved(saved: Path) -> None:
    loaded = load_model(settings(saved)).network.state_dict()
    expected = small_gemma().network.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_a_folder_that_no_profile_fits_asks_for_one(saved: Path) -> None:
    assert "name one in detector.medgemma.profile" in refusal(saved, profile="")


def test_a_device_that_is_not_there(saved: Path) -> None:
    said = refusal(saved, device="cuda:17")
    assert "there is no device 'cuda:17' here" in said
    assert 'use device = "cpu"' in said


def test_gpus_are_counted_from_nought(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with one."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert "there is no device 'cuda:1' here: torch sees 1 GPUs" in refusal(saved, device="cuda:1")
    for name in ("cuda:0", "cuda", "auto"):
        device = loading._device(name)
        assert (device.type, device.index or 0) == ("cuda", 0)
        assert loading._dtype("auto", device) is torch.bfloat16
        assert loading._dtype("float32", device) is torch.float32


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
    short, other = load_model(settings(saved, dtype="bfloat16")), load_model(settings(saved, profile="medgemma-1.5"))
    assert (short.dtype, first.dtype) == (torch.bfloat16, torch.float32)
    assert (other.profile.name, first.profile.name) == ("medgemma-1.5", "test")


@pytest.mark.parametrize(("told", "spared"), [(None, [1]), ("2", [])])
def test_a_small_model_works_in_one_thread_unless_told_otherwise(
    told: str | None, spared: list[int], copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if told is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    load_model(settings(copy))
    assert asked == spared
    monkeypatch.setattr(loading, "_SMALL", 1000)
    os.utime(copy / "model.safetensors", ns=(1, 1))  # so that it is loaded anew
    load_model(settings(copy))
    assert asked == spared


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
        "from m3node.gemma.loading import load_model\nfrom m3node.settings import ModelSettings\n"
        f"load_model(ModelSettings(model={str(saved)!r}, profile='test', device='cpu'))\n"
        "from huggingface_hub import constants\nassert constants.HF_HUB_DISABLE_TELEMETRY\n"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    assert (told.stdout, told.stderr) == ("", "")
