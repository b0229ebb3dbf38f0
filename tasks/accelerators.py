"""One stage at a time on a machine's accelerators, whoever started it: a strict global limit of the Prefect server.

The work pool already lets one run through. This also holds for a second pool, a second worker, and a run started from a
terminal against the same server. Deployments name the limit in ``RECA_ACCELERATOR_LIMIT`` (deployments/prefect.yaml),
``reca up`` creates it; where the variable is unset nothing is limited. *Strict*: Prefect's default is to run without
any limit where the limit does not exist (measured).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.concurrency.sync import concurrency

LIMIT_VARIABLE = "RECA_ACCELERATOR_LIMIT"
LEASE_SECONDS = 60.0
"""The shortest that Prefect takes: a killed run's slot is free again after so long."""


@contextmanager
def accelerator() -> Iterator[None]:
    """Hold the slot for the block; waits for it as long as it takes.

    A lost lease ends nothing: a server that restarts while a training runs must not cost the training.
    Raises ConnectionError where the server cannot be asked, which is tried again (tasks/policies.py).
    """
    name = os.environ.get(LIMIT_VARIABLE, "")
    if not name:
        yield
        return
    held = concurrency(name, lease_duration=LEASE_SECONDS, strict=True, raise_on_lease_renewal_failure=False)
    try:
        with held:
            yield
    except httpx.TransportError as error:
        raise ConnectionError(f"the limit {name} could not be asked for or given back: {error}") from error
