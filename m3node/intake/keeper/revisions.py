"""Which file of an instance is used, when it was received more than once with other bytes.

A PACS transcodes, reorders or completes what it sends on, so the same SOP Instance UID comes again with other bytes and
the same meaning. Only when decoded pixels, geometry or identity differ is the newer one another input.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from m3node.errors import InputRejected
from m3node.intake.series.header import InstanceHeader
from m3node.rejection import Rejection

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Chosen:
    """One file for each instance.

    Attributes
    ----------
    used : tuple of InstanceHeader
        In order of first arrival.
    undecodable : tuple of Rejection
        Revisions that cannot be decoded and are passed over, by path.
    """

    used: tuple[InstanceHeader, ...]
    undecodable: tuple[Rejection, ...]


def choose(headers: Iterable[InstanceHeader], content_digest: Callable[[InstanceHeader], str]) -> Chosen:
    """Choose the file to use of each instance: the newest whose content differs from the one before it.

    Parameters
    ----------
    headers : iterable of InstanceHeader
        All files of a series, revisions included.
    content_digest : callable
        Digest over decoded pixels, geometry and identity; called only for instances with revisions. Raises
        ``InputRejected`` when a file cannot be decoded: it is passed over while another one can be.

    Returns
    -------
    Chosen
        The same for the same files, in whatever order they are given.
    """
    instances: dict[str, list[InstanceHeader]] = {}
    for header in sorted(headers, key=lambda header: (header.received_at, header.path)):
        instances.setdefault(header.sop_instance_uid, []).append(header)
    used: list[InstanceHeader] = []
    undecodable: list[Rejection] = []
    for files in instances.values():
        current, digest = files[0], ""
        for header in files if len(files) > 1 else ():
            try:
                its = content_digest(header)
            except InputRejected as error:
                undecodable.append(Rejection(error.reason, error.message, header.path))
                continue
            if not digest or its != digest:
                current, digest = header, its
            else:
                _log.info("revision %s has the same content as %s: nothing to do", header.path, current.path)
        used.append(current)
    return Chosen(tuple(used), tuple(undecodable))
