"""STOW-RS (PS3.18 10.5): each object in a request of its own, as the bytes that its file holds.

What an answer means is read from its body first (PS3.18 I.2): a service may store what it answers with 400, and answer
200 for what it has not stored.
"""

from __future__ import annotations

import base64
import email.utils
import json
import re
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from dicomweb_client.web import DICOMwebClient
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError

from m3node.delivery.address import Timeouts, terms_of, timeouts_of
from m3node.delivery.https import below, mount
from m3node.delivery.status import Verdict, judge_status
from m3node.delivery.store_scu import Sendable, Sent
from m3node.errors import ConfigError, DeliveryError, UntrustedPeerError
from m3node.settings import DeliverySettings, Destination
from m3node.tls.calling import HandshakeError, Terms, is_untrusted, why_lost
from m3node.tls.contexts import PinError

ANSWER_BYTES = 1 << 20
"""More of an answer than this is not read."""

_CONTENT_TYPE = 'multipart/related; type="application/dicom"; boundary="{}"'
_REFERENCED, _FAILED = "00081199", "00081198"
_INSTANCE, _FAILURE, _WARNING = "00081155", "00081197", "00081196"

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")

_BAD_REQUEST = 400
_SHUT = {401, 403, 404, 405, 407}
_ABOUT_TLS = {
    b"SSL certificate": "it does not accept our certificate, or wants one",
    b"HTTPS port": "it wants https",
    b"HTTPS server": "it wants https",
    b"SSL-enabled server port": "it wants https",
    b"requires TLS": "it wants https",
}
"""What proxies and servers say with 400 (nginx, Go, Apache, Tomcat) where others end the handshake: of no object."""

_BUSY = {408, 425, 429}


class StowService:
    """A DICOMweb service and the connection to it.

    Parameters
    ----------
    destination : Destination
        One with ``url``. Its files of secrets and certificates are read when a connection is opened, so that new ones
        are taken without a restart.
    delivery : DeliverySettings
        How long to wait for the connection and for the whole answer, and the oldest version of TLS.
    """

    def __init__(self, destination: Destination, delivery: DeliverySettings) -> None:
        self._destination = destination
        self._timeouts = timeouts_of(delivery)
        self._terms = terms_of(destination, delivery.tls_minimum)
        self._client: _ExactBytes | None = None

    def send(self, item: Sendable) -> Sent:
        """Send one object and wait for the answer.

        Raises
        ------
        DeliveryError
            The service cannot be reached, or does not let us in. `UntrustedPeerError`: it is not who it should be.
        """
        try:
            content = item.path.read_bytes()
        except OSError as error:
            return Sent(Verdict.AGAIN, None, f"cannot be sent: {type(error).__name__}")
        if self._client is None:
            self._client = _ExactBytes(self._destination, self._timeouts, self._terms)
        try:
            status, retry_after, body = self._client.store(content)
        except (HandshakeError, PinError, ConfigError) as error:
            self.close()
            kind = UntrustedPeerError if is_untrusted(error) else DeliveryError
            raise self._unreachable(str(error), kind) from error
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            self.close()
            return self._lost(error)
        if 300 <= status < 400 or status in _SHUT:
            self.close()
            raise self._unreachable(f"HTTP {status}: its address or our credentials are wrong")
        if status == _BAD_REQUEST and (words := [_ABOUT_TLS[said] for said in _ABOUT_TLS if said in body]):
            self.close()
            raise self._unreachable(f"HTTP {status}: {words[0]}")
        return judge_answer(status, body, item.sop_instance_uid, retry_after)

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()
        self._client = None

    def _lost(self, error: Exception) -> Sent:
        """Say what became of an object when there is no answer; raise when it cannot have left."""
        reason = getattr(error.args[0], "reason", None) if error.args else None
        if isinstance(error, requests.exceptions.SSLError):
            # Behind the handshake: TLS 1.3 asks for our certificate only then, and a request without it is not read.
            url = urlsplit(self._destination.url)
            address = (url.hostname or "", url.port or 443)
            raise self._unreachable(why_lost(below(error) or error, address, self._terms)) from error
        if isinstance(error, requests.ConnectTimeout):
            raise self._unreachable("the host does not answer") from error
        if isinstance(reason, NameResolutionError):
            raise self._unreachable("the host's name is not known") from error
        if isinstance(reason, NewConnectionError):
            raise self._unreachable("connection refused") from error
        if isinstance(error, ValueError):
            raise self._unreachable("its url cannot be used") from error
        return Sent(Verdict.AGAIN, None, f"no answer, or half of one ({type(error).__name__})", unknown=True)

    def _unreachable(self, why: str, kind: type[DeliveryError] = DeliveryError) -> DeliveryError:
        return kind(f"no connection to {self._destination.url}: {why}", retryable=True)


class _ExactBytes(DICOMwebClient):
    """Sends files as they are; the library's ``store_instances`` would decode and encode them anew."""

    def __init__(self, destination: Destination, timeouts: Timeouts, terms: Terms) -> None:
        self._seconds = timeouts.response
        self._target = f"{destination.url.rstrip('/')}/studies"
        super().__init__(
            destination.url,
            session=_session(destination, terms),
            timeout=(timeouts.connect, timeouts.response),
            # Above it the library would send without a Content-Length, which some services refuse.
            chunk_size=2**40,
        )
        # The library's own retries would hold the slot, and send an empty body for a large one.
        self.set_http_retry_params(retry=False)

    def store(self, content: bytes) -> tuple[int, float, bytes]:
        """Return status, Retry-After in seconds and body of the answer."""
        kind = _CONTENT_TYPE.format(f"m3node-{uuid.uuid4().hex}")
        # Not the library's request: it parses by the answer's Content-Type, which Orthanc leaves out on errors, and
        # names the host without its port.
        with self._session.post(
            self._target,
            data=self._encode_multipart_message([content], kind),
            headers={"Content-Type": kind},
            timeout=self._timeout,
            allow_redirects=False,  # a redirect would take the patient's object to another host
            stream=True,
        ) as answer:
            retry_after = _seconds(answer.headers.get("Retry-After", ""))
            return answer.status_code, retry_after, self._body(answer)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _body(self, answer: requests.Response) -> bytes:
        """Read the answer; the library's time-out is for each byte, and what comes in drops would never end."""
        body = b""
        deadline = time.monotonic() + self._seconds
        while chunk := answer.raw.read1(65536, decode_content=True):
            body += chunk
            if len(body) > ANSWER_BYTES or time.monotonic() > deadline:
                raise requests.ReadTimeout
        return body


def _session(destination: Destination, terms: Terms) -> requests.Session:
    session = requests.Session()
    # No proxy of the environment; no .netrc, which would take the place of our credentials.
    session.trust_env = False
    mount(session, terms)
    session.headers["Accept"] = "application/dicom+json"
    if destination.password_file is not None:
        # By hand: the library writes Latin-1, and fails with a password that has none.
        pair = f"{destination.user}:{_secret(destination, destination.password_file)}".encode()
        session.headers["Authorization"] = f"Basic {base64.b64encode(pair).decode('ascii')}"
    if destination.bearer_token_file is not None:
        token = _secret(destination, destination.bearer_token_file)
        if not _TOKEN.fullmatch(token):
            raise DeliveryError(
                f"{destination.bearer_token_file} of destination {destination.name} holds no bearer token (RFC 6750)",
                retryable=True,
            )
        session.headers["Authorization"] = f"Bearer {token}"
    return session


def _secret(destination: Destination, file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DeliveryError(
            f"{file} of destination {destination.name} cannot be read: {why}", retryable=True
        ) from error


def judge_answer(status: int, body: bytes, sop_instance_uid: str, retry_after: float = 0.0) -> Sent:
    """Return what an answer means for the object that was sent.

    Parameters
    ----------
    status : int
        Of HTTP, not one that says that we are not let in.
    body : bytes
        Store Instances Response in DICOM JSON (PS3.18 I.2.2), whatever its Content-Type says; or anything else.
    sop_instance_uid : str
        The object; an answer that does not name it has not stored it.
    retry_after : float
        How long the service asks to be left alone, in seconds.
    """
    words = f"HTTP {status}"
    referenced, failed = _named(body, sop_instance_uid)
    if failed is not None:
        verdict, why = judge_status(failed)
        # What is named as failed is not stored, whatever its code would mean in an answer to C-STORE.
        verdict = Verdict.AGAIN if verdict is Verdict.STORED else verdict
        return Sent(verdict, failed, f"{words}, failure reason {why}", retry_after=retry_after)
    if referenced is not None:
        return Sent(Verdict.STORED, referenced, words + (f", warning 0x{referenced:04X}" if referenced else ""))
    if status < 300:
        return Sent(Verdict.AGAIN, None, f"{words}, but the answer does not name the object", unknown=True)
    if status in _BUSY or status >= 500:
        return Sent(Verdict.AGAIN, None, words, retry_after=retry_after)
    return Sent(Verdict.REFUSED, None, words)


def _named(body: bytes, sop_instance_uid: str) -> tuple[int | None, int | None]:
    """Return the warning (0 for none) of an object that the answer says is stored, and the reason why it is not."""
    try:
        tree = json.loads(body)
        if isinstance(tree, list) and tree:
            tree = tree[0]
        for item in tree.get(_FAILED, {}).get("Value") or []:
            if _first(item, _INSTANCE) == sop_instance_uid:
                return None, int(_first(item, _FAILURE) or 0x0110)
        for item in tree.get(_REFERENCED, {}).get("Value") or []:
            if _first(item, _INSTANCE) == sop_instance_uid:
                return int(_first(item, _WARNING) or 0), None
    except (ValueError, ArithmeticError, AttributeError, TypeError, LookupError, RecursionError):
        pass  # not of this schema: it names nothing
    return None, None


def _first(item: Any, tag: str) -> Any:
    values = item.get(tag, {}).get("Value") or [None]
    return values[0]


def _seconds(text: str) -> float:
    """Read Retry-After: seconds, or a date (RFC 9110 10.2.3); 0 when it is neither."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
