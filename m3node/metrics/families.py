"""Every metric of the node: its name, its labels, and all values that a label can have.

A label never has a value that somebody sent: values are words of this file, names of the settings, and roles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PREFIX = "m3node_"

ASSOCIATION_RESULTS = ("accepted", "lost", "rejected", "limit", "refused_tls", "silent", "other")
"""``accepted``: it was released in order; ``lost``: accepted, and then aborted or broken off; ``rejected``: its title,
address or certificate is not known; ``limit``: it is known, and wants more than it may or than there is room for;
``refused_tls``: its TLS handshake failed; ``silent``: a connection that asked for nothing."""

INSTANCE_RESULTS = ("new", "duplicate", "revision", "refused", "limit", "other")
"""``new``; ``duplicate``: the same bytes once more; ``revision``: other bytes under a known UID; ``refused``: answered
with a failure; ``limit``: answered with a failure because the sender may not send so much."""

STAGES = ("assemble", "liver", "detect", "picture", "build", "close", "answer")
"""Parts of the work on one generation; ``answer`` is all of it, from the manifest to its record."""

OUTCOMES = ("sent", "stored", "confirmed", "retrying", "unknown", "dead", "cancelled", "waiting", "other")
"""What an attempt to deliver an object, or a commitment report, left it as; see `m3node.delivery.state`.
``waiting``: its destination has not committed to keep it, and gets it again."""

AUDIT_KINDS = (
    "application_activity",
    "instances_transferred",
    "security_alert",
    "audit_log_used",
    "user_authentication",
    "instances_accessed",
    "other",
)
"""Kinds of audit messages (PS3.15 A.5.3)."""

CODES = ("2xx", "3xx", "4xx", "5xx", "other")
"""Answers of the page, by the hundred of their status."""

SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""Upper bounds of the buckets of a stage's time."""


@dataclass(frozen=True, slots=True)
class Family:
    """A metric.

    Attributes
    ----------
    name : str
        Without the prefix; of a counter without ``_total``.
    kind : str
        What Prometheus takes it for.
    text : str
        What it says, for a person.
    labels : tuple of str
        Names of its labels.
    words : tuple of str
        The values of its last label, where they are fixed: each is there from the start, as 0.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    labels: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The name that a query uses."""
        return f"{PREFIX}{self.name}{'_total' if self.kind == 'counter' else ''}"


COUNTED = (
    Family("associations", "counter", "Connections to the listener that have ended", ("result",), ASSOCIATION_RESULTS),
    Family("instances_received", "counter", "Instances offered to the listener", ("result",), INSTANCE_RESULTS),
    Family("received_bytes", "counter", "Bytes of the instances that were stored"),
    Family("stage_seconds", "histogram", "Time that a stage of the work took", ("stage",), STAGES),
    Family("deliveries", "counter", "What attempts to deliver ended with", ("destination", "outcome"), OUTCOMES),
    Family("web_requests", "counter", "Requests that the page answered", ("code",), CODES),
    Family("audit_events", "counter", "Audit messages", ("kind",), AUDIT_KINDS),
    Family("audit_write_failures", "counter", "Audit messages that could not be written to the trail"),
    Family("process_starts", "counter", "Starts of a process, the first one included", ("process",)),
)
"""What processes count."""

SEEN = (
    Family("build_info", "gauge", "1; the release is a label", ("version",)),
    Family("role_up", "gauge", "Whether somebody is a role", ("role",)),
    Family("check_state", "gauge", "Health: 0 is well, 1 wants a look, 2 has failed", ("check",)),
    Family("database_up", "gauge", "Whether the database answers; without it no job and no delivery is shown"),
    Family("associations_open", "gauge", "Open associations that may store"),
    Family("studies", "gauge", "Studies that are known"),
    Family("jobs", "gauge", "Generations by their state", ("state",)),
    Family("jobs_queued", "gauge", "Jobs that wait for a worker", ("priority",)),
    Family("queue_oldest_seconds", "gauge", "For how long the oldest job waits; 0 when none does"),
    Family("outbox_objects", "gauge", "Objects by where they stand on their way", ("destination", "state")),
    Family(
        "delivery_oldest_seconds", "gauge", "For how long the oldest object waits to be delivered", ("destination",)
    ),
    Family("delivery_failing_seconds", "gauge", "For how long a destination fails; 0 when not", ("destination",)),
    Family("dead_letters", "gauge", "Objects that are not sent before somebody says so", ("destination",)),
    Family("data_free_bytes", "gauge", "Room on the data folder's disk"),
    Family("data_total_bytes", "gauge", "Size of the data folder's disk"),
    Family("certificate_expiry_seconds", "gauge", "Until a certificate expires; negative when it has", ("setting",)),
    Family("audit_syslog_behind", "gauge", "Audit messages that the repository does not have yet, counted to 10,000"),
    Family("audit_syslog_oldest_seconds", "gauge", "For how long the oldest of them waits; 0 when none does"),
)
"""What is looked at when somebody asks."""

FAMILIES = (*COUNTED, *SEEN)
