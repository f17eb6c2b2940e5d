"""Series come in from two senders and results go to two failing archives, while random roles of the node are killed.

``python tests/chaos/chaos.py [--series 60] [--kills 30] [--database sqlite|postgresql] [--seed 1]`` prints what
happened and fails when anything was lost, sent in two versions, or left unanswered.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # beside pytest, which does so itself

from archive import Archive, answers_without_status, open_archive
from bookkeeping import ledgers_differ
from checks import Answers, check, read_answers
from killed_node import RECEIVER, SUPERVISOR, KilledNode
from recovery import Gauge, Recovery
from sender import Sender

from lines import whole_lines
from m3node.jobs.engine.dispatch import Dispatcher
from m3node.settings import load
from quick_series import SECONDS, SLICES, STEPS, quick_environment, quick_series, series_uid

POISON_LIMIT = 1000
"""Raised from 3: a kill from outside counts as one that a step brought about, because nobody can tell them apart."""
ROLES = ("acceptor", RECEIVER, "keeper", "clerk", "worker-0", "worker-1", "deliver", SUPERVISOR)
PAUSE = (0.1, 1.2)
"""Seconds between a kill and the next."""
LOOK_SECONDS = 15.0
"""How long a role is looked for that is at work just now."""
LEDGER_SECONDS = 60.0
"""How long the ledger may be behind the files; it follows them every two."""
DETECT_SECONDS = 0.5

# A database that is locked would be said at that level here and there.
SETTINGS = f"""
[log]
level = "DEBUG"
[listener]
receivers = 2
callers = [{{ae_title = "CT1"}}, {{ae_title = "CT2"}}]
[completeness]
quiet_seconds = 3
[detector]
name = "quick"
[jobs]
slots = 2
poison_limit = {POISON_LIMIT}
[delivery]
retry_first_seconds = 0.2
retry_max_seconds = 1
response_seconds = 10
commitment_seconds = 5
"""


@dataclass(frozen=True)
class Plan:
    """How much chaos."""

    series: int = 60
    kills: int = 30
    seed: int = 1
    database_url: str = ""
    failing: float = 0.3
    patience: float = 300.0
    """Seconds that the node has after the last kill to answer and deliver everything."""


@dataclass
class Outcome:
    """What happened."""

    kills: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    repeats: Counter[str] = field(default_factory=Counter)
    recovery: dict[str, list[float]] = field(default_factory=dict)
    archives: list[Archive] = field(default_factory=list)
    answers: Answers = field(default_factory=Answers)
    resent_instances: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)
    log: str = ""

    def __str__(self) -> str:
        lines = [
            f"{sum(self.kills.values())} kills in {self.seconds:.0f} s: {_listed(self.kills)}",
            f"poison_limit raised to {POISON_LIMIT}: a kill from outside counts as a step's own doing",
            f"{self.answers.answered} of {self.answers.series} series answered in {self.answers.generations} runs: "
            f"{_listed(self.answers.outcomes)}",
            f"steps begun: {_listed(self.steps)}; of them repeats: {_listed(self.repeats)}",
            f"instances sent again by their senders: {self.resent_instances}",
        ]
        for archive in self.archives:
            again = sum(archive.offered.values()) - len(archive.offered)
            reports = f"; commitment reports: {_listed(archive.reports)}" if archive.reports else ""
            lines.append(
                f"{archive.name}: {len(archive.kept)} objects kept, {again} sends repeated, "
                f"{sum(archive.failures.values())} stores failed ({_listed(archive.failures)}){reports}"
            )
        every = sorted((seconds, role) for role, all_of_it in self.recovery.items() for seconds in all_of_it)
        if every:
            longest = ", ".join(f"{role} {max(its):.1f}" for role, its in self.recovery.items() if its)
            lines.append(f"longest recovery: {every[-1][0]:.1f} s ({every[-1][1]}); by role: {longest}")
        lines += [f"FAULT: {fault}" for fault in self.faults] or ["no faults"]
        return "\n".join(lines)


def run(plan: Plan, root: Path) -> Outcome:
    """Do it, in a folder that is empty."""
    chance = random.Random(plan.seed)
    seeds = [("chaos", number) for number in range(plan.series)]
    series = [quick_series(root / "series" / str(number), seed, number) for number, seed in enumerate(seeds)]
    outcome = Outcome()
    with ExitStack() as stack:
        stack.enter_context(answers_without_status())
        node = KilledNode(
            root / "node", SETTINGS, quick_environment(**{STEPS: root / "steps", SECONDS: DETECT_SECONDS})
        )
        stack.callback(node.clean_up)
        outcome.archives = [
            stack.enter_context(open_archive(Archive("first", plan.failing, plan.seed))),
            stack.enter_context(open_archive(Archive("second", plan.failing, plan.seed + 1, report_to=node.port))),
        ]
        _configure(node, plan, outcome.archives)
        node.start()
        senders = [Sender(node, f"CT{k + 1}", series[k::2]) for k in range(2)]
        dispatcher = Dispatcher(load(node.config))
        stack.callback(dispatcher.close)
        recovery = Recovery(_gauges(node, senders, outcome.archives, root / "steps", dispatcher))
        recovery.start()
        started = time.monotonic()
        for sender in senders:
            sender.start()
        try:
            _kill_and_kill(node, senders, recovery, plan, chance)
            _wait_until_all_is_done(node, senders, plan, outcome)
            outcome.seconds = time.monotonic() - started
            recovery.stop()
            if (status := node.stop()) != 0:
                outcome.faults.append(f"the node ended with status {status} after SIGTERM")
        finally:
            for sender in senders:
                sender.give_up()
        outcome.kills = Counter(node.kills)
        outcome.recovery = recovery.seconds
        outcome.resent_instances = sum(sender.repeated for sender in senders)
        begun = [json.loads(line) for line in whole_lines(root / "steps")]
        outcome.steps = Counter(line["step"] for line in begun)
        distinct = Counter(step for step, _ in {(line["step"], line["run"]) for line in begun})
        outcome.repeats = outcome.steps - distinct
        outcome.log = node.log
        acknowledged = [path for sender in senders for path in sender.acknowledged]
        sent = [path for files in series for path in files]
        uids = [series_uid(seed) for seed in seeds]
        outcome.answers = read_answers(node, uids, SLICES)
        outcome.faults += check(node, outcome.answers, outcome.archives, acknowledged, sent)
    return outcome


def _configure(node: KilledNode, plan: Plan, archives: list[Archive]) -> None:
    database = f'database_url = "{plan.database_url}"\n' if plan.database_url else ""
    destinations = "\n".join(archive.toml for archive in archives)
    node.config.write_text(f"{database}{node.config.read_text()}\n{destinations}")


def _kill_and_kill(
    node: KilledNode, senders: list[Sender], recovery: Recovery, plan: Plan, chance: random.Random
) -> None:
    deck: list[str] = []
    allowed = 0
    for number in range(plan.kills):
        # Series come in all the time, so that every kill finds something under way.
        share = min(plan.series, -(-plan.series * (number + 1) // max(1, int(0.8 * plan.kills))))
        for index in range(allowed, share):
            senders[index % 2].allow()
        allowed = share
        time.sleep(chance.uniform(*PAUSE))
        if not deck:
            deck = chance.sample(ROLES, len(ROLES))
        while True:
            role, pid = _victim(node, recovery, deck)
            recovery.killed(role)
            if node.kill_role(role, pid):
                break
        deck.remove(role)
    for sender in senders:
        sender.allow(plan.series)


def _victim(node: KilledNode, recovery: Recovery, deck: Sequence[str]) -> tuple[str, int]:
    """The first role of the deck that is at work; when none is for a while, the first that lives."""
    until = time.monotonic() + LOOK_SECONDS
    while True:
        alive = {role: pid for role, pid in node.alive().items() if role in deck}
        for role in deck:
            if role in alive and recovery.gauges[role].busy():
                return role, alive[role]
        if alive and time.monotonic() >= until:
            return next((role, alive[role]) for role in deck if role in alive)
        time.sleep(0.02)


def _wait_until_all_is_done(node: KilledNode, senders: list[Sender], plan: Plan, outcome: Outcome) -> None:
    deadline = time.monotonic() + plan.patience
    for sender in senders:
        sender.join(max(0.0, deadline - time.monotonic()))
        if sender.is_alive():
            outcome.faults.append(f"{sender.title} could not send everything within {plan.patience:g} s")
    while (left := _left(node, plan.series)) and time.monotonic() < deadline:
        time.sleep(0.1)
    if left:
        outcome.faults.append(f"after {plan.patience:g} s: {left}")
    outcome.faults += _wrong_in_ledger(node)


def _wrong_in_ledger(node: KilledNode) -> list[str]:
    """What the ledger says wrongly, also after it has had the time to follow the files."""
    deadline = time.monotonic() + LEDGER_SECONDS
    for number in itertools.count():
        wrong = ledgers_differ(node, node.root / "ledgers" / str(number))
        if not wrong or time.monotonic() >= deadline:
            return [f"the ledger says of {what}" for what in wrong]
        time.sleep(1.0)
    raise AssertionError


def _left(node: KilledNode, series: int) -> str:
    whole = {item.stack.series_instance_uid for item in node.manifests if len(item.slices) == SLICES}
    runs = _count(node.layout.manifests, "*.json")
    ended = _count(node.layout.results, "*/run.json")
    waiting = _count(node.layout.outbox, "*/*.json")  # also what is stored, and not committed to yet
    if len(whole) == series and ended == runs and not waiting:
        return ""
    return f"{len(whole)} of {series} series are whole, {ended} of {runs} runs have ended, {waiting} deliveries wait"


def _gauges(
    node: KilledNode, senders: list[Sender], archives: list[Archive], steps: Path, dispatcher: Dispatcher
) -> dict[str, Gauge]:
    layout = node.layout

    def acknowledged() -> float:
        return sum(len(sender.acknowledged) for sender in senders)

    def manifests() -> int:
        return _count(layout.manifests, "*.json")

    def indexed() -> int:
        return sum(path.stat().st_size for path in layout.index.glob("*.jsonl"))

    def ended() -> int:
        return _count(layout.results, "*/run.json")

    def begun(worker: str = "") -> list[str]:
        found = [json.loads(line) for line in whole_lines(steps)]
        return [line["run"] for line in found if worker in ("", line["worker"])]

    def anybody_sends() -> bool:
        return any(sender.busy for sender in senders)

    def waiting() -> int:
        return _count(layout.outbox, "*/*.json")

    def at_work(worker: str) -> bool:
        runs = begun(worker)
        return bool(runs) and not node.answered(runs[-1])

    receiving = Gauge(acknowledged, left=anybody_sends, busy=anybody_sends)

    def working(worker: str) -> Gauge:
        return Gauge(lambda: len(begun(worker)), left=lambda: manifests() > ended(), busy=lambda: at_work(worker))

    def in_hand() -> bool:
        return acknowledged() > manifests() * SLICES

    def handed_over() -> int:
        return len({work.subject for work in dispatcher.attempts_of("job:")})

    def unknown() -> bool:
        return manifests() > handed_over()

    return {
        "acceptor": receiving,
        RECEIVER: receiving,
        SUPERVISOR: receiving,
        "keeper": Gauge(indexed, left=in_hand, busy=in_hand),
        "clerk": Gauge(handed_over, left=unknown, busy=unknown),
        "worker-0": working("slot-0"),
        "worker-1": working("slot-1"),
        "deliver": Gauge(
            lambda: sum(sum(archive.offered.values()) for archive in archives),
            left=lambda: waiting() > 0,
            busy=lambda: waiting() > 0,
        ),
    }


def _count(folder: Path, pattern: str) -> int:
    return sum(1 for _ in folder.glob(pattern))


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


@contextmanager
def database(name: str) -> Iterator[str]:
    """The URL of an empty database; empty itself for SQLite, which needs none."""
    if name == "sqlite":
        yield ""
        return
    from postgres import running_postgres

    with running_postgres() as server:
        yield server.url("postgres")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=60)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="keep the node's folder and log here")
    wanted = parser.parse_args()
    status = 0
    for name in ("sqlite", "postgresql") if wanted.database == "both" else (wanted.database,):
        with tempfile.TemporaryDirectory(prefix="m3node-chaos-") as folder, database(name) as url:
            plan = Plan(wanted.series, wanted.kills, wanted.seed, url)
            try:
                outcome = run(plan, Path(folder))
            finally:
                if wanted.keep:
                    shutil.copytree(folder, wanted.keep / name, dirs_exist_ok=True)
            print(f"{name}, seed {plan.seed}\n{outcome}\n", flush=True)
            status |= bool(outcome.faults)
    return status


if __name__ == "__main__":
    sys.exit(main())
