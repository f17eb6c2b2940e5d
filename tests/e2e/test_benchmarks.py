"""The benchmarks run and print what they promise; how fast, and whether a bar is met, is for ``make bench`` to say."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

# A process whose second thread starts a child that takes 64 MiB; each says when it is there.
FAMILY = """
import subprocess, sys, threading
child = "held = bytearray(b'x') * 2**26; print('held', flush=True); input()"
threading.Thread(target=subprocess.run, args=([sys.executable, "-c", child],)).start()
"""


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # a frozen dataclass asks for its module
    spec.loader.exec_module(loaded)
    return loaded


def table_of(name: str, *options: str) -> str:
    """What a benchmark prints; it ends with 1 when a bar is not met, which a loaded machine may well do."""
    command = [sys.executable, BENCHMARKS / f"{name}.py", *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    assert "ratio (median)" in done.stdout, done.stderr
    return done.stdout


def test_receiving_is_compared_with_storescp_on_one_and_on_four_associations(program: Callable[[str], str]) -> None:
    for name in ("storescu", "storescp"):
        program(name)
    table = table_of("receive", "--slices", "8", "--pairs", "1")
    assert "1 association, against storescp" in table
    assert "4 associations, against storescp --fork" in table
    assert "1 association over TLS, against storescp +tls" in table


def test_receiving_beside_idle_connections_is_compared_with_receiving_alone(program: Callable[[str], str]) -> None:
    program("storescu")
    table = table_of("idle", "--slices", "8", "--pairs", "1", "--idle", "30")
    assert "4 associations, beside 30 idle, against alone" in table
    assert "1 association over TLS, beside 30 idle, against alone" in table


def test_reading_a_series_is_compared_with_simpleitk_after_the_voxels_were_found_equal() -> None:
    table = table_of("volume", "--slices", "20", "--pairs", "1", "--workers", "2")
    assert "uncompressed, against SimpleITK" in table
    assert "JPEG 2000 lossless, against SimpleITK" in table


def test_the_memory_of_a_child_counts_whichever_thread_started_it() -> None:
    memory = module("memory")
    with subprocess.Popen(
        [sys.executable, "-c", FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert len(memory._descendants(process.pid)) == 2
        assert 67 < memory._tree_mb(process.pid) < 67 + 60  # 64 MiB, and two interpreters
        process.communicate("\n")


def test_a_bar_is_met_by_the_median_of_the_pairs_and_a_row_without_one_only_informs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = module("table")
    ours, rival = [1.0, 2.0, 9.0], [1.0, 1.0, 1.0]
    assert table.RatioRow("x", ours, rival).ratios == [1.0, 2.0, 9.0]
    for bar, met in ((2.0, True), (1.9, False), (None, True)):
        assert table.print_ratios("title", [table.RatioRow("what", ours, rival, bar)]) is met
    assert not table.print_ratios("title", [table.RatioRow("a", ours, rival, 1.0), table.RatioRow("b", ours, rival)])
    assert "1.00–9.00" in capsys.readouterr().out
