"""Which judge a run asked for, settled before anything starts: its weights hashed, its id complete, its key at hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from evaluation.judges.opening import weights_sha256
from evaluation.judges.vlm_endpoint import KEY_VARIABLE
from evaluation.registry import judged_as
from reca_core.contracts.judging import JudgeSettings, SettledJudge

SECRET_BLOCK = "openai-api-key"
"""Name of the Prefect Secret block that is looked for where the environment has no key."""


def settled(judge: JudgeSettings) -> SettledJudge:
    """The settings with the hash of their weights. Raises BadInput for weights that are not there."""
    return SettledJudge.model_validate({**judge.model_dump(), "weights_sha256": weights_sha256(judge.weights)})


def full_id(benchmark: str, judge: JudgeSettings) -> str:
    """The id of the scores that a settled judge gives. Raises BadInput where it cannot judge the benchmark."""
    return judged_as(benchmark, judge)


@contextmanager
def api_key() -> Iterator[None]:
    """For the block, children find the key of a Prefect Secret block in their environment, unless there is one already.

    Where there is neither, nothing is set: a judge that needs a key says so itself, and local endpoints need none.
    """
    found = key_environment()
    os.environ.update(found)
    try:
        yield
    finally:
        for name in found:
            del os.environ[name]


def key_environment() -> dict[str, str]:
    """What a judge's child needs in its environment besides what it inherits: the block's key, or nothing."""
    found = "" if KEY_VARIABLE in os.environ else _secret()
    return {KEY_VARIABLE: found} if found else {}


def _secret() -> str:
    """The key in the block; empty where there is no such block."""
    from prefect.blocks.system import Secret

    try:
        block = Secret.load(SECRET_BLOCK)
    except ValueError:
        return ""
    return str(block.get())  # type: ignore[union-attr]
