"""A report that is served on this machine alone, and drawn again while runs go on.

The standard library's server, on the loopback address, gives the page and its own plots and tables, from memory: no
file of the disk is named by a request. The page holds no script; its browser asks again every few seconds.
"""

from __future__ import annotations

import errno
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from sslcollapse.core.errors import RunError
from sslcollapse.core.texts import say
from sslcollapse.report.ablation_page import page_of, watched_files, write_report
from sslcollapse.report.page import INDEX, render_page

HOST, PORT = "127.0.0.1", 8421
SECONDS = 10.0
"""From one look at the files to the next, and from one refresh of the browser to the next."""

SHARE = 4.0
"""A drawing that takes t seconds is followed by a pause of this many t, so that training is not slowed down."""

_TYPES = {"html": "text/html; charset=utf-8", "svg": "image/svg+xml", "png": "image/png", "csv": "text/csv"}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:",
    "X-Content-Type-Options": "nosniff",
}

Drawing = Mapping[str, bytes]
"""``index.html``, ``plots/loss.svg``, ... → content."""


class LiveReport:
    """The newest drawing of a report.

    Args:
        draw: makes the files of the page.
        watch: describes the files that it is made of, so that a change is seen.

    Attributes:
        files: of the newest drawing.
    """

    def __init__(self, draw: Callable[[], Drawing], watch: Callable[[], object]) -> None:
        self._draw, self._watch = draw, watch
        self._seen: object = None
        self._pause_until = 0.0
        self._failed = ""
        self.files: Drawing = {}

    def refresh(self) -> bool:
        """Draw again if something has changed; whether it did. What cannot be read leaves the page as it was.

        Raises:
            Exception: whatever is wrong, where there is no page yet.
        """
        if time.monotonic() < self._pause_until:
            return False
        began = time.monotonic()
        try:
            seen = self._watch()
            if seen == self._seen:
                began = time.monotonic()  # nothing was drawn, so that no pause follows
                return False
            self.files = self._draw()
        except Exception as error:  # half of a file can make a plot fail in any way
            if not self.files:
                raise
            if str(error) != self._failed:  # half of a file, perhaps; the next look will tell
                self._failed = str(error)
                say(f"the page stays as it was: {error}")
            return False
        finally:
            self._pause_until = time.monotonic() + SHARE * (time.monotonic() - began)
        self._seen, self._failed = seen, ""
        return True


@contextmanager
def serving(report: LiveReport, port: int = PORT) -> Iterator[str]:
    """Serve a report on the loopback address within the block, which is given the address of the page.

    Raises:
        RunError: the port is in use, or may not be used.
    """

    class Handler(_Handler):
        newest = report

    try:
        server = _Server((HOST, port), Handler)
    except (OSError, OverflowError) as error:
        busy = getattr(error, "errno", None) == errno.EADDRINUSE
        reason = "is in use by another program" if busy else f"cannot be used ({error})"
        raise RunError(
            f"port {port} of {HOST} {reason}; give another one with --port, or --port 0 for a free one"
        ) from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def report(paths: Sequence[Path], *, out: Path | None, runs: Path, results: Path, port: int | None) -> None:
    """Write a report and print where it is; or serve it on a port until Ctrl-C. See ``write_report``."""
    if port is None:
        print(write_report(paths, out=out, runs=runs, results=results))
    else:
        serve_report(paths, runs=runs, results=results, port=port)


def serve_report(
    paths: Sequence[Path],
    *,
    runs: Path = Path("runs"),
    results: Path = Path("docs/results"),
    port: int = PORT,
    seconds: float = SECONDS,
) -> None:
    """Serve the page of runs or of an ablation until Ctrl-C, and draw it again when their files change.

    Args:
        paths: as ``write_report`` takes them.
        runs: where run directories of an ablation are looked for.
        results: where the records of an ablation file are.
        port: on the loopback address; 0 for a free one.
        seconds: from one look at the files to the next.

    Raises:
        RunError: a path is no run and no ablation, or the port cannot be used.
        RecipeError: an ablation file is wrong.
    """

    def draw() -> Drawing:
        page, _ = page_of(paths, runs=runs, results=results)
        page.notes = [*page.notes, f"Drawn at {time.strftime('%H:%M:%S')}, and again while the run goes on."]
        return render_page(page, refresh=seconds)

    newest = LiveReport(draw, lambda: _described(watched_files(paths, runs=runs, results=results)))
    try:
        with serving(newest, port) as address:
            newest.refresh()
            say(f"{address} (Ctrl-C to stop)")
            while True:
                time.sleep(seconds)
                newest.refresh()
    except KeyboardInterrupt:
        say("the page is served no more")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong, but not that a browser did not wait for its answer."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    newest: LiveReport
    timeout = 60.0
    """Seconds after which a connection that asks for nothing is closed, and its thread with it."""

    def do_GET(self) -> None:
        self._answer(True)

    def do_HEAD(self) -> None:
        self._answer(False)

    def _answer(self, body: bool) -> None:
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if host not in (HOST, "localhost"):  # a page of somebody else, whose name leads here
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        name = self.path.partition("?")[0].lstrip("/") or INDEX
        data = self.newest.files.get(name)
        if data is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self.send_response(HTTPStatus.OK)
        fields = {"Content-Type": _TYPES[name.rpartition(".")[2]], "Content-Length": str(len(data)), **_HEADERS}
        for key, value in fields.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Requests are not shown."""


def _described(files: Sequence[Path]) -> list[tuple[str, int, int]]:
    """Path, time and size of each file that is there."""
    found = []
    for path in files:
        try:
            status = path.stat()
        except OSError:
            continue
        found.append((str(path), status.st_mtime_ns, status.st_size))
    return found
