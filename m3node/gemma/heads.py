"""What of a layer's heads is told apart; needs no torch, so that settings and commands may name it."""

from __future__ import annotations

from typing import Literal

Heads = Literal["mean", "groups", "all"]
"""Heads averaged away, with the layers; averaged within those that share a key head; or each by itself."""
