"""Digests of instances by a process of its own, because a codec may end the process that decodes a damaged stream.

The keeper asks for them, and whoever sends an instance twice would otherwise decide whether it lives.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

from m3node.errors import InputRejected
from m3node.imaging.digest import content_digest
from m3node.rejection import Reason


class DigestsApart:
    """A process that is started with the first question, asked again and again, and replaced when it dies."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def __call__(self, path: Path) -> str:
        """Do as `m3node.imaging.digest.content_digest`; a codec that crashes is a stream that cannot be decoded.

        Raises
        ------
        InputRejected
            As there.
        OSError
            The disk refuses, memory is short, or no process can be started.
        """
        if self._child is None:
            command = [sys.executable, "-m", "m3node.imaging.digest_apart"]
            # What pydicom and the codecs say on their way may quote the patient.
            quiet = subprocess.DEVNULL
            self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=quiet)
        child = self._child
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(os.fsencode(path) + b"\n")
            child.stdin.flush()
        except BrokenPipeError:
            answer = b""
        else:
            answer = child.stdout.readline()
        if not answer.endswith(b"\n"):
            if child.wait() == -signal.SIGKILL:
                self.close()
                raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))  # by the kernel, and not by the stream
            self.close()
            message = f"a codec crashed on {path.name}: its pixels are damaged; send it again"
            raise InputRejected(Reason.UNDECODABLE, message)
        told = json.loads(answer)
        if "errno" in told:
            raise OSError(told["errno"], told["message"])
        if "reason" in told:
            raise InputRejected(Reason(told["reason"]), told["message"])
        return str(told["digest"])

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def main() -> None:
    """Answer each line of standard input, a path, by a line; end with it, and so with who asks."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # they come to the whole group; who asks ends us
    logging.disable()
    warnings.simplefilter("ignore")
    for line in sys.stdin.buffer:
        told: dict[str, object]
        try:
            told = {"digest": content_digest(Path(os.fsdecode(line[:-1])))}
        except InputRejected as error:
            told = {"reason": error.reason.value, "message": error.message}
        except OSError as error:
            told = {"errno": error.errno or errno.EIO, "message": error.strerror or "it cannot be read"}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
