"""What in the settings is allowed but seldom meant, said by ``m3node config check``."""

from __future__ import annotations

import ipaddress
import os
import shutil
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

from m3node.cli.surprises_limits import find_limit_surprises
from m3node.cli.surprises_tls import find_tls_surprises
from m3node.cli.surprises_web import find_web_surprises
from m3node.results.objects import ObjectKind
from m3node.settings import Destination, Settings

_KINDS = {
    "report": ObjectKind.REPORT,
    "volumes": ObjectKind.VOLUMES,
    "segmentation": ObjectKind.SEGMENTATION,
    "presentation": ObjectKind.PRESENTATION,
}


def find_surprises(settings: Settings, config: Path | None = None) -> Iterator[str]:
    """Say what is allowed but seldom meant.

    Parameters
    ----------
    settings : Settings
        The tree.
    config : Path, optional
        The file that it was read from.

    Yields
    ------
    str
        One sentence each: what, and which key changes it.
    """
    return chain(
        _listening(settings),
        _sending(settings),
        _routing(settings),
        _folders(settings),
        _marks(settings),
        _secrets(settings, config),
        find_tls_surprises(settings),
        find_limit_surprises(settings),
        find_web_surprises(settings),
        _method(settings),
    )


def _listening(settings: Settings) -> Iterator[str]:
    if not settings.listener.callers:
        yield "nobody may send: listener.callers is empty, so every association is rejected"
    if _is_loopback(settings.listener.host):
        yield (
            f"only this machine reaches the listener: listener.host is {settings.listener.host}; "
            "set it to an address of the network"
        )
        deaf = [d.name for d in settings.destinations if d.commitment and not _is_loopback(d.host)]
        if deaf:
            yield (
                f"reports of storage commitment from {', '.join(deaf)} cannot come in: listener.host is "
                f"{settings.listener.host}, so what is stored there is sent again and again"
            )


def _sending(settings: Settings) -> Iterator[str]:
    if not settings.destinations:
        yield "results are sent nowhere: destinations is empty; they stay in the data folder"
    port = settings.listener.port
    loops = [d.name for d in settings.destinations if not d.url and d.port == port and _is_loopback(d.host)]
    if loops:
        yield f"results go to this node itself: destinations {', '.join(loops)} has the listener's own port"
    for destination in settings.destinations:
        if not destination.url.startswith("http://"):
            continue
        if destination.user or destination.bearer_token_file:
            yield f"destination {destination.name} gets its password or token unencrypted: its url is no https://"
        elif not _is_loopback(urlsplit(destination.url).hostname or ""):
            yield f"destination {destination.name} gets patients' objects in the clear: its url is no https://"


def _routing(settings: Settings) -> Iterator[str]:
    """Ask of each kind of object that there will be, and each sender, where it would go."""
    from m3node.delivery.routing import destinations_for  # noqa: PLC0415 - keeps --help and --version quick

    if not settings.routing:
        return
    senders = [caller.ae_title for caller in settings.listener.callers]
    kinds = dict(_KINDS)
    if settings.results.attention_map:
        kinds["attention"] = ObjectKind.ATTENTION_CAPTURE
    for name, kind in kinds.items():
        lost = [sender for sender in senders if not destinations_for(settings, (sender,), kind)]
        if lost:
            who = "from any sender" if len(lost) == len(senders) else f"from {', '.join(lost)}"
            yield f"routing sends the {name} of series {who} nowhere; it stays in the data folder"
    used = {d.name for s in senders for kind in kinds.values() for d in destinations_for(settings, (s,), kind)}
    for destination in settings.destinations:
        if senders and destination.name not in used:
            yield f"destination {destination.name} gets nothing: no rule of routing and no return_to leads to it"


def _folders(settings: Settings) -> Iterator[str]:
    yield from _folder_problems("data_dir", settings.data_dir)
    if settings.watch.folder is not None and settings.watch.out is not None:
        yield from _folder_problems("watch.folder", settings.watch.folder)
        yield from _folder_problems("watch.out", settings.watch.out)
    for key, folder in (("log.folder", settings.log.folder), ("audit.folder", settings.audit.folder)):
        if folder is not None:
            yield from _folder_problems(key, folder)


def _folder_problems(key: str, folder: Path) -> Iterator[str]:
    nearest = _nearest(folder)
    if not nearest.is_dir():
        yield f"{key} is {folder}, but {nearest} is not a folder"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        yield f"{key} is {folder}, and this user may not write in {nearest}"


def _nearest(folder: Path) -> Path:
    """A folder that is not there yet is made at start, below the nearest one that is."""
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    return nearest


def _marks(settings: Settings) -> Iterator[str]:
    warn, refuse = settings.disk.warn_free_mb, settings.disk.refuse_free_mb
    if 0 < warn < refuse:
        yield f"the node refuses before it warns: disk.warn_free_mb is {warn:g}, disk.refuse_free_mb is {refuse:g}"
    disk = shutil.disk_usage(_nearest(settings.data_dir))
    for key, mark, then in (("refuse", refuse, "nothing is ever taken in"), ("warn", warn, "it always warns")):
        if mark * 1e6 > disk.total:
            yield f"{then}: disk.{key}_free_mb is {mark:g}, and the disk of data_dir has {disk.total / 1e6:.0f} MB"
            return
    if refuse * 1e6 > disk.free:
        yield f"nothing is taken in now: disk.refuse_free_mb is {refuse:g}, and {disk.free / 1e6:.0f} MB are free"


def _secrets(settings: Settings, config: Path | None) -> Iterator[str]:
    if config is not None and _names_password(config) and _others_read(config):
        yield (
            f"others may read the database's password: database_url stands in {config}; take their right to read it "
            "(chmod o=), or use database_url_file"
        )
    for key, file in _secret_files(settings):
        if not os.access(file, os.R_OK):
            yield f"{key} is {file}, which this user cannot read"
        elif _others_read(file):
            yield f"others may read {file}, which {key} names; take their right to read it (chmod o=)"


def _secret_files(settings: Settings) -> Iterator[tuple[str, Path]]:
    def of(destination: Destination) -> Iterator[tuple[str, Path | None]]:
        for key in ("bearer_token_file", "password_file", "client_key_password_file"):
            yield f"{key} of destination {destination.name}", getattr(destination, key)
        key, file = _key_of("client_", destination.client_certificate_file, destination.client_key_file)
        yield f"{key} of destination {destination.name}", file

    tls, syslog, web = settings.listener.tls, settings.audit.syslog, settings.web
    with_keys = (
        ("listener.tls.", *_key_of("", tls.certificate_file, tls.key_file)),
        ("audit.syslog.", *_key_of("client_", syslog.client_certificate_file, syslog.client_key_file)),
        ("web.", *_key_of("", web.certificate_file, web.key_file)),
    )
    named = chain(
        (
            ("database_url_file", settings.database_url_file),
            ("listener.tls.key_password_file", tls.key_password_file),
            ("audit.syslog.client_key_password_file", syslog.client_key_password_file),
            ("web.key_password_file", web.key_password_file),
            ("web.password_file", web.password_file),
            ("web.token_file", web.token_file),
        ),
        ((section + key, file) for section, key, file in with_keys),
        *map(of, settings.destinations),
    )
    return ((key, file) for key, file in named if file is not None)


def _key_of(prefix: str, certificate: Path | None, key: Path | None) -> tuple[str, Path | None]:
    """Return the setting that names the file with the key, and the file: that of the certificate may hold both."""
    return (f"{prefix}certificate_file", certificate) if key is None else (f"{prefix}key_file", key)


def _names_password(config: Path) -> bool:
    url = tomllib.loads(config.read_text(encoding="utf-8")).get("database_url", "")
    return ":" in str(url).partition("://")[2].rpartition("@")[0]


def _others_read(file: Path) -> bool:
    return bool(file.stat().st_mode & 0o004)


def _method(settings: Settings) -> Iterator[str]:
    known = sorted(point.name for point in entry_points(group="m3node.detectors"))
    if settings.detector.name not in known:
        yield f"detector.name is {settings.detector.name!r}, which is not installed; there is: {', '.join(known)}"

    if settings.results.attention_map and settings.detector.name == "contrast":
        yield "there will be no attention map: results.attention_map is set, and detector contrast has no attention"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
