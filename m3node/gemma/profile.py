"""What is known of a model beside its own config: how it is asked, steered and read. One small folder a profile."""

from __future__ import annotations

import fnmatch
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from m3node.errors import ConfigError

_FILE = "profile.toml"

Words = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
LayerNumber = Annotated[int, Field(ge=0, le=999, strict=True)]


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


class _ProfileFile(BaseModel):
    """What ``profile.toml`` holds: every key, of its own type, and no other."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: Words
    is_test_model: Annotated[bool, Field(strict=True)]
    models: tuple[Words, ...]
    system: str
    image_first: Annotated[bool, Field(strict=True)]
    thinking: tuple[Words, Words] | tuple[()]
    steered_layers: tuple[LayerNumber, LayerNumber]
    read_layers: tuple[LayerNumber, ...]
    max_new_tokens: Annotated[int, Field(ge=1, le=8192, strict=True)]

    @field_validator("steered_layers")
    @classmethod
    def _ordered(cls, layers: tuple[int, int]) -> tuple[int, int]:
        if layers[0] > layers[1]:
            raise ValueError("the first layer comes before the last")
        return layers

    @field_validator("read_layers")
    @classmethod
    def _once(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(layers)) < len(layers):
            raise ValueError("a layer is named twice")
        return layers


def profile_names() -> tuple[str, ...]:
    """Return the names of the profiles in the package, sorted."""
    return tuple(sorted(folder.name for folder in files(__package__).joinpath("profiles").iterdir() if folder.is_dir()))


def load_profile(name: str) -> ModelProfile:
    """Read a profile of the package by its name, or one's own from a folder.

    Parameters
    ----------
    name : str
        A name of the package goes before a folder that happens to be called the same.

    Raises
    ------
    ConfigError
        There is none, or it cannot be used.
    """
    known = profile_names()
    own = Path(name).expanduser()
    if name not in known and not own.is_dir():
        raise ConfigError(f"there is no model profile {name!r}: known are {', '.join(known)}, or a folder with {_FILE}")
    folder: Any = files(__package__).joinpath("profiles", name) if name in known else own
    try:
        held = _ProfileFile.model_validate(tomllib.loads(_text(folder, _FILE)))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the model profile {name!r}: {_FILE} is no TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"the model profile {name!r}: {_FILE}: {_first(error)}") from error
    return ModelProfile(
        name=folder.resolve().name if folder is own else name,
        slice_prompt=_prompt(folder, "slice.txt"),
        crop_prompt=_prompt(folder, "crop.txt"),
        **dict(held),
    )


def profile_for(model: str) -> ModelProfile:
    """Find the profile whose patterns fit a hub name or the name of a folder.

    Raises
    ------
    ConfigError
        None fits.
    """
    profiles = [load_profile(name) for name in profile_names()]
    whole = model.rstrip("/").lower()
    # Its own name first: a folder above it may be called after another model.
    for called in (whole.rpartition("/")[2], whole):
        for profile in profiles:
            if any(fnmatch.fnmatchcase(called, pattern.lower()) for pattern in profile.models):
                return profile
    raise ConfigError(
        f"no model profile fits {model!r}: name one in detector.medgemma.profile ({', '.join(profile_names())}), or a "
        "folder with one of your own"
    )


def _prompt(folder: Any, file: str) -> str:
    if text := _text(folder, file).strip():
        return text
    raise ConfigError(f"the model profile {folder.name!r}: {file} is empty")


def _text(folder: Any, file: str) -> str:
    try:
        text: str = (folder / file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the model profile {folder.name!r}: {file} is missing, or no UTF-8 text") from error
    return text


def _first(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False)
    place = ".".join(str(part) for part in found[0]["loc"])
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{place}: {found[0]['msg']}{more}"
