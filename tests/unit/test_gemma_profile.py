"""A profile is taken whole and right, or refused with the key that is wrong."""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from m3node.errors import ConfigError
from m3node.gemma.profile import load_profile, profile_for, profile_names

PACKAGED = Path(str(files("m3node.gemma"))) / "profiles"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A profile of one's own, to be changed."""
    return Path(shutil.copytree(PACKAGED / "medgemma-1.5", tmp_path / "hospital"))


def refusal(name: Path | str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_profile(str(name))
    return str(caught.value)


def replace(folder: Path, old: str, new: str) -> None:
    path = folder / "profile.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_every_profile_of_the_package_can_be_used() -> None:
    assert profile_names() == ("medgemma-1", "medgemma-1.5", "test")
    for name in profile_names():
        assert load_profile(name).name == name


@pytest.mark.parametrize(
    ("model", "profile"),
    [
        ("google/medgemma-1.5-4b-it", "medgemma-1.5"),
        ("/models/MedGemma-1.5-4B-it/", "medgemma-1.5"),
        ("google/medgemma-4b-it", "medgemma-1"),
        ("google/medgemma-27b-it", "medgemma-1"),
        ("/data/medgemma-4b-and-others/medgemma-1.5-4b-it", "medgemma-1.5"),
        ("/models/medgemma-1.5-4b-it/snapshot", "medgemma-1.5"),
        ("test", "test"),
        ("somewhere/test_model", "test"),
    ],
)
def test_the_profile_is_found_by_the_models_name(model: str, profile: str) -> None:
    assert profile_for(model).name == profile


@pytest.mark.parametrize("model", ["google/gemma-3-4b-it", "/models/our-latest_model", "contest"])
def test_a_model_that_no_profile_fits_gets_none(model: str) -> None:
    with pytest.raises(ConfigError, match=r"name one in detector\.medgemma\.profile \(medgemma-1, "):
        profile_for(model)


def test_only_the_test_profile_is_one() -> None:
    assert [name for name in profile_names() if load_profile(name).is_test_model] == ["test"]
    assert "not MedGemma" in load_profile("test").label


@pytest.mark.parametrize("name", ["medgemma-1", "medgemma-1.5"])
@pytest.mark.parametrize("view", ["slice", "crop"])
def test_the_questions_ask_for_what_the_parser_reads(name: str, view: str) -> None:
    text = getattr(load_profile(name), f"{view}_prompt")
    for part in ("[y0, x0, y1, x1]", "[0, 1000]", '"box_2d"', "```json[]```", "Final Answer:"):
        assert part in text
    # An example with numbers that is said after would be a lesion that nobody saw.
    assert '"box_2d": [y0' in text


def test_whoever_wants_its_own_names_a_folder(own: Path) -> None:
    (own / "crop.txt").write_text("Where?\n", encoding="utf-8")
    profile = load_profile(str(own))
    assert (profile.name, profile.crop_prompt) == ("hospital", "Where?")
    assert profile.steered_layers == (14, 26)


def test_a_single_layer_may_be_steered(own: Path) -> None:
    replace(own, "steered_layers = [14, 26]", "steered_layers = [14, 14]")
    assert load_profile(str(own)).steered_layers == (14, 14)


def test_a_folder_of_the_same_name_does_not_hide_the_packages(
    own: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own.rename(tmp_path / "test")
    monkeypatch.chdir(tmp_path)
    assert load_profile("test").is_test_model


@pytest.mark.parametrize("name", ["none", "../profiles/test", "", "/etc/passwd"])
def test_a_profile_that_is_not_there(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert "profile" in refusal(name)


@pytest.mark.parametrize("gone", ["profile.toml", "slice.txt", "crop.txt"])
def test_a_file_that_is_missing_is_named(own: Path, gone: str) -> None:
    (own / gone).unlink()
    assert f"{gone} is missing" in refusal(own)


def test_a_question_that_is_empty(own: Path) -> None:
    (own / "crop.txt").write_text(" \n")
    assert "crop.txt is empty" in refusal(own)


def test_bytes_that_are_no_text(own: Path) -> None:
    (own / "slice.txt").write_bytes(b"\xff\xfe\x00")
    assert "slice.txt is missing, or no UTF-8 text" in refusal(own)


def test_a_file_that_is_no_toml(own: Path) -> None:
    (own / "profile.toml").write_text("label = ", encoding="utf-8")
    assert "profile.toml is no TOML" in refusal(own)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("label", "labell", "label"),
        ('label = "MedGemma 1.5"', 'label = ""', "label"),
        ("is_test_model = false", 'is_test_model = "no"', "is_test_model"),
        ("is_test_model = false", "is_test_model = 0", "is_test_model"),
        ('models = ["*medgemma-1.5*"]', 'models = "medgemma"', "models"),
        ("image_first = true", "image_first = 1", "image_first"),
        ('thinking = ["<unused94>", "<unused95>"]', 'thinking = ["<unused94>"]', "thinking"),
        ("steered_layers = [14, 26]", "steered_layers = [14]", "steered_layers"),
        ("steered_layers = [14, 26]", "steered_layers = [26, 14]", "steered_layers"),
        ("steered_layers = [14, 26]", "steered_layers = [-1, 26]", "steered_layers.0"),
        ("steered_layers = [14, 26]", 'steered_layers = ["14", "26"]', "steered_layers.0"),
        ("steered_layers = [14, 26]", "steered_layers = [14, 1000]", "steered_layers.1"),
        ("read_layers = []", "read_layers = [5, 5]", "read_layers"),
        ("read_layers = []", "read_layers = [true]", "read_layers.0"),
        ("max_new_tokens = 1000", "max_new_tokens = 0", "max_new_tokens"),
        ("max_new_tokens = 1000", "max_new_tokens = 8193", "max_new_tokens"),
        ("max_new_tokens = 1000", "max_new_tokens = 1e3", "max_new_tokens"),
        ("max_new_tokens = 1000", "max_new_tokens = 1000\ntemperature = 1", "temperature"),
    ],
)
def test_a_key_that_is_wrong_is_named(own: Path, old: str, new: str, key: str) -> None:
    replace(own, old, new)
    said = refusal(own)
    assert f"profile.toml: {key}" in said
