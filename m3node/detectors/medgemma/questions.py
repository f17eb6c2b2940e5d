"""What the model is asked of a view, as token ids."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from m3node.detectors.protocols import View
from m3node.errors import ConfigError
from m3node.gemma.model import GemmaModel
from m3node.gemma.prompts import prompt_ids
from m3node.settings import MedGemmaSettings


@dataclass(frozen=True, slots=True)
class Questions:
    """The two questions.

    Attributes
    ----------
    crop, whole : tuple of int
        Prompt for a crop of the liver, and for a whole slice.
    digests : tuple of str
        SHA-256 of the two questions' text: they change the answers.
    """

    crop: tuple[int, ...]
    whole: tuple[int, ...]
    digests: tuple[str, str]

    def about(self, view: View) -> tuple[int, ...]:
        """Return the prompt for a view."""
        return self.whole if view.whole else self.crop


def make_questions(model: GemmaModel, settings: MedGemmaSettings) -> Questions:
    """Take the profile's questions, or those of the files that the settings name.

    Raises
    ------
    ConfigError
        A file cannot be read or is empty, or a question holds one of the model's special tokens.
    """
    crop = _text(settings.crop_prompt_file, model.profile.crop_prompt, "crop_prompt_file")
    whole = _text(settings.slice_prompt_file, model.profile.slice_prompt, "slice_prompt_file")
    crop_digest, whole_digest = (hashlib.sha256(text.encode()).hexdigest() for text in (crop, whole))
    return Questions(
        crop=tuple(prompt_ids(model, crop)),
        whole=tuple(prompt_ids(model, whole)),
        digests=(crop_digest, whole_digest),
    )


def _text(path: Path | None, default: str, setting: str) -> str:
    if path is None:
        return default
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"detector.medgemma.{setting}: {path} cannot be read: {error}") from error
    if not text:
        raise ConfigError(f"detector.medgemma.{setting}: {path} is empty")
    return text
