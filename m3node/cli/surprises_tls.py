"""What of TLS in the settings is allowed but seldom meant, said by ``m3node config check``."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from m3node.delivery.address import terms_of
from m3node.errors import ConfigError
from m3node.settings import Settings
from m3node.tls.in_use import CertificateInUse, certificates_in_use
from m3node.tls.listening import listener_context


def find_tls_surprises(settings: Settings) -> Iterator[str]:
    """Say what of TLS is allowed but seldom meant; one sentence each: what, and which key changes it."""
    return chain(_callers(settings), _certificates(settings), _destinations(settings))


def _callers(settings: Settings) -> Iterator[str]:
    listener = settings.listener
    if listener.tls.certificate_file is None:
        return
    clear = [caller.ae_title for caller in listener.callers if not caller.tls and not caller.certificate_sha256]
    if listener.plain and clear:
        yield (
            f"{', '.join(clear)} may come in the clear as well as over TLS: set tls = true for each in "
            "listener.callers, or listener.plain = false"
        )
    if listener.tls.client_certificates == "none":
        nameless = [caller.ae_title for caller in listener.callers if not caller.addresses]
        if nameless:
            yield (
                f"whoever says that he is {' or '.join(nameless)} is believed: listener.tls.client_certificates is "
                '"none", and addresses of listener.callers is empty'
            )


def _certificates(settings: Settings) -> Iterator[str]:
    ill = _listener_is_ill(settings)
    if ill:
        yield f"the node will not start: {ill}"
    for certificate in certificates_in_use(settings):
        owner = certificate.setting.partition(".")[0]
        if not (owner == "listener" and certificate.error and certificate.error in ill):
            yield from _of_one(certificate)
        # Which secret files cannot be read is said of all of them alike.
        if certificate.unfit and owner in ("audit", "web") and not certificate.unfit.startswith("cannot read "):
            yield certificate.unfit


def _listener_is_ill(settings: Settings) -> str:
    """Say why the listener's files cannot be used: said by who uses them; empty when they can."""
    if settings.listener.tls.certificate_file is not None:
        try:
            listener_context(settings.listener.tls)
        except ConfigError as error:
            return str(error)
    return ""


def _destinations(settings: Settings) -> Iterator[str]:
    """Say which destinations cannot be called, because a key or a password is not that of its certificate."""
    unread = {certificate.setting for certificate in certificates_in_use(settings) if certificate.error}
    for destination in settings.destinations:
        said = {f"destinations.{destination.name}.{key}" for key in ("ca_file", "client_certificate_file")}
        if said & unread or not (destination.tls or destination.url.startswith("https://")):
            continue
        try:
            terms_of(destination, settings.delivery.tls_minimum).context()
        except ConfigError as error:
            yield f"destination {destination.name} gets nothing: {error}"


def _of_one(certificate: CertificateInUse) -> Iterator[str]:
    if certificate.error:
        yield f"{certificate.error} ({certificate.setting})"
    elif certificate.days_left is not None and certificate.days_left <= 0:
        yield f"{certificate.setting} has expired: {certificate.file}"
    elif certificate.days_left is not None and certificate.expires_soon:
        yield f"{certificate.setting} expires in {certificate.days_left:.0f} days: {certificate.file}"
