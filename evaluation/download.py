"""Downloads over HTTP into files: streamed, retried, checked against a hash before the file gets its name."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from evaluation.benchmarks.data import git_blob
from reca_core.contracts.errors import PrerequisiteMissing
from reca_core.contracts.files import sync_directory

ATTEMPTS = 4
FIRST_PAUSE_SECONDS = 1.0
"""Doubled after every attempt."""
TIMEOUT_SECONDS = 60.0
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
SMALL_BYTES = 64 * 1024 * 1024
"""Most that is ever held in memory: text files and listings."""


@dataclass(frozen=True)
class Hosts:
    """Where the origins are reached; other values serve mirrors."""

    files: str = "https://raw.githubusercontent.com"
    archives: str = "https://codeload.github.com"
    hub: str = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    coco: str = "https://s3.amazonaws.com/images.cocodataset.org"


class NotHad(PrerequisiteMissing):
    """An address gave no file."""


def get_bytes(urls: Sequence[str], remedy: str) -> bytes:
    """The content behind the first address that has it. Raises NotHad naming all that were tried, with reasons."""
    reasons: list[str] = []
    for url in urls:
        try:
            with _opened(url) as response:
                return _limited(response)
        except (httpx.HTTPError, NotHad) as error:
            reasons.append(f"{url}: {_words(error)}")
    raise NotHad("; ".join(reasons), field="download", remedy=remedy)


def get_file(url: str, target: Path, sha256: str, git_blob_id: str, remedy: str) -> None:
    """Download to ``target``, which appears only if its hash is right.

    Raises NotHad where nothing comes, PrerequisiteMissing where something else came.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    part.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    try:
        with _opened(url) as response, part.open("wb") as stream:
            for chunk in response.iter_bytes():
                digest.update(chunk)
                stream.write(chunk)
            stream.flush()
            os.fsync(stream.fileno())
        found = digest.hexdigest() if sha256 else git_blob(part.read_bytes())
        if found != (sha256 or git_blob_id):
            fact = f"{url} is not what was listed: expected hash {sha256 or git_blob_id}, found {found}"
            raise PrerequisiteMissing(fact, field=target.name, remedy=remedy)
        os.replace(part, target)
        sync_directory(target.parent)
    except httpx.HTTPError as error:
        raise NotHad(f"{url}: {_words(error)}", field="download", remedy=remedy) from error
    finally:
        part.unlink(missing_ok=True)


def get_json(url: str, remedy: str) -> Any:
    """Parsed JSON. Raises NotHad for anything else."""
    content = get_bytes([url], remedy)
    try:
        return httpx.Response(200, content=content).json()
    except ValueError as error:
        raise NotHad(f"{url} is no JSON", field="download", remedy=remedy) from error


@contextlib.contextmanager
def _opened(url: str) -> Iterator[httpx.Response]:
    """A response that began well. Passing faults of the connection or the server are tried again."""
    with httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=True) as client:
        response = _begun(client, url)
        try:
            if not response.is_success:
                raise NotHad(f"status {response.status_code}")
            yield response
        finally:
            response.close()


def _begun(client: httpx.Client, url: str) -> httpx.Response:
    pause = FIRST_PAUSE_SECONDS
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(httpx.TransportError):
            response = client.send(client.build_request("GET", url), stream=True)
            if response.status_code not in TRANSIENT:
                return response
            response.close()
        time.sleep(pause)
        pause *= 2
    return client.send(client.build_request("GET", url), stream=True)


def _limited(response: httpx.Response) -> bytes:
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > SMALL_BYTES:
            raise NotHad(f"more than {SMALL_BYTES} bytes")
    return bytes(content)


def _words(error: Exception) -> str:
    return error.fact if isinstance(error, NotHad) else (str(error) or type(error).__name__)
