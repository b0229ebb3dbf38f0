"""What every stand-in for the hub's HTTP protocol says in the same words: answers, refusals, files."""

from __future__ import annotations

import hashlib
import http.server
import json


class HubHandler(http.server.BaseHTTPRequestHandler):
    """A stand-in overrides ``get``; to ``HEAD`` its headers are sent."""

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def fail(self, code: str) -> None:
        self.answer(404, b"", **{"X-Error-Code": code})

    def json(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode(), **{"content-type": "application/json"})

    def content(self, content: bytes, commit: str) -> None:
        """A file of a repository."""
        self.answer(200, content, **{"ETag": f'"{sha1(content)}"', "X-Repo-Commit": commit})

    def do_HEAD(self) -> None:
        self.get()

    def do_GET(self) -> None:
        self.get()

    def get(self) -> None:
        """What the stand-in answers."""
        raise NotImplementedError


def entry(name: str, content: bytes) -> dict[str, object]:
    """A file as the hub lists it."""
    return {"type": "file", "path": name, "size": len(content), "oid": sha1(content)}


def sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
