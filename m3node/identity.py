"""Who m3node is on the wire and in objects: constants by which it knows its own objects when they come back."""

from __future__ import annotations

import uuid

from m3node import __version__

_PROJECT = uuid.uuid5(uuid.NAMESPACE_OID, "m3node")

DEVICE_UID = f"2.25.{uuid.uuid5(_PROJECT, 'device').int}"
"""Device UID (0018,1002) of every object that m3node builds (PS3.3 C.7.5.1); never changes between releases."""

IMPLEMENTATION_CLASS_UID = f"2.25.{uuid.uuid5(_PROJECT, 'implementation class').int}"
"""Implementation Class UID (0002,0012) of file meta information and association requests (PS3.7 D.3.3.2)."""

IMPLEMENTATION_VERSION = f"M3NODE_{__version__}"[:16]
"""Implementation Version Name (0002,0013); at most 16 characters."""
