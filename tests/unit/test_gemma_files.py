"""Files that are damaged, missing or of something else are refused with a sentence that says which, and what to do."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from m3node.gemma.files import weight_files, weights_digest, what_is_missing
from m3node.gemma.loading import load_model
from saved_gemma import edit_json, refusal, save, settings


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models"))


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """A copy of it to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "tiny-gemma"))


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


def test_shards_come_by_their_names(tmp_path: Path) -> None:
    """A digest of them in another order would be another model's."""
    names = [f"model-{number:05}-of-00009.safetensors" for number in range(1, 10)]
    where = {f"weight {at}": name for at, name in enumerate(reversed(names))}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    assert [path.name for path in weight_files(tmp_path)] == names


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
    assert ("model.safetensors is missing or empty" in said) == (damage == "empty")


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


def test_a_tokenizer_that_takes_its_image_tokens_for_unknown_words(copy: Path) -> None:
    """They are named, and the vocabulary has them not: every one would be the same token."""
    tree = json.loads((copy / "tokenizer.json").read_text(encoding="utf-8"))
    tree["added_tokens"] = [token for token in tree["added_tokens"] if token["content"] != "<end_of_image>"]
    (copy / "tokenizer.json").write_text(json.dumps(tree), encoding="utf-8")
    edit_json(copy / "tokenizer_config.json", lambda tree: tree.update(unk_token="<end_of_image>"))
    assert "has no eoi_token, or not the config's" in refusal(copy)


def test_a_tokenizer_whose_image_token_is_not_the_configs(copy: Path) -> None:
    edit_json(copy / "config.json", lambda tree: tree.update(image_token_index=9, image_token_id=9))
    assert "or not the config's" in refusal(copy)


def test_a_model_without_a_chat_template(copy: Path) -> None:
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    edit_json(copy / "tokenizer_config.json", lambda tree: tree.pop("chat_template", None))
    assert "has no chat template" in refusal(copy)
