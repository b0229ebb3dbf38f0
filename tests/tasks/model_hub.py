"""As much of the hub's protocol as downloading public model repositories needs, on this machine."""

from __future__ import annotations

import hashlib
import http.server
import threading
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

from tests.hub_protocol import HubHandler, entry, sha1


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


class Handler(HubHandler):
    server: Hub

    def get(self) -> None:
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
            return self.json([entry(*file) for file in files.items()])
        siblings = [
            {"rfilename": name, "size": len(content), "blobId": sha1(content)} for name, content in files.items()
        ]
        return self.json({"id": repository, "sha": commit, "siblings": siblings})

    def file(self, repository: str, name: str) -> None:
        content = self.server.files[repository].get(name)
        if content is None:
            return self.fail("EntryNotFound")
        if self.command == "GET":
            self.server.downloads.append(f"{repository}/{name}")
        return self.content(content, self.server.commit(repository))
