"""Lays the report out: one HTML file with its own style, no script, nothing fetched but the pictures beside it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from m3node.attention.output.folder import REPORT, TABLE
from m3node.attention.output.report.plots import CLASSES, HEIGHT, TITLES, WIDTH
from m3node.attention.output.report.summary import Summary, summarise
from m3node.attention.output.rows import Row
from m3node.attention.output.setup import Setup
from m3node.attention.questions.question import Question
from m3node.durable import write_over
from m3node.notice import ATTENTION_NOTICE, NOT_FOR_CLINICAL_USE

TEMPLATES = Path(__file__).parent / "templates"


def write_report(
    setup: Setup, questions: Sequence[Question], rows: Sequence[Row], out: Path, robustness: Any = None
) -> Path:
    """Write ``report.html``.

    Parameters
    ----------
    setup, questions, rows, out, robustness
        As for `m3node.attention.output.report.summary.summarise`.

    Returns
    -------
    Path
        The page.
    """
    path = out / REPORT
    write_over(path, render(summarise(setup, questions, rows, out, robustness)).encode("utf-8", errors="replace"))
    return path


def render(summary: Summary) -> str:
    """Make the page's HTML. Everything of tables, files and models is escaped; there is no script to be smuggled in."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["link"] = lambda name: quote(str(name), safe="/")
    environment.filters["percent"] = lambda share, digits=0: "" if share is None else f"{share * 100:.{digits}f} %"
    environment.filters["number"] = lambda value, digits=3: "" if value is None else f"{value:.{digits}f}"
    environment.filters["fixed"] = lambda value: f"{value:.2f}".rstrip("0").rstrip(".")
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    # The page's own style, known by its digest, and pictures beside it: nothing else is loaded or run.
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return environment.get_template("report.html").render(
        s=summary,
        style=Markup(style),
        policy=f"default-src 'none'; img-src 'self' file: data:; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'",
        notice=ATTENTION_NOTICE,
        clinical=NOT_FOR_CLINICAL_USE,
        table=TABLE,
        plot={"width": WIDTH, "height": HEIGHT, "kinds": CLASSES, "titles": TITLES},
    )
