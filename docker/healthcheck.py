"""Whether a container's node is alive: each role that runs in it is somebody, and its page answers where it has one.

Without an argument all roles that the settings want; with arguments the roles named, as ``listen`` or ``worker-0``,
for containers that run one role each. Disk, database and destinations are not asked: a new container would not mend
them. ``/readyz`` and ``m3node status`` show them.
"""

import http.client
import json
import socket
import ssl
import subprocess
import sys
from pathlib import Path

ANSWER_SECONDS = 5
EVERY_ADDRESS = ("0.0.0.0", "::", "")


def missing(status: dict, wanted: list[str]) -> list[str]:
    """Return the roles that nobody is."""
    running = {role["name"] for role in status["roles"] if role["running"]}
    known = {role["name"] for role in status["roles"]}
    absent = sorted((set(wanted) or known) - running)
    here = {role["name"] for role in status["roles"] if role.get("host") == socket.gethostname()}
    if "web" in here and (not wanted or "web" in wanted) and not page_answers():
        absent.append("web (it does not answer)")
    return absent


def page_answers() -> bool:
    """Ask the page whether it lives; who answers on this machine's own port need not prove who it is."""
    from m3node.settings import load  # noqa: PLC0415 - a container of another role need not have a page's settings

    web = load().web
    if web.port == 0:
        return True  # only its log says which
    host = "127.0.0.1" if web.host in EVERY_ADDRESS else web.host
    if web.certificate_file is None:
        page = http.client.HTTPConnection(host, web.port, timeout=ANSWER_SECONDS)
    else:
        anybody = ssl.create_default_context()
        anybody.check_hostname = False
        anybody.verify_mode = ssl.CERT_NONE
        page = http.client.HTTPSConnection(host, web.port, timeout=ANSWER_SECONDS, context=anybody)
    try:
        page.request("GET", "/livez")
        return page.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        page.close()


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
