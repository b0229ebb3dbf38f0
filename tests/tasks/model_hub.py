"""As much of the hub's protocol as downloading public model repositories needs, on this machine."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
import urllib.parse
from collections.abc import Mapping
from pathlib import Path


class Hub(http.server.ThreadingHTTPServer):
    """``files``: repository -> path -> content, of the one commit that each repository has."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.asked: list[tuple[str, str]] = []
        """(repository, revision) of every look-up."""
        self.downloads: list[str] = []
        self.address = f"http://127.0.0.1:{self.server_address[1]}"

    def begin(self) -> None:
        """Serve in the background."""
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def publish(self, repository: str, files: Mapping[str, bytes]) -> str:
        """Add files to a repository; returns its commit, which they decide."""
        self.files[repository] = {**self.files.get(repository, {}), **files}
        return self.commit(repository)

    def publish_folder(self, repository: str, folder: Path) -> str:
        """All files below a folder."""
        paths = [path for path in folder.rglob("*") if path.is_file()]
        return self.publish(repository, {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths})

    def commit(self, repository: str) -> str:
        """Forty hex digits over the repository's content."""
        digest = hashlib.sha1(repository.encode())
        for name, content in sorted(self.files[repository].items()):
            digest.update(name.encode() + hashlib.sha1(content).digest())
        return digest.hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

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

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = urllib.parse.unquote(urllib.parse.urlparse(self.path).path).strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        repository = "/".join(parts[2:4] if api else parts[:2])
        if repository not in self.server.files:
            return self.fail("RepoNotFound")
        rest = parts[4:] if api else parts[2:]
        revision = rest[1] if len(rest) > 1 else "main"
        if revision not in ("main", self.server.commit(repository)):
            return self.fail("RevisionNotFound")
        if api:
            return self.listing(repository, revision, tree=bool(rest) and rest[0] == "tree")
        return self.file(repository, "/".join(rest[2:]))

    def listing(self, repository: str, revision: str, tree: bool) -> None:
        self.server.asked.append((repository, revision))
        files, commit = self.server.files[repository], self.server.commit(repository)
        if tree:
            entries = [{"type": "file", "path": n, "size": len(c), "oid": sha1(c)} for n, c in files.items()]
            return self.json(entries)
        return self.json({"id": repository, "sha": commit, "siblings": [{"rfilename": name} for name in files]})

    def file(self, repository: str, name: str) -> None:
        content = self.server.files[repository].get(name)
        if content is None:
            return self.fail("EntryNotFound")
        if self.command == "GET":
            self.server.downloads.append(f"{repository}/{name}")
        headers = {"ETag": f'"{sha1(content)}"', "X-Repo-Commit": self.server.commit(repository)}
        return self.answer(200, content, **headers)


def sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
