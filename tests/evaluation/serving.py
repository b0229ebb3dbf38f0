"""A real HTTP server on this machine for tests: every request goes to one function, which may misbehave as it likes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Request(BaseHTTPRequestHandler):
    """One request. ``content`` is its body; ``reply`` answers it."""

    protocol_version = "HTTP/1.1"
    content = b""

    def reply(self, status: int, content: bytes, content_type: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests look at ``Served.paths``."""


@dataclass
class Served:
    """What a test sees of its server."""

    url: str
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)


@contextlib.contextmanager
def served(handle: Callable[[Request], None]) -> Iterator[Served]:
    """A server whose answers ``handle`` gives, from a thread per request."""
    lock = threading.Lock()

    class Handler(Request):
        def do_GET(self) -> None:
            with lock:
                seen.paths.append(self.path)
                seen.headers.append({name.lower(): value for name, value in self.headers.items()})
                self.content = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                seen.bodies.append(self.content)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                handle(self)

        do_POST = do_GET  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    seen = Served(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
