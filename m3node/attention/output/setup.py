"""What all results of a run depend on, beside question and image: model, plan, terms, and how the body is found."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from m3node import __version__
from m3node.attention.reading.plan import ReadingPlan
from m3node.gemma.model import GemmaModel

TEST_MODEL_MARK = "A test model answered: it shows that everything runs, and means nothing medically."


@dataclass(frozen=True, slots=True)
class Setup:
    """How questions are asked.

    Attributes
    ----------
    model : dict
        Name, revision, weights, profile, type of number, and whether it is a test model, as JSON holds it.
    plan : ReadingPlan
        How attention is read.
    terms : str
        SHA-256 of the list of medical terms.
    body : str
        What the body is looked for by.
    """

    model: dict[str, Any]
    plan: ReadingPlan
    terms: str
    body: str

    @classmethod
    def of(cls, model: GemmaModel, plan: ReadingPlan, terms: Sequence[str], body: str) -> Setup:
        """Describe a loaded model and how it is to be asked; ``terms`` are those of the list, as they are written."""
        who = model.identity
        told = {
            "name": who.name,
            "revision": who.revision,
            "weights": f"sha256:{who.weights}",
            "profile": model.profile.name,
            "is_test_model": who.is_test_model or model.profile.is_test_model,
            "dtype": str(model.dtype).removeprefix("torch."),
            "image_first": model.profile.image_first,
        }
        return cls(told, plan, hashlib.sha256("\n".join(terms).encode()).hexdigest(), body)

    @property
    def label(self) -> str:
        """Name the model in a table; a test model never goes by its name alone."""
        name, revision = self.model["name"], self.model["revision"]
        label = f"{name} @ {revision[:12]}" if revision else str(name)
        return f"{label} (a test model)" if self.model["is_test_model"] and "test model" not in label else label

    @property
    def marks(self) -> tuple[str, ...]:
        """Sentences that every picture and report carries beside the notices."""
        return (TEST_MODEL_MARK,) if self.model["is_test_model"] else ()

    @property
    def basis(self) -> dict[str, Any]:
        """What a result depends on, as its record holds it."""
        return {
            "software": __version__,
            "model": self.model,
            "plan": asdict(self.plan),
            "terms": self.terms,
            "body": self.body,
        }
