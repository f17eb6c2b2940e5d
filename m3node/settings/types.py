"""What settings are made of: frozen sections, and the kinds of value that many of them take."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

AETitle = Annotated[str, StringConstraints(pattern=r"^[ -\[\]-~]{1,16}$", strip_whitespace=True)]
"""One to sixteen printable ASCII characters without a backslash (PS3.5 6.2, AE)."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
"""A name that also names a folder."""

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Port = Annotated[int, Field(ge=0, le=65535)]


def _compiles(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return value


Pattern = Annotated[str, AfterValidator(_compiles)]
"""A regular expression."""


class Section(BaseModel):
    """A part of the tree: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
