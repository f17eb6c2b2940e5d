"""The first hour with the node, as README.md tells it: its blocks run as they stand there, with a real Orthanc.

Nothing is replaced but ports: each number of `PORTS` becomes a free one, in the blocks, in the samples that they copy,
and, for the page, which has its default there, by ``M3NODE_WEB__PORT``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ports import free_port

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = Path("peers") / "orthanc"
PORTS = ("11112", "11180", "4242", "8042")
"""Of the node, of its page, and of Orthanc."""
PATIENCE = 180.0
"""Seconds after which an answer does not come any more."""
DONE = "the block is over, with "


class Shell:
    """The newcomer's terminal: one bash, whose blocks share variables and jobs."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "-m"],  # jobs by number, as in a terminal
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, block: str) -> tuple[str, int]:
        """Run some lines; return what they said, and the status of the last."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f'{block}\necho "{DONE}$?"\n')
        self._process.stdin.flush()
        said: list[str] = []
        for line in self._process.stdout:
            if line.startswith(DONE):
                return "".join(said), int(line.removeprefix(DONE))
            before, over, status = line.partition(DONE)  # the last line of the block has no end
            said.append(before)
            if over:
                return "".join(said), int(status)
        raise AssertionError(f"the shell ended: {''.join(said)}")

    def close(self) -> None:
        """End it and whatever still runs in it."""
        assert self._process.stdin is not None
        self._process.stdin.write("kill -KILL $(jobs -p) 2>/dev/null; exit\n")
        self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of the section, each with the lines that it is said to answer, ``…`` being whatever comes there."""
    section = text.partition("\n## Your first hour\n")[2].partition("\n## ")[0]
    fences = re.findall(r"^```(sh|text)\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    for (kind, block), (follows, answer) in zip(fences, [*fences[1:], ("", "")], strict=True):
        if kind == "sh":
            yield block, answer.splitlines() if follows == "text" else []


def says(output: str, lines: list[str]) -> bool:
    """Whether the lines appear in their order, others between them."""
    rest = iter(output.splitlines())
    patterns = [re.escape(line).replace("…", ".*") for line in lines]
    return all(any(re.fullmatch(pattern, line) for line in rest) for pattern in patterns)


@contextmanager
def terminal(folder: Path, ports: Mapping[str, str]) -> Iterator[Shell]:
    """What the reader has before block 1: the node on the path, the samples, and an empty folder."""
    configs = folder / "configs"
    (configs / SAMPLES).mkdir(parents=True)
    for sample in (ROOT / "configs" / SAMPLES).iterdir():
        (configs / SAMPLES / sample.name).write_text(elsewhere(sample.read_text(), ports))
    (folder / "bin").mkdir()
    (folder / "bin" / "m3node").write_text(f'#!/bin/sh\nexec {sys.executable} -m m3node "$@"\n')
    (folder / "bin" / "m3node").chmod(0o755)
    (folder / "first-hour").mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("M3NODE_")}
    path = f"{folder / 'bin'}{os.pathsep}{environment['PATH']}{os.pathsep}/usr/sbin"
    settings = {"M3NODE_WEB__PORT": ports["11180"], "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    shell = Shell(folder / "first-hour", {**environment, **settings, "PATH": path, "CONFIGS": str(configs)})
    try:
        yield shell
    finally:
        shell.close()


def elsewhere(text: str, ports: Mapping[str, str]) -> str:
    """The same with free ports."""
    return re.sub(rf"\b({'|'.join(ports)})\b", lambda found: ports[found[1]], text)


def test_the_first_hour_goes_as_the_readme_says(tmp_path: Path, program: Callable[[str], str]) -> None:
    for name in ("Orthanc", "curl"):
        program(name)
    ports = {port: str(free_port()) for port in PORTS}
    steps = list(blocks(elsewhere((ROOT / "README.md").read_text(encoding="utf-8"), ports)))
    assert [bool(answer) for _, answer in steps].count(True) >= 2
    with terminal(tmp_path, ports) as shell:
        for block, answer in steps:
            said, status = shell.run(block)
            deadline = time.monotonic() + PATIENCE
            # What has an answer needs a while, and is asked again until it says so.
            while answer and not (status == 0 and says(said, answer)) and time.monotonic() < deadline:
                said, status = shell.run(f"sleep 2\n{block}")
            assert status == 0, f"{block}\n{said}\n{logs(tmp_path)}"
            assert says(said, answer), f"{block}\n{said}\nis not\n{answer}\n{logs(tmp_path)}"
        shell.run("wait")
    assert "stopped clerk" in logs(tmp_path)  # it ended in order
    assert "Traceback" not in logs(tmp_path)


def logs(folder: Path) -> str:
    """What node and Orthanc said."""
    return "\n".join(log.read_text() for log in (folder / "first-hour").glob("*.log"))
