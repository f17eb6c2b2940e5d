"""Named points at which a test can have the process killed: what holds there is shown, and not left to luck.

Off unless ``M3NODE_TEST_FAULTS`` names a folder; then a file of the point's name in it is consumed, and the process
kills itself as the kernel would, without a word and without cleaning up.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

VARIABLE = "M3NODE_TEST_FAULTS"


def fault_point(name: str) -> None:
    """Die here when a test wants it.

    Parameters
    ----------
    name : str
        ``<step>.<place>``, for example ``build.before``; a file name.
    """
    folder = os.environ.get(VARIABLE)
    if not folder:
        return
    try:
        # Whoever removes the file dies; each file kills one process.
        Path(folder, name).unlink()
    except OSError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
