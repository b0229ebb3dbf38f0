"""A real PostgreSQL for tests: of this machine (``apt-get install postgresql``), on a port and in a folder of its own.

It needs the contrib extension pg_trgm, which Prefect's migrations create and which PostgreSQL wheels of PyPI lack.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PASSWORD = "only-in-the-environment"
ROLE = "reca"
ROOT_ROLE = "postgres"
"""PostgreSQL refuses to run as root; Debian's package brings this user."""


@dataclass(frozen=True)
class Database:
    """A running server whose role ``reca`` may create databases and no more."""

    port: int

    @property
    def address(self) -> str:
        return f"postgresql://{ROLE}@127.0.0.1:{self.port}/"

    def ask(self, database: str, question: str) -> list[tuple[Any, ...]]:
        import psycopg2

        connection = psycopg2.connect(host="127.0.0.1", port=self.port, user=ROLE, password=PASSWORD, dbname=database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(question)
                found: list[tuple[Any, ...]] = cursor.fetchall()
                return found
        finally:
            connection.close()


def programs() -> Path:
    """The folder of initdb and pg_ctl."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return (found[-1] if found else Path(str(on_path))).parent


@contextmanager
def running_database(port: int) -> Iterator[Database]:
    """A server for the block; nothing of it is left."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    user = ROOT_ROLE if os.geteuid() == 0 else None
    if user:
        shutil.chown(folder, user)
    data, secret = folder / "data", folder / "secret"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)

    def call(program: str, *words: str) -> None:
        with (folder / "log").open("ab") as log:
            command = [str(programs() / program), *words]
            subprocess.run(command, check=True, stdout=log, stderr=log, user=user, cwd=folder, timeout=60)

    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    try:
        call("initdb", "-D", str(data), "-U", "postgres", "--pwfile", str(secret), "-A", "scram-sha-256")
        call("pg_ctl", "-D", str(data), "-o", options, "-w", "start")
        try:
            _make_role(port)
            yield Database(port)
        finally:
            call("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder)


def _make_role(port: int) -> None:
    import psycopg2

    connection = psycopg2.connect(host="127.0.0.1", port=port, user="postgres", password=PASSWORD, dbname="postgres")
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{PASSWORD}'")
    connection.close()
