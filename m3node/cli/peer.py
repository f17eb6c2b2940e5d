"""What the commands that call a DICOM peer share: whom, as whom, over TLS or not, and how patiently."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from m3node.cli.options import add_config
from m3node.delivery.address import Peer, Timeouts, parse_ae_title, parse_peer, peer_of, timeouts_of
from m3node.errors import ConfigError
from m3node.settings import Fingerprint, load
from m3node.tls.calling import Terms

_FINGERPRINT: TypeAdapter[str] = TypeAdapter(Fingerprint)


@dataclass(frozen=True, slots=True)
class Call:
    """Whom to call, as whom, and how long to wait."""

    peer: Peer
    calling_ae_title: str
    timeouts: Timeouts


def add_peer(parser: argparse.ArgumentParser) -> None:
    """Add the peer, our own AE title, the waiting times, and TLS; `call_of` reads them."""
    parser.add_argument(
        "peer",
        type=_peer,
        metavar="AE@HOST:PORT|DESTINATION",
        help="whom to call, for example ORTHANC@127.0.0.1:4242; or the name of a destination in the settings, which is "
        "called as the node calls it",
    )
    add_config(parser)
    parser.add_argument(
        "--calling", type=_title, metavar="AE", help="our own AE title (default: M3NODE; for a destination the node's)"
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="how long to wait for each answer (default: 30; for a destination the settings')",
    )
    tls = parser.add_argument_group("TLS", "for AE@HOST:PORT; each of the others means --tls as well")
    tls.add_argument(
        "--tls", action="store_true", help="call over TLS; without --ca-file, the system's authorities count"
    )
    tls.add_argument("--ca-file", type=Path, metavar="FILE", help="PEM of the authority that signed its certificate")
    tls.add_argument(
        "--certificate", type=Path, metavar="FILE", help="PEM of our certificate, where the peer wants one"
    )
    tls.add_argument("--key", type=Path, metavar="FILE", help="PEM of its key, where it is in a file of its own")
    tls.add_argument("--key-password-file", type=Path, metavar="FILE", help="file that holds the key's password")
    tls.add_argument(
        "--pin",
        type=_pin,
        action="append",
        default=[],
        metavar="SHA256",
        help="fingerprint of the only certificate that it may show; may be given several times",
    )
    tls.add_argument("--tls-name", default="", metavar="NAME", help="name in its certificate, where that is not HOST")


def call_of(arguments: argparse.Namespace) -> Call:
    """Return what the flags say, or the settings of the destination that they name.

    Raises
    ------
    ConfigError
        There is no such DICOM destination, flags contradict each other or the settings, or a file cannot be used.
    """
    if isinstance(arguments.peer, str):
        return _of_settings(arguments)
    # Connecting never gets more than the default.
    patience = arguments.timeout or Timeouts().response
    timeouts = Timeouts(connect=min(Timeouts().connect, patience), response=patience)
    return Call(replace(arguments.peer, tls=_terms(arguments)), arguments.calling or "M3NODE", timeouts)


def _of_settings(arguments: argparse.Namespace) -> Call:
    settings = load(arguments.config)
    name, delivery = arguments.peer, settings.delivery
    found = {destination.name: destination for destination in settings.destinations}
    if name not in found:
        known = ", ".join(found) or "none"
        raise ConfigError(f"no destination is called {name} (there is: {known}); name one, or write AE@HOST:PORT")
    if found[name].url:
        raise ConfigError(f"destination {name} is a DICOMweb service; this command calls DICOM peers")
    if _terms(arguments) is not None:
        raise ConfigError(f"destination {name} has its TLS in the settings; leave the flags out, or write AE@HOST:PORT")
    timeouts = timeouts_of(delivery)
    if arguments.timeout is not None:
        timeouts = Timeouts(connect=min(timeouts.connect, arguments.timeout), response=arguments.timeout)
    title = arguments.calling or delivery.calling_ae_title or settings.listener.ae_title
    return Call(peer_of(found[name], delivery.tls_minimum), title, timeouts)


def _terms(arguments: argparse.Namespace) -> Terms | None:
    terms = Terms(
        ca_file=arguments.ca_file,
        name=arguments.tls_name,
        pins=tuple(arguments.pin),
        client_certificate_file=arguments.certificate,
        client_key_file=arguments.key,
        client_key_password_file=arguments.key_password_file,
    )
    if terms.client_certificate_file is None and (terms.client_key_file or terms.client_key_password_file):
        raise ConfigError("--key and --key-password-file go with --certificate")
    if not arguments.tls and terms == Terms():
        return None
    terms.context()  # a file that cannot be read is wrong usage, and no trouble of the peer's
    return terms


def _peer(text: str) -> Peer | str:
    """Read a peer, or what may be a destination's name: that holds neither @ nor a colon."""
    if text and not set("@:") & set(text):
        return text
    try:
        return parse_peer(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _title(text: str) -> str:
    try:
        return parse_ae_title(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _pin(text: str) -> str:
    try:
        return _FINGERPRINT.validate_python(text)
    except ValidationError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no SHA-256 of a certificate: 64 hexadecimal digits are, as "
            "'openssl x509 -noout -fingerprint -sha256' prints them"
        ) from error


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds") from error
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{text} seconds cannot be waited; give a number above 0")
    return seconds
