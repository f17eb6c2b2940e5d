"""Commands that need more than the core say what to install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from m3node.errors import ConfigError


@contextmanager
def needs_extra(name: str, otherwise: str = "") -> Iterator[None]:
    """Turn an import that fails inside into a sentence that names the extra.

    Parameters
    ----------
    name : str
        The extra.
    otherwise : str
        What else may be done, in the same sentence; begins with "or".

    Raises
    ------
    ConfigError
        A package of the extra is not installed, or cannot be imported.
    """
    rest = f", {otherwise}" if otherwise else ""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"this needs the module {error.name!r}, which is not installed; install it with: "
            f"pip install 'm3node[{name}]'{rest}"
        ) from error
    except ImportError as error:
        raise ConfigError(
            f"this needs the extra {name!r}, which is installed but cannot be imported: {error}; install it "
            f"again with: pip install --upgrade 'm3node[{name}]'{rest}"
        ) from error
