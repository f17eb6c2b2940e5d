"""Hostile peers talk to a real node for thousands of connections, while an honest sender is served beside them.

``python tests/fuzz/fuzz.py [--cases 20000] [--seed 1] [--first 0] [--peers 8]`` prints what happened, and fails when a
process of the node died or complained, an association hung, memory grew, or anything acknowledged is not in the spool
byte for byte. ``--case N`` says what case N of the seed is, and performs it alone.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # beside pytest, which does so itself

from fuzzing.case import Case, Say, Way
from fuzzing.cases import make_case
from fuzzing.corpus import CORPUS
from fuzzing.data_sets import PATIENT_NAME, Base, base
from fuzzing.honest import Honest
from fuzzing.talk import Connect, Heard, perform
from fuzzing.target import Held, alive, complaints, held, kept, open_leases, roles

from certified import Authority, caller
from m3node.intake.keeper.index import series_files, spooled_series
from ports import free_port
from quick_series import quick_environment, quick_series
from served import ServedNode
from waiting import wait_for

SECRET = "ZZTOPSECRET"
"""In the patient's name of everything that is sent."""

PATIENCE = 120.0
"""What a peer waits, and what the node has to settle things in: many times its own time-outs."""

GROWTH_MB = 32.0
"""What a process may have more in the end than after the first quarter of the cases."""

MOST_ABORTS = 4
"""Of one connection: one is enough, and what is in hand already may bring another; noise must not bring thousands."""

SETTINGS = """
[listener]
receivers = 2
callers = [{{ae_title = "FUZZ"}}, {{ae_title = "HONEST"}}]
max_associations = 100
idle_seconds = 5
request_seconds = 5
[listener.tls]
port = {port}
certificate_file = "{shown.certificate}"
key_file = "{shown.key}"
client_certificates = "none"
handshake_seconds = 5
[completeness]
quiet_seconds = 2
[detector]
name = "quick"
[[destinations]]
name = "fuzz"
ae_title = "FUZZ"
host = "127.0.0.1"
port = 9
commitment = true
[[routing]]
senders = ["NOBODY"]
destinations = ["fuzz"]
"""


@dataclass(frozen=True)
class Plan:
    """How much, and which."""

    cases: int = 20_000
    seed: int = 1
    first: int = 0
    peers: int = 8
    patience: float = PATIENCE


@dataclass
class Outcome:
    """What happened."""

    plan: Plan
    kinds: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    said: int = 0
    honest: int = 0
    stored: int = 0
    series: int = 0
    runs: int = 0
    seconds: float = 0.0
    before: Mapping[str, Held] = field(default_factory=dict)
    after: Mapping[str, Held] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{sum(self.kinds.values())} connections of seed {self.plan.seed} in {self.seconds:.0f} s, "
            f"{self.said} hostile messages: {_listed(self.kinds)}",
            f"answers: {_listed(self.answers)}",
            f"the honest sender: {self.honest} instances acknowledged; of hostile peers: {self.stored}",
            f"{self.series} series settled, {self.runs} runs ended",
        ]
        lines += [
            f"{name}: {self.before[name].memory_mb:.0f} MB after a quarter, {now.memory_mb:.0f} MB in the end"
            for name, now in self.after.items()
        ]
        lines += [f"FAULT: {fault}" for fault in self.faults] or ["no faults"]
        return "\n".join(lines)


def run(plan: Plan, root: Path, environment: Mapping[str, str] | None = None) -> Outcome:
    """Do it, in a folder that is empty; ``environment`` is the node's."""
    outcome = Outcome(plan)
    right = right_series(root)
    tls_port = free_port()
    toml = SETTINGS.format(port=tls_port, shown=Authority(root / "authority").issue("node"))
    node = ServedNode(root / "node", toml, {**quick_environment(), **(environment or {})})
    try:
        node.start()
        _attack(plan, node, tls_port, right, outcome)
        if (status := node.stop()) != 0:
            outcome.faults.append(f"the node ended with status {status}")
        outcome.faults += [f"in the log: {line}" for line in complaints(node, [SECRET])[:10]]
    finally:
        node.clean_up()
    return outcome


def right_series(root: Path) -> Base:
    """A series that is analysed when nothing is changed."""
    right = base(quick_series(root / "right", "fuzz"))
    named = [
        tuple(replace(e, value=SECRET.encode()) if e.tag == PATIENT_NAME else e for e in slice_)
        for slice_ in right.slices
    ]
    return Base(tuple(named))


def _attack(plan: Plan, node: ServedNode, tls_port: int, right: Base, outcome: Outcome) -> None:
    node.until(lambda: "started keeper" in node.log)
    processes = roles(node)
    idle = {name: held(pid) for name, pid in processes.items()}
    honest = Honest(connector(node, tls_port), right)
    honest.start()
    begun = time.monotonic()
    promised: list[str] = []
    numbers = range(plan.first, plan.first + plan.cases)
    quarter = len(numbers) // 4
    for part in (numbers[:quarter], numbers[quarter:]):
        cases: Iterable[tuple[str, Case]] = ((f"case {n}", make_case(plan.seed, n, right)) for n in part)
        if part.start == plan.first:
            cases = itertools.chain(((f"corpus {case.words}", case) for case in CORPUS), cases)
        served = len(honest.acknowledged)
        promised += _talk(cases, plan, connector(node, tls_port, plan.patience), outcome)
        outcome.before = outcome.after
        outcome.after = _at_rest(node, processes, idle, outcome)
        if len(part) and len(honest.acknowledged) == served:
            outcome.faults.append("the honest sender was not served all the while")
    honest.finish()
    outcome.seconds = time.monotonic() - begun
    _judge(node, processes, outcome, honest, promised)
    if not outcome.faults:
        _judge_work(node, outcome, honest)


def _talk(cases: Iterable[tuple[str, Case]], plan: Plan, connect: Connect, outcome: Outcome) -> list[str]:
    """Perform cases, several at a time; return what the node has promised to keep."""
    lock = threading.Lock()
    left = iter(cases)
    promised: list[str] = []

    def peer() -> None:
        while True:
            with lock:
                name, case = next(left, ("", None))
            if case is None:
                return
            heard = perform(case, connect)
            with lock:
                _count(outcome, name, case, heard)
                promised.extend(heard.stored)

    threads = [threading.Thread(target=peer, daemon=True) for _ in range(plan.peers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return promised


def _count(outcome: Outcome, name: str, case: Case, heard: Heard) -> None:
    outcome.kinds[case.kind if case.way != "TLS" else f"{case.kind} over TLS"] += 1
    outcome.answers.update(heard.answers)
    outcome.said += heard.said
    outcome.stored += len(heard.stored)
    if (aborts := heard.answers.count("aborted")) > MOST_ABORTS:
        outcome.faults.append(f"{name} was answered by {aborts} aborts: {case.kind}, {case.words}")
    if heard.hung:
        outcome.faults.append(f"{name} hung ({heard.hung}): {case.kind}, {case.words}")


def _at_rest(
    node: ServedNode, processes: Mapping[str, int], idle: Mapping[str, Held], outcome: Outcome
) -> dict[str, Held]:
    """Wait until nothing is left of the hostile associations; return what the processes hold."""

    receivers = [name for name in processes if name.startswith("receiver")]

    def left() -> int:
        sockets = sum(held(processes[name]).sockets - idle[name].sockets for name in receivers)
        return max(sockets, len(open_leases(node))) - 1  # the honest sender has one association at the most

    try:
        wait_for(lambda: left() <= 0, outcome.plan.patience)
    except AssertionError:
        outcome.faults.append(f"{left()} associations are open although their peers have gone")
    return {name: held(pid) for name, pid in processes.items()}


def _judge(
    node: ServedNode, processes: Mapping[str, int], outcome: Outcome, honest: Honest, promised: list[str]
) -> None:
    faults = outcome.faults
    faults += [f"the {name} died" for name, pid in processes.items() if not alive(pid)]
    if honest.trouble:
        faults.append(f"the honest sender: {honest.trouble}")
    outcome.honest = len(honest.acknowledged)
    faults += [
        f"the {name} grew from {outcome.before[name].memory_mb:.0f} to {now.memory_mb:.0f} MB"
        for name, now in outcome.after.items()
        if now.memory_mb - outcome.before[name].memory_mb > GROWTH_MB
    ]
    there = kept(node)
    for whose, digests in (("the honest sender", honest.acknowledged), ("hostile peers", promised)):
        if lost := [one for one in digests if one not in there]:
            faults.append(f"{len(lost)} of {len(digests)} instances that {whose} had acknowledged are not in the spool")


def _judge_work(node: ServedNode, outcome: Outcome, honest: Honest) -> None:
    """What was taken in is judged to its end, and a whole series of the honest sender is answered after all that."""
    try:
        honest.send("2.25.12", 12)
        node.until(lambda: node.answered("2.25.12.g1"), PATIENCE)
    except (OSError, AssertionError) as error:
        outcome.faults.append(f"after the attack the honest sender's series is not answered: {error}")
        return
    try:
        node.until(lambda: not _unsettled(node), PATIENCE)
    except AssertionError:
        outcome.faults.append(f"not settled: {', '.join(_unsettled(node)[:10])}")
    outcome.series = len(spooled_series(node.layout.spool))
    outcome.runs = len(node.manifests)
    failed = [
        path.parent.name for path in node.layout.results.glob("*/findings.json") if '"failed"' in path.read_text()
    ]
    outcome.faults += [f"run {name} failed: see its findings" for name in failed]


def _unsettled(node: ServedNode) -> list[str]:
    """Series that are not settled, and runs that have not ended."""
    spool = spooled_series(node.layout.spool)
    series = [one for one, folders in spool.items() if not node.settled(one, len(series_files(folders)))]
    runs = [f"{manifest.stack.label}.g{manifest.generation}" for manifest in node.manifests]
    return [*series, *(run for run in runs if not node.answered(run))]


def connector(node: ServedNode, tls_port: int, patience: float = PATIENCE) -> Connect:
    """How to reach the node."""
    over_tls = caller()

    def connect(way: Way) -> socket.socket:
        port = node.port if way == "plain" else tls_port
        connection = socket.create_connection(("127.0.0.1", port), timeout=patience)
        return over_tls.wrap_socket(connection) if way == "TLS" else connection

    return connect


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"


def _alone(plan: Plan, number: int, root: Path) -> int:
    """Say what a case is, and perform it alone."""
    case = make_case(plan.seed, number, right_series(root))
    print(f"case {number} of seed {plan.seed}: {case.kind}, {case.words}; it leaves by {case.end}")
    for step in case.steps:
        print(f"say {step.data[:400].hex()}" if isinstance(step, Say) else "hear")
    outcome = run(replace(plan, first=number, cases=1), root)
    print(outcome)
    return int(bool(outcome.faults))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--peers", type=int, default=8)
    parser.add_argument("--case", type=int, help="only this one")
    parser.add_argument("--keep", type=Path, help="keep the node's folder and log here")
    wanted = parser.parse_args()
    plan = Plan(wanted.cases, wanted.seed, wanted.first, wanted.peers)
    with tempfile.TemporaryDirectory(prefix="m3node-fuzz-") as folder:
        try:
            if wanted.case is not None:
                return _alone(plan, wanted.case, Path(folder))
            outcome = run(plan, Path(folder))
        finally:
            if wanted.keep:
                shutil.copytree(folder, wanted.keep, dirs_exist_ok=True)
    print(outcome)
    return int(bool(outcome.faults))


if __name__ == "__main__":
    sys.exit(main())
