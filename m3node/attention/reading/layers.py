"""Which language layers are read, and how much each counts."""

from __future__ import annotations

from m3node.errors import ConfigError
from m3node.gemma.model import GemmaModel

_LAST = "last:"


def choose_layers(text: str, model: GemmaModel) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Choose layers and their weights.

    Parameters
    ----------
    text : str
        ``global`` for the layers that attend to everything before them, ``all``, numbers from 0 such as ``3,5,11``, all
        of which count the same; or ``last:4`` for the last four, of which later ones count more: the ``i``-th of ``n``
        counts ``i / (1 + 2 + … + n)``.

    Returns
    -------
    layers : tuple of int
        Ascending.
    weights : tuple of float
        One a layer, adding up to 1.

    Raises
    ------
    ConfigError
        The text names none, or one that the model lacks.
    """
    count = model.sizes.language_layers
    wanted = text.strip().lower()
    if wanted == "global":
        layers = model.sizes.global_layers
        if not layers:
            raise ConfigError(f"{model.identity.name} has no global layers: name some, from 0 to {count - 1}, or 'all'")
    elif wanted == "all":
        layers = tuple(range(count))
    elif wanted.startswith(_LAST):
        last = _number(wanted.removeprefix(_LAST), text)
        if not 1 <= last <= count:
            raise ConfigError(f"layers {text!r}: the model has {count}")
        total = last * (last + 1) / 2
        return tuple(range(count - last, count)), tuple((at + 1) / total for at in range(last))
    else:
        layers = tuple(sorted(_number(part, text) for part in wanted.split(",")))
        if len(set(layers)) < len(layers):
            raise ConfigError(f"layers {text!r}: one is named twice")
        if layers[-1] >= count:
            raise ConfigError(f"layers {text!r}: the model has layers 0 to {count - 1}")
    return layers, (1.0 / len(layers),) * len(layers)


def _number(word: str, text: str) -> int:
    word = word.strip()
    if not (word.isascii() and word.isdigit()):
        raise ConfigError(f"layers {text!r}: say 'global', 'all', numbers such as '3,5,11', or 'last:4'")
    return int(word)
