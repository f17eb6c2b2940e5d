"""Renew the generated tables of docs/conformance.md: ``python tests/write_documents.py --write``.

Without ``--write`` it says which are not what the code does, with exit status 1.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from documents.created import created_tables
from documents.markers import blocks, filled
from documents.network import network_tables
from documents.tls import tls_tables

CONFORMANCE = Path(__file__).resolve().parents[1] / "docs" / "conformance.md"


def made_tables(folder: Path) -> dict[str, str]:
    """Every table, by name; ``folder`` takes what is made on the way."""
    created, tables = created_tables(folder)
    return {**network_tables(created), **tls_tables(), **tables}


def main() -> int:
    """Compare, and write where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="renew the tables that differ")
    write = parser.parse_args().write
    with tempfile.TemporaryDirectory() as folder:
        made = made_tables(Path(folder))
    text = CONFORMANCE.read_text(encoding="utf-8")
    old = [name for name, block in blocks(text).items() if block != made[name]]
    if write:
        CONFORMANCE.write_text(filled(text, made), encoding="utf-8")
    for name in old:
        print(f"{CONFORMANCE.name}: {name} {'renewed' if write else 'is not what the code does'}")
    return 1 if old and not write else 0


if __name__ == "__main__":
    raise SystemExit(main())
