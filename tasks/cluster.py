"""Children on a Ray cluster: placement, and another try elsewhere when a machine or a process of Ray dies.

Ray runs one small function per share, which starts the same child as ever and waits for it; the child dies with the Ray
process that started it (reca_core/contracts/lifeline.py), so a share never runs twice at once. No data goes through
Ray: the home lies on a disk that all machines share. Ray tasks rather than ``prefect-ray``: a share is no verb, and a
Prefect task run on every machine would need the Prefect server, its password and its clock there.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reca_core.contracts.errors import BadInput, PrerequisiteMissing, RecaError, StageFailed
from reca_core.contracts.files import atomic_write_text
from reca_core.contracts.progress import Progress
from tasks.processes import ChildKilled, run_child
from tasks.sharing import ADDRESS_VARIABLE, PROGRESS_FILE, ShareJob

LOOK_SECONDS = 1.0
KNOCK_SECONDS = 10.0
HOW = "ray start --head on one machine, ray start --address=HOST:6379 on the others and here; or unset it"
ATTEMPTS_ELSEWHERE = 3
"""After a process or a machine of the cluster died under a share, or its child was killed."""
KINDS: dict[str, type[RecaError]] = {kind.__name__: kind for kind in (BadInput, PrerequisiteMissing, StageFailed)}
CARRIED = ("HF_HOME", "HF_HUB_OFFLINE", "HF_TOKEN", "OMP_NUM_THREADS", "RECA_BENCHMARK_DATA")
"""Variables of this process that a share gets; everything else is the machine's own."""


def work(job: ShareJob, environment: dict[str, str]) -> tuple[str, str]:
    """One share, on whichever machine; returns the kind of error and its text, empty where there is none.

    Raises ChildKilled, which Ray tries again.
    """
    os.environ.update(environment)
    file = Path(job.directory) / PROGRESS_FILE

    def tell(progress: Progress) -> None:
        atomic_write_text(file, progress.model_dump_json())

    try:
        run_child(list(job.command), Path(job.directory) / "log.txt", lambda text: None, tell)
    except ChildKilled:
        raise
    except RecaError as error:
        known = next((name for name, kind in KINDS.items() if isinstance(error, kind)), StageFailed.__name__)
        return known, str(error)
    return "", ""


class RayCluster:
    """A connection to a running cluster."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def slots(self, *, gpu: bool) -> int:
        """GPUs, or cores, that the cluster has."""
        return int(self._ray.cluster_resources().get("GPU" if gpu else "CPU", 0))

    def run(self, jobs: list[ShareJob], look: Callable[[], None]) -> None:
        """Run all; whatever ends this call ends them. Raises the RecaError of the first that failed for good."""
        environment = {name: os.environ[name] for name in CARRIED if name in os.environ}
        waiting = [self._task(job).remote(job, environment) for job in jobs]
        try:
            while waiting:
                done, waiting = self._ray.wait(waiting, timeout=LOOK_SECONDS)
                look()
                for reference in done:
                    self._check(reference)
        finally:
            for reference in waiting:
                self._ray.cancel(reference, force=True)

    def _task(self, job: ShareJob) -> Any:
        needs = {"num_gpus": 1, "num_cpus": 0} if job.wants_gpu else {"num_cpus": 1}
        retries = {"max_retries": ATTEMPTS_ELSEWHERE, "retry_exceptions": [ChildKilled]}
        return self._ray.remote(**needs, **retries)(work)

    def _check(self, reference: Any) -> None:
        try:
            kind, text = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            raise ChildKilled(
                f"a share was given up after {ATTEMPTS_ELSEWHERE + 1} attempts: {str(error).strip()[-1000:]}",
                field=ADDRESS_VARIABLE,
                remedy="ray status; what was made is kept, and the same run goes on from there",
            ) from error
        if kind:
            raise KINDS[kind](text)


def _knock(address: str) -> None:
    """Raises OSError where nobody listens: Ray itself tries for many minutes. ``auto`` is looked up by Ray."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), KNOCK_SECONDS).close()


@contextmanager
def ray_cluster(address: str) -> Iterator[RayCluster]:
    """The cluster for the block. Raises PrerequisiteMissing where Ray is not installed or does not answer."""
    if importlib.util.find_spec("ray") is None:
        raise PrerequisiteMissing(
            "ray is not installed", field=ADDRESS_VARIABLE, remedy="pip install 'reca-pipeline[ray]', or unset it"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise PrerequisiteMissing(
            f"no Ray cluster at {address!r}: {error}", field=ADDRESS_VARIABLE, remedy=HOW
        ) from error
    try:
        yield RayCluster(ray)
    finally:
        ray.shutdown()
