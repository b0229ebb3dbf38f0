"""Why a training of several ranks ended: the first rank that failed for a reason leaves its exit status in a file.

torchrun tells its agent which rank it *noticed* first, and that may be one that was only swept along: a rank whose
peer has closed its connections can be aborted by gloo while it closes its own. So a rank leaves its status before it
leaves the process group (``reca_core.training.distributed.joined``), and the agent takes that
(``reca_core.launch``). A rank that is killed leaves nothing, and torchrun's word is taken.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from reca_core.contracts.errors import RecaError, StageFailed

log = logging.getLogger(__name__)

VERDICT_VARIABLE = "RECA_VERDICT_FILE"
"""Names the file, for the ranks of an agent."""
REASONED = (RecaError, OSError, SafetensorError)
"""What ends a process for a reason: ours, and a disk that is full or a file that vanished, which is the machine's."""
DISK_REMEDY = "look at the disk's free space and at who may write there, then run again: what was finished is kept"


class VerdictFile:
    """The agent's side of it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def status(self) -> int | None:
        """What a rank left, if one did."""
        text = self._path.read_text()
        return int(text) if text else None


@contextlib.contextmanager
def verdict_file() -> Iterator[VerdictFile]:
    """A file for the ranks that are started inside the block."""
    with tempfile.NamedTemporaryFile(prefix="reca-verdict-") as file:
        os.environ[VERDICT_VARIABLE] = file.name
        try:
            yield VerdictFile(Path(file.name))
        finally:
            del os.environ[VERDICT_VARIABLE]


def explained(error: Exception) -> RecaError:
    """One of ``REASONED`` as an error of ours."""
    if isinstance(error, RecaError):
        return error
    return StageFailed(f"a file cannot be read or written: {error}", remedy=DISK_REMEDY)


def leave_verdict(error: Exception) -> bool:
    """As a rank: leave the status of one of ``REASONED`` unless another rank was first.

    False where no agent asks, and where the file cannot be written, which must not hide the reason itself.
    """
    name = os.environ.get(VERDICT_VARIABLE)
    if not name:
        return False
    path = Path(name)
    try:
        if not path.stat().st_size:
            path.write_text(str(explained(error).exit_code))
    except OSError as fault:
        log.warning("the agent is not told why this rank ends: %s", fault)
        return False
    return True
