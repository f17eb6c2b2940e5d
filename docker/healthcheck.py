"""Whether a container's node is alive: each role that runs in it is somebody.

Without an argument all roles that the settings want; with arguments the roles named, as ``listen`` or ``worker-0``,
for containers that run one role each. Disk, database and destinations are not asked: a new container would not mend
them. ``m3node status`` shows them.
"""

import json
import subprocess
import sys
from pathlib import Path


def missing(status: dict, wanted: list[str]) -> list[str]:
    """Return the roles that nobody is."""
    running = {role["name"] for role in status["roles"] if role["running"]}
    known = {role["name"] for role in status["roles"]}
    return sorted((set(wanted) or known) - running)


def main() -> int:
    """Ask the node; 0 when it is alive, else 1 and a line that says what is not."""
    command = [str(Path(sys.executable).with_name("m3node")), "status", "--json"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        absent = missing(json.loads(answer.stdout), sys.argv[1:])
    except ValueError:
        print(answer.stderr.strip() or "m3node status says nothing")
        return 1
    print(f"down: {', '.join(absent)}" if absent else "alive")
    return 1 if absent else 0


if __name__ == "__main__":
    raise SystemExit(main())
