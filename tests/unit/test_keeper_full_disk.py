"""On a disk that is really full the keeper waits, and afterwards has lost nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from small_disk import run_on_small_disk

PROGRAM = """
import json, logging, sys
from pathlib import Path
from keeping import QUIET, Node
from m3node.intake.keeper.keeper import RETRY_SECONDS, TROUBLE_SECONDS
from small_disk import fill, give_back

logging.basicConfig(level="INFO", stream=sys.stderr, format="%(levelname)s %(message)s")
disk, case = Path(sys.argv[1]), sys.argv[2]
node = Node(disk / "node")
arrived, quiet, older = node.series(1), node.series(2), node.series(3, slices=60)

def wait(times):
    for _ in range(times):
        node.wait(QUIET)
        node.wait(RETRY_SECONDS)

node.store(*older)
wait(1)
node.store(*quiet)
node.keeper.step()  # in the index, and not answered
node.store(*arrived, urgent=arrived, close=False)  # on disk, and not in the index
fill(disk)
wait(3)
full = [node.manifests_of(seed) for seed in (1, 2, 3)]
leases = len(list(node.layout.associations.iterdir()))
if case == "killed":
    node.restart()
    wait(3)
if case == "purged":
    node.purge(3)
else:
    give_back(disk)
node.close()
node.wait(TROUBLE_SECONDS)
wait(3)
print(json.dumps({
    "full": full,
    "leases": leases,
    "after": [node.manifests_of(seed) for seed in (1, 2, 3)],
    "slices": sorted(len(manifest.slices) for manifest in node.manifests),
    "priorities": sorted(manifest.priority for manifest in node.manifests),
    "left": len(node.files(3)),
    "reasons": len(node.recorded),
    "waiting": len(node.keeper.waiting),
}))
"""


@pytest.mark.parametrize("case", ["space returns", "killed", "purged"])
def test_the_keeper_waits_for_room_and_then_answers_all_that_arrived(tmp_path: Path, case: str) -> None:
    done = run_on_small_disk(tmp_path / "disk", 6, PROGRAM, str(tmp_path / "disk"), case)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout)
    assert said == {
        "full": [0, 0, 1],
        "leases": 1,  # it says more than the spool, so that it stays until it was read to its end
        "after": [1, 1, 1],
        "slices": [12, 12, 60],
        "priorities": ["routine", "routine", "stat"],
        "left": 0 if case == "purged" else 60,
        "reasons": 0,
        "waiting": 0,
    }
    lives = 2 if case == "killed" else 1
    assert done.stderr.count("ERROR the disk refuses") == lives
    assert done.stderr.count("ERROR series") <= 2 * lives
    assert "the disk takes notes again" in done.stderr
