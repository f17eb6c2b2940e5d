"""A headless Chromium, spoken to over a pipe in its DevTools protocol: what a page shows, loads and complains of."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
    *("--no-first-run", "--disable-extensions", "--disable-background-networking", "--remote-debugging-pipe"),
)

Event = dict[str, Any]


class Page:
    """One page. Use it in a ``with`` statement; the browser ends with it.

    Parameters
    ----------
    program : str
        The browser.
    profile : Path
        An empty folder for its profile.
    """

    def __init__(self, program: str, profile: Path) -> None:
        to_read, to_write = os.pipe()
        from_read, from_write = os.pipe()
        words = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        # It reads commands from descriptor 3 and answers on 4.
        command = f"exec {shlex.join(words)} 3<&{to_read} 4>&{from_write}"
        with (profile / "said").open("wb") as said:
            self._process = subprocess.Popen(
                ["bash", "-c", command],
                pass_fds=(to_read, from_write),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
            )
        os.close(to_read)
        os.close(from_write)
        self._to, self._from, self._ahead = to_write, from_read, b""
        self._number = 0
        self._session = ""
        self.events: list[Event] = []

    def __enter__(self) -> Page:
        try:
            self._attach()
        except BaseException:
            self._process.kill()
            self.__exit__(None, None, None)
            raise
        return self

    def _attach(self) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._to)  # tells it to end
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._from)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method and wait for its result; events that come first are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._write(json.dumps(message).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self._number:
                assert "error" not in told, told
                result: dict[str, Any] = told["result"]
                return result
            self.events.append(told)

    def open(self, url: str) -> None:
        """Go to a page and wait until it is loaded; events of the one before are forgotten."""
        self.events.clear()
        assert "errorText" not in self.call("Page.navigate", url=url)
        while not self.told("Page.loadEventFired"):
            self.events.append(self._next())

    def value(self, expression: str) -> Any:
        """Return what an expression of JavaScript comes to, awaited."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def pictures(self) -> dict[str, int]:
        """Return the width of every picture by its address; 0 of one that is not there."""
        found: dict[str, int] = self.value(
            "Promise.all([...document.images].map(async one => {"
            " one.loading = 'eager'; await one.decode().catch(() => 0);"
            " return [one.getAttribute('src'), one.naturalWidth] })).then(Object.fromEntries)"
        )
        return found

    def told(self, method: str) -> list[dict[str, Any]]:
        """Return the parameters of the events of one kind since the page was opened."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def complaints(self) -> list[str]:
        """Return what it has to say about the page: console messages, exceptions, and whatever was refused."""
        said = [f"{one['entry']['level']}: {one['entry']['text']}" for one in self.told("Log.entryAdded")]
        said += [f"console: {one['args']}" for one in self.told("Runtime.consoleAPICalled")]
        return said + [str(one) for one in self.told("Runtime.exceptionThrown")]

    def requests(self) -> set[str]:
        """Return the addresses of all that was asked for."""
        return {one["request"]["url"] for one in self.told("Network.requestWillBeSent")}

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._to, data) :]

    def _next(self) -> Event:
        while b"\0" not in self._ahead:
            data = os.read(self._from, 1 << 16)
            assert data, "the browser ended"
            self._ahead += data
        message, _, self._ahead = self._ahead.partition(b"\0")
        event: Event = json.loads(message)
        return event
