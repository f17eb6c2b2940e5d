"""What is known of a model beside its own config: how it is asked, steered and read. One small folder a profile."""

from __future__ import annotations

import fnmatch
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from m3node.errors import ConfigError

_FILE = "profile.toml"


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """How a model is used.

    Attributes
    ----------
    name : str
        Name of the profile, as in the settings.
    label : str
        What reports call the model.
    is_test_model : bool
        It proves the path and nothing about medicine; every place that names it says so.
    models : tuple of str
        Patterns of hub names or folder names that it fits.
    system : str
        System instruction; none when empty.
    slice_prompt, crop_prompt : str
        The question for a whole slice, and for a crop.
    image_first : bool
        The image stands before the text. Its keys then cannot see the question.
    thinking : tuple of str
        Token that opens the thinking text and the one that closes it; empty without thinking.
    steered_layers : tuple of int
        First and last layer of the vision encoder that is steered, from 0, both included.
    read_layers : tuple of int
        Language layers whose attention is read; the global ones when empty.
    max_new_tokens : int
        Longest answer.
    """

    name: str
    label: str
    is_test_model: bool
    models: tuple[str, ...]
    system: str
    slice_prompt: str
    crop_prompt: str
    image_first: bool
    thinking: tuple[str, str] | tuple[()]
    steered_layers: tuple[int, int]
    read_layers: tuple[int, ...]
    max_new_tokens: int


def profile_names() -> tuple[str, ...]:
    """Return the names of the profiles in the package, sorted."""
    return tuple(sorted(folder.name for folder in files(__package__).joinpath("profiles").iterdir() if folder.is_dir()))


def load_profile(name: str) -> ModelProfile:
    """Read a profile of the package by its name, or one's own from a folder.

    Raises
    ------
    ConfigError
        There is none, or it cannot be used.
    """
    own = Path(name)
    folder: Any = own if own.is_dir() else files(__package__).joinpath("profiles", name)
    try:
        tree = tomllib.loads((folder / _FILE).read_text(encoding="utf-8"))
        slice_prompt, crop_prompt = (
            (folder / f"{view}.txt").read_text(encoding="utf-8").strip() for view in ("slice", "crop")
        )
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in tree.items()
        }
        return ModelProfile(name=folder.name, slice_prompt=slice_prompt, crop_prompt=crop_prompt, **fields)
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(profile_names())
        raise ConfigError(f"there is no model profile {name!r}: known are {known}, or a folder with {_FILE}") from error
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise ConfigError(f"the model profile {name!r} cannot be used: {error}") from error


def profile_for(model: str) -> ModelProfile:
    """Find the profile whose patterns fit a hub name or the name of a folder.

    Raises
    ------
    ConfigError
        None fits.
    """
    for name in profile_names():
        profile = load_profile(name)
        if any(fnmatch.fnmatch(model.rstrip("/").lower(), pattern) for pattern in profile.models):
            return profile
    raise ConfigError(
        f"no model profile fits {model!r}: name one in detector.medgemma.profile ({', '.join(profile_names())})"
    )
