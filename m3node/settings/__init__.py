"""One typed tree of settings: defaults, then a TOML file, then ``M3NODE_*``, then flags; a wrong key is an error.

`load` reads it; each section is a frozen class, in the file of its subject.
"""

from m3node.settings.audit import AuditSettings, SyslogSettings
from m3node.settings.delivery import DeliverySettings, Destination, RoutingRule
from m3node.settings.intake import (
    Caller,
    CompletenessSettings,
    EligibilitySettings,
    ListenerSettings,
    PriorityRule,
    SelectionRule,
    SelectionSettings,
    WatchSettings,
)
from m3node.settings.jobs import DiskSettings, JobSettings, LogSettings, RetentionSettings
from m3node.settings.method import (
    ContrastSettings,
    DetectorSettings,
    LiverSettings,
    M3Settings,
    MedGemmaSettings,
    ModelSettings,
    ResultSettings,
    SteeringMode,
    SteeringSettings,
)
from m3node.settings.tls import ListenerTls
from m3node.settings.tree import Settings, config_file, load
from m3node.settings.types import Fingerprint, Network, Section, TlsVersion
from m3node.settings.web import WebSettings

__all__ = [
    "AuditSettings",
    "Caller",
    "CompletenessSettings",
    "ContrastSettings",
    "DeliverySettings",
    "Destination",
    "DetectorSettings",
    "DiskSettings",
    "EligibilitySettings",
    "Fingerprint",
    "JobSettings",
    "ListenerSettings",
    "ListenerTls",
    "LiverSettings",
    "LogSettings",
    "M3Settings",
    "MedGemmaSettings",
    "ModelSettings",
    "Network",
    "PriorityRule",
    "ResultSettings",
    "RetentionSettings",
    "RoutingRule",
    "Section",
    "SelectionRule",
    "SelectionSettings",
    "Settings",
    "SteeringMode",
    "SteeringSettings",
    "SyslogSettings",
    "TlsVersion",
    "WatchSettings",
    "WebSettings",
    "config_file",
    "load",
]
