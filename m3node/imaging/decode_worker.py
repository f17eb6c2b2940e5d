"""A process that decodes what it is told to into a shared volume; `m3node.imaging.decode_pool` starts it.

Usage: ``python -m m3node.imaging.decode_worker HANDLE SLICES ROWS COLUMNS``. Batches come pickled on standard input;
for each, None or the reason and message of a failure goes back on standard output.
"""

from __future__ import annotations

import os
import pickle
import sys

from m3node.errors import InputRejected
from m3node.imaging.decode import decode_into
from m3node.imaging.shared import map_volume


def main() -> None:
    """Work until standard input ends."""
    handle, slices, rows, columns = (int(argument) for argument in sys.argv[1:])
    hu = map_volume(handle, (slices, rows, columns))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a codec that prints must not be taken for an answer
    while True:
        try:
            batch = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            decode_into(batch, hu, lambda _: None, single_threaded=True)
        except InputRejected as error:
            pickle.dump((error.reason, error.message), answers)
        else:
            pickle.dump(None, answers)
        answers.flush()


if __name__ == "__main__":
    main()
