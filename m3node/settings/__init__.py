"""One typed tree of settings: defaults, then a TOML file, then ``M3NODE_*``, then flags; a wrong key is an error.

`load` reads it; each section is a frozen class, in the file of its subject.
"""

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
from m3node.settings.tree import Settings, config_file, load
from m3node.settings.types import Section

__all__ = [
    "Caller",
    "CompletenessSettings",
    "ContrastSettings",
    "DeliverySettings",
    "Destination",
    "DetectorSettings",
    "DiskSettings",
    "EligibilitySettings",
    "JobSettings",
    "ListenerSettings",
    "LiverSettings",
    "LogSettings",
    "M3Settings",
    "MedGemmaSettings",
    "ModelSettings",
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
    "WatchSettings",
    "config_file",
    "load",
]
