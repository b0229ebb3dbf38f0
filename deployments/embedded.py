"""The Prefect server of a run that asked for none: its own process, its own sqlite file, gone when the run is gone.

Prefect would start such a server by itself, but leave it running when the run is killed with SIGKILL (its stop is an
``atexit`` hook). Ours asks the kernel to be killed with its parent. It starts while flows are being imported.

    python -m deployments.embedded DESCRIPTOR    what ``EmbeddedServer`` runs, with the socket it inherits
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
from filelock import FileLock

from deployments.environment import START_VARIABLE
from reca_core.contracts.errors import PrerequisiteMissing
from reca_core.contracts.lifeline import child_environment, die_with_parent
from reca_core.contracts.variables import whole_number

START_SECONDS = 120
"""Until the API answers; RECA_SERVER_START_SECONDS is another time."""
STOP_LIMIT_SECONDS = 5.0
POLL_SECONDS = 0.1
LAST_LINES = 15
ENDED_REMEDY = "pip install -r requirements.lock (newer fastapi or sqlalchemy than the lock break the servers)"

SERVER_VARIABLES = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
"""As Prefect's own temporary server: no pages, only the services that a single run needs."""


class EmbeddedServer:
    """One Prefect API for one run. ``begin`` returns at once; ``wait`` until it answers; ``stop`` ends it.

    Begin it from a thread that outlives it: the kernel ties the server's life to that thread.
    """

    def __init__(self, prefect_home: Path) -> None:
        self.prefect_home = prefect_home
        # Held until the server has it: a port that was only found free may be taken meanwhile.
        self._socket = bound_socket()
        self.port: int = self._socket.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        self._migrating = FileLock(prefect_home / "migration.lock", thread_local=False)

    @property
    def api_url(self) -> str:
        """What PREFECT_API_URL has to be."""
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def log(self) -> Path:
        """The server's own output."""
        return self.prefect_home / "server.log"

    def begin(self) -> None:
        """Start the process. Two runs on one home take turns: both would create the same tables."""
        self._migrating.acquire()
        descriptor = self._socket.fileno()
        command = [sys.executable, "-m", "deployments.embedded", str(descriptor)]
        with self._socket, self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=child_environment(os.environ | SERVER_VARIABLES),
                pass_fds=[descriptor],
                process_group=0,  # Ctrl-C in the terminal is for the run, which then stops its server
            )

    def wait(self) -> None:
        """Return when the API answers. Raises PrerequisiteMissing with the server's last lines if it never does, and
        BadInput for a time that is none.
        """
        try:
            seconds = whole_number(START_VARIABLE, START_SECONDS, os.environ)
            deadline = time.monotonic() + seconds
            while not self._answers():
                if self.process is None or self.process.poll() is not None:
                    raise self._failure("ended", ENDED_REMEDY)
                if time.monotonic() > deadline:
                    raise self._failure(f"did not answer within {seconds} s", late_remedy(seconds))
                time.sleep(POLL_SECONDS)
        finally:
            self._migrating.release()

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.api_url}/health", trust_env=False).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def _failure(self, what: str, remedy: str) -> PrerequisiteMissing:
        lines = self.log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        return PrerequisiteMissing(
            f"the embedded Prefect server did not start: it {what}\n  " + "\n  ".join(lines),
            field=str(self.log),
            remedy=remedy,
        )

    def stop(self) -> None:
        """End the server: politely, then not."""
        self._migrating.release(force=True)
        self._socket.close()
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None


def late_remedy(seconds: int) -> str:
    """What to do where a server had too little time."""
    return f"on a busy machine give it more time: {START_VARIABLE}={2 * seconds}; else {ENDED_REMEDY}"


def bound_socket() -> socket.socket:
    """A socket with a port of this machine that is its own; nobody can connect before somebody listens."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    return bound


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with bound_socket() as probe:
        port: int = probe.getsockname()[1]
        return port


def main(arguments: list[str]) -> None:
    """Serve until told to stop."""
    (descriptor,) = (int(argument) for argument in arguments)
    die_with_parent()
    import uvicorn
    from prefect.server.api.server import create_app

    server = uvicorn.Server(uvicorn.Config(create_app(), log_level="error", lifespan="on"))
    server.run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    main(sys.argv[1:])
