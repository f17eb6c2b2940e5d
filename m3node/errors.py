"""Every error that m3node raises on purpose, under one root.

A message says what was wrong, with which object (by UID or file, never by patient) and what to do about it.
"""

from __future__ import annotations

from m3node.rejection import Reason


class M3NodeError(Exception):
    """The root of all errors that m3node raises on purpose."""


class ConfigError(M3NodeError):
    """A setting is missing, unknown or contradicts another one."""


class InputRejected(M3NodeError):  # noqa: N818 - the name that the design gives it
    """An instance, stack or file cannot be used; nothing is wrong with the node.

    Parameters
    ----------
    reason : m3node.rejection.Reason
        The machine-readable kind of rejection.
    message : str
        What was wrong, with which object and what to do, in words for a person.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class ImageError(M3NodeError):
    """An image that questions are about cannot be found, read or shown; other images are no worse for it."""


class InferenceError(M3NodeError):
    """A detector failed on input that was fit for it."""


class ResultError(M3NodeError):
    """A result object could not be built or stored."""


class DatabaseError(M3NodeError):
    """The jobs' and the ledger's database cannot be reached, or refuses."""


class DeliveryError(M3NodeError):
    """An object did not reach its destination.

    Parameters
    ----------
    message : str
        What happened, with which object and destination.
    retryable : bool
        Whether sending the same bytes again may succeed.
    """

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


class UntrustedPeerError(DeliveryError):
    """Whoever answered at a destination's address is not who it should be; it got nothing."""
