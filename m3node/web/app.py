"""The application: which address leads where."""

from __future__ import annotations

import logging
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from m3node import __version__
from m3node.errors import ConfigError, DatabaseError
from m3node.web import acting, pages, probes, signing
from m3node.web.doorkeeper import Doorkeeper
from m3node.web.front import UNEXPECTED, Front
from m3node.web.site import Site, site_of

_log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"

_SENTENCES = {
    404: "There is no page at this address.",
    405: "This address does not take this kind of request.",
}


def make_app(site: Site) -> ASGIApp:
    """Return the application of a node's page.

    Parameters
    ----------
    site : Site
        What its pages share; who made it closes it.
    """
    app = Starlette(
        routes=[
            Route("/", pages.overview),
            Route("/studies", pages.study_list),
            Route("/studies/{uid}", pages.study),
            Route("/runs/{run}/{picture}", pages.picture),
            Route("/jobs", pages.job_list),
            Route("/dead", pages.dead),
            Route("/destinations", pages.destinations),
            Route("/about", pages.about),
            Route("/requeue", acting.requeue, methods=["POST"]),
            Route("/cancel", acting.cancel, methods=["POST"]),
            Route("/sign-in", signing.form),
            Route("/sign-in", signing.sign_in, methods=["POST"]),
            Route("/sign-out", signing.sign_out, methods=["POST"]),
            Route("/livez", probes.livez),
            Route("/readyz", probes.readyz),
            Route("/metrics", probes.metrics),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(Doorkeeper, site=site)],
        exception_handlers={
            HTTPException: _explained,
            DatabaseError: _no_database,
            ConfigError: _no_database,
            Exception: _unexpected,
        },
    )
    app.state.site = site
    app.state.version = __version__
    return Front(app, site)


def _explained(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = _SENTENCES.get(error.status_code, "This request cannot be answered.")
    return site_of(request).answer(request, error.status_code, text, error.headers)


def _no_database(request: Request, error: Exception) -> Response:
    text = f"{error}. Jobs and deliveries are safe in files, and go on when the database is there."
    return site_of(request).answer(request, 503, text)


def _unexpected(request: Request, error: Exception) -> Response:
    # It is raised again, and `Front` logs it.
    return site_of(request).answer(request, 500, UNEXPECTED)
