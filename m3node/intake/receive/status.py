"""The statuses that the receiver answers (PS3.4 B.2.3, PS3.7 C), and how a failure becomes one.

C-STORE:

====== ============================ ======================================================================
0x0000 success                      the instance is on disk, or was there before with the same bytes
0x0110 processing failure           the disk refused for another reason than space; the same bytes may be sent again
0x0122 SOP class not supported      the command's SOP class is not that of its presentation context
0xA700 out of resources             no space, quota, file handles or memory; the same bytes may be sent again later;
                                    or more than its sender may send: too large, too many a minute
0xA900 data set does not match      command and data set disagree on SOP class or SOP instance
0xC000 cannot understand            the bytes are no data set in the negotiated transfer syntax
0xC001 cannot understand            a UID of the data set is not a UID (PS3.5 9.1)
0xC002 cannot understand            the data set has no SOP class, SOP instance, study or series UID
====== ============================ ======================================================================

N-EVENT-REPORT:

====== ============================ ======================================================================
0x0000 success                      the storage commitment report is on disk, or was there before
0x0110 processing failure           the disk refused for another reason than space
0x0113 no such event type           neither 1 nor 2 (PS3.4 J.3.3)
0x0115 invalid argument value       the event information cannot be read, or its Transaction UID is no UID
0x0118 no such SOP class            an event of another SOP class than Storage Commitment Push Model
0x0213 resource limitation          no space, quota, file handles or memory
====== ============================ ======================================================================
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from m3node.errors import InputRejected
from m3node.rejection import Reason

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
NO_SUCH_EVENT_TYPE = 0x0113
INVALID_ARGUMENT = 0x0115
NO_SUCH_CLASS = 0x0118
CLASS_NOT_SUPPORTED = 0x0122
RESOURCE_LIMITATION = 0x0213
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
INVALID_UID = 0xC001
MISSING_UID = 0xC002

_OF_REASON = {
    Reason.UNREADABLE: CANNOT_UNDERSTAND,
    Reason.INVALID_UID: INVALID_UID,
    Reason.MISSING_UID: MISSING_UID,
}
_NO_RESOURCES = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EMLINK, errno.EFBIG}


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and, when it is a failure, why.

    Attributes
    ----------
    status : int
        Status (0000,0900).
    comment : str
        Why, for the log; its first 64 characters are the Error Comment (0000,0902). Never holds patient data.
    """

    status: int
    comment: str = ""


def of_rejection(error: InputRejected) -> Answer:
    """Answer an instance that cannot be stored for what it is."""
    return Answer(_OF_REASON.get(error.reason, CANNOT_UNDERSTAND), error.message)


def of_disk(error: OSError) -> Answer:
    """Answer an instance that the disk did not take."""
    return _of_disk(error, OUT_OF_RESOURCES)


def of_disk_report(error: OSError) -> Answer:
    """Answer a report that the disk did not take."""
    return _of_disk(error, RESOURCE_LIMITATION)


def _of_disk(error: OSError, no_resources: int) -> Answer:
    what = error.strerror or type(error).__name__
    if error.errno in _NO_RESOURCES:
        return Answer(no_resources, f"out of resources: {what}")
    return Answer(PROCESSING_FAILURE, f"cannot store: {what}")
