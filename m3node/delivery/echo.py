"""C-ECHO: does the peer answer, and does it know us?"""

from __future__ import annotations

import time
from dataclasses import dataclass

from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined] # made at run time

from m3node.delivery.address import Peer, Timeouts
from m3node.delivery.association import associate
from m3node.errors import DeliveryError


@dataclass(frozen=True, slots=True)
class Echo:
    """An answered C-ECHO.

    Attributes
    ----------
    status : int
        0x0000 is success (PS3.7 9.1.5).
    seconds : float
        From the call to the answer, association included.
    """

    status: int
    seconds: float


def echo(peer: Peer, calling_ae_title: str, timeouts: Timeouts) -> Echo:
    """Verify a peer.

    Raises
    ------
    DeliveryError
        No connection, association rejected, Verification not accepted, or no answer.
    """
    begun = time.monotonic()
    association = associate(peer, calling_ae_title, [build_context(Verification)], timeouts)
    if not association.is_established:
        raise DeliveryError(f"{peer} does not accept Verification (C-ECHO)", retryable=True)
    try:
        answer = association.send_c_echo()
    except RuntimeError as error:
        raise DeliveryError(f"{peer} closed the association before C-ECHO", retryable=True) from error
    finally:
        if association.is_established:
            association.release()
    if "Status" not in answer:
        raise DeliveryError(f"{peer} accepts the association but does not answer C-ECHO", retryable=True)
    return Echo(status=int(answer.Status), seconds=time.monotonic() - begun)
