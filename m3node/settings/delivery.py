"""Settings of what goes out: destinations, and how results are sent."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from m3node.settings.types import AETitle, Fingerprint, Name, NotNegative, Positive, Section, TlsVersion


class Destination(Section):
    """Where results are sent: a DICOM peer (``ae_title``, ``host``, ``port``) or a DICOMweb service (``url``).

    Attributes
    ----------
    name : str
        Also the name of its folder in the outbox.
    ae_title, host, port
        A storage SCP.
    url : str
        Base of a DICOMweb service; results go by STOW-RS to ``<url>/studies``.
    bearer_token_file, password_file : Path or None
        Files that hold a secret: for ``Authorization: Bearer``, or for HTTP Basic with ``user``.
    user : str
        For HTTP Basic.
    tls : bool
        Whether a DICOM peer is called over TLS (PS3.15 B.12); a ``url`` says so by ``https``.
    ca_file : Path or None
        PEM of the authority that signed the peer's or service's certificate; the system's authorities without it.
    tls_name : str
        The name that a DICOM peer's certificate has to bear, where it is not ``host``.
    certificate_sha256 : tuple of str
        Fingerprints of the certificates that the peer or service may show. Without ``ca_file`` they alone decide, for
        devices that sign their own; with it both have to be right. Names are not looked at then.
    client_certificate_file, client_key_file : Path or None
        PEM, where the peer or service wants a certificate of ours.
    client_key_password_file : Path or None
        A file that holds the key's password.
    sr : str
        ``comprehensive3d``, or ``enhanced`` for an archive that does not know Comprehensive 3D SR.
    commitment : bool
        Whether storage is confirmed by Storage Commitment (PS3.4 J) before a delivery is done; DICOM peers only.
    """

    name: Name
    ae_title: AETitle | None = None
    host: str = ""
    port: Annotated[int, Field(ge=1, le=65535)] = 104
    url: str = ""
    bearer_token_file: Path | None = None
    user: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    client_certificate_file: Path | None = None
    client_key_file: Path | None = None
    client_key_password_file: Path | None = None
    tls: bool = False
    tls_name: str = ""
    certificate_sha256: tuple[Fingerprint, ...] = ()
    sr: Literal["comprehensive3d", "enhanced"] = "comprehensive3d"
    commitment: bool = False

    @model_validator(mode="after")
    def _key_of_a_certificate(self) -> Self:
        if self.client_certificate_file is None and (self.client_key_file or self.client_key_password_file):
            raise ValueError(f"destination {self.name} has a key or its password; set client_certificate_file as well")
        return self

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.url:
            if self.ae_title is not None or self.host:
                raise ValueError(f"destination {self.name} has a url as well as an ae_title or host; keep one of them")
            if not re.match(r"https?://[^/\s@]+", self.url):
                raise ValueError(f"destination {self.name}: url begins with http:// or https:// and holds no password")
            if self.commitment:
                raise ValueError(f"destination {self.name}: DICOMweb has no storage commitment here")
            if self.url.startswith("http://") and (
                self.ca_file or self.certificate_sha256 or self.client_certificate_file
            ):
                raise ValueError(f"destination {self.name} names certificates; its url has to begin with https://")
            if self.tls or self.tls_name:
                raise ValueError(f"destination {self.name}: a url says by https that it is over TLS; leave tls out")
            if (self.password_file is None) != (not self.user):
                raise ValueError(f"destination {self.name}: user and password_file are set together")
        elif self.ae_title is None or not self.host:
            raise ValueError(f"destination {self.name} needs ae_title and host, or a url")
        elif not self.tls and (
            self.ca_file or self.certificate_sha256 or self.tls_name or self.client_certificate_file
        ):
            # It would be sent in the clear by somebody who has set all that is needed for the contrary.
            raise ValueError(f"destination {self.name} names certificates; set tls = true as well")
        return self


class RoutingRule(Section):
    """Says where objects go; an object goes to every destination that a matching rule names.

    Attributes
    ----------
    objects : tuple of str
        ``report``, ``volumes``, ``segmentation``, ``presentation``, ``attention``; all when empty.
    senders : tuple of str
        Calling AE titles that delivered the series; all when empty.
    destinations : tuple of str
        Names of destinations.
    """

    objects: tuple[Literal["report", "volumes", "segmentation", "presentation", "attention"], ...] = ()
    senders: tuple[AETitle, ...] = ()
    destinations: Annotated[tuple[Name, ...], Field(min_length=1)]


class DeliverySettings(Section):
    """How results are sent.

    Attributes
    ----------
    tls_minimum : str
        The oldest version of TLS that destinations are called with.
    connect_seconds, response_seconds : float
        How long to wait for a connection, and for each answer.
    retry_first_seconds, retry_max_seconds : float
        Pause after the first failure, doubled after each up to the second.
    give_up_hours : float
        A delivery that has failed for so long is a dead letter; 0 tries for ever.
    commitment_seconds : float
        How long a commitment report is waited for before the object is sent again.
    """

    calling_ae_title: AETitle | None = None
    tls_minimum: TlsVersion = "1.2"
    connect_seconds: Positive = 10.0
    response_seconds: Positive = 30.0
    retry_first_seconds: Positive = 2.0
    retry_max_seconds: Positive = 300.0
    give_up_hours: NotNegative = 72.0
    commitment_seconds: Positive = 3600.0
