"""Renew the generated tables of docs/conformance.md and docs/monitoring.md: ``tests/write_documents.py --write``.

Without ``--write`` it says which are not what the code does, with exit status 1.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from documents.created import created_tables
from documents.markers import blocks, filled
from documents.metrics import metric_tables
from documents.network import network_tables
from documents.tls import tls_tables

DOCS = Path(__file__).resolve().parents[1] / "docs"
CONFORMANCE, MONITORING = DOCS / "conformance.md", DOCS / "monitoring.md"


def made_tables(folder: Path) -> dict[str, str]:
    """Every table of the conformance statement, by name; ``folder`` takes what is made on the way."""
    created, tables = created_tables(folder)
    return {**network_tables(created), **tls_tables(), **tables}


def main() -> int:
    """Compare, and write where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="renew the tables that differ")
    write = parser.parse_args().write
    with tempfile.TemporaryDirectory() as folder:
        made = {CONFORMANCE: made_tables(Path(folder)), MONITORING: metric_tables()}
    differs = False
    for document, tables in made.items():
        text = document.read_text(encoding="utf-8")
        old = [name for name, block in blocks(text).items() if block != tables[name]]
        if old and write:
            document.write_text(filled(text, tables), encoding="utf-8")
        for name in old:
            print(f"{document.name}: {name} {'renewed' if write else 'is not what the code does'}")
        differs |= bool(old)
    return 1 if differs and not write else 0


if __name__ == "__main__":
    raise SystemExit(main())
