"""What of the status page in the settings is allowed but seldom meant, said by ``m3node config check``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from m3node.settings import Settings
from m3node.settings.types import is_address

FIRST_FREE_PORT = 1024
"""Below it a port wants a capability, which neither the units nor the images give."""

_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_EVERY_ADDRESS = ("0.0.0.0", "::", "")


def find_web_surprises(settings: Settings) -> Iterator[str]:
    """Say it, one sentence each."""
    if not settings.web.enabled:
        return iter(())
    return chain(_ports(settings), _names(settings), _secrets(settings))


def _ports(settings: Settings) -> Iterator[str]:
    listener, web = settings.listener, settings.web
    taken = {"listener.port": listener.port} if listener.plain else {}
    if listener.tls.certificate_file is not None:
        taken["listener.tls.port"] = listener.tls.port
    for key, port in taken.items():
        if port and port == web.port and _overlap(listener.host, web.host):
            yield f"one of the page and the listener will not have its port: web.port and {key} are both {port}"
    if 0 < web.port < FIRST_FREE_PORT:
        yield (
            f"web.port is {web.port}: a port below {FIRST_FREE_PORT} needs a right that the node's user does not have; "
            "take another, or a reverse proxy"
        )


def _overlap(one: str, other: str) -> bool:
    """Whether two hosts may be bound to one address; names are taken for what they mostly are."""
    return one == other or one in _EVERY_ADDRESS or other in _EVERY_ADDRESS


def _names(settings: Settings) -> Iterator[str]:
    for name in settings.web.names:
        if not _NAME.fullmatch(name) and not is_address(name):
            yield f"nobody can ask for the page by the name {name!r} of web.names: a name has neither scheme nor port"


def _secrets(settings: Settings) -> Iterator[str]:
    web = settings.web
    for key, file in (("web.password_file", web.password_file), ("web.token_file", web.token_file)):
        if file is not None and _is_empty(file):
            yield f"nobody is let in by {key}: {file} is empty; write the secret into it"


def _is_empty(file: Path) -> bool:
    try:
        return not file.read_bytes().strip(b"\r\n")
    except OSError:
        return False  # that it cannot be read is said of all secrets alike
