"""What programs ask: whether the process lives, whether the node does its work, and its metrics."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from m3node.health.checks import ready
from m3node.health.exposition import CONTENT_TYPE, exposition
from m3node.web.site import site_of, visit_of


async def livez(request: Request) -> Response:
    """Say that the process lives, whatever else is the matter."""
    return PlainTextResponse("ok\n")


def readyz(request: Request) -> Response:
    """Say of each check what state it is in; to who may see the page, why and what to do as well."""
    site, known = site_of(request), bool(visit_of(request).user)
    checks = site.checks()
    fine = ready(checks)
    shown = [
        {"name": item.name, "state": item.state} | ({"message": item.message, "action": item.action} if known else {})
        for item in checks
    ]
    return JSONResponse({"ready": fine, "checks": shown}, 200 if fine else 503)


def metrics(request: Request) -> Response:
    """Give the metrics in Prometheus' format."""
    site = site_of(request)
    return Response(exposition(site.settings, time.time(), site.seen()), media_type=CONTENT_TYPE)
