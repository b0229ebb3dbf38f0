"""Why a training of several ranks ended: the first rank that failed for a reason leaves its exit status in a file.

torchrun tells its agent which rank it *noticed* first, and that may be one that was only swept along: gloo can abort a
rank that closes connections which a peer has closed. So a rank says its reason, leaves its status, and only then ends;
the agent takes that (``reca_core.launch``). A rank that is killed leaves nothing, and torchrun's word is taken. The
file appears once, whole or not at all.
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


@contextlib.contextmanager
def verdict_file() -> Iterator[None]:
    """A place for the verdict of the ranks that are started inside the block."""
    # A cleaner of temporary folders may come by in the weeks that a training takes.
    with tempfile.TemporaryDirectory(prefix="reca-verdict-", ignore_cleanup_errors=True) as folder:
        os.environ[VERDICT_VARIABLE] = str(Path(folder) / "status")
        try:
            yield
        finally:
            del os.environ[VERDICT_VARIABLE]


def verdict() -> int | None:
    """The status that a rank left, if one did: for the agent, and for ranks that it starts again all the same."""
    left = _left()
    return left[0] if left else None


def explained(error: Exception) -> RecaError:
    """One of ``REASONED`` as an error of ours."""
    if isinstance(error, RecaError):
        return error
    return StageFailed(f"a file cannot be read or written: {error}", remedy=DISK_REMEDY)


def leave_verdict(error: Exception) -> bool:
    """As a rank: leave the status of one of ``REASONED`` unless another rank was first; True if this one was.

    False also where no agent asks, and where the file cannot be written, which must not hide the reason itself.
    """
    name, mine = os.environ.get(VERDICT_VARIABLE), os.getpid()
    if not name:
        return False
    if _left() is None:
        path = Path(name)
        own = path.with_name(f"{path.name}.{mine}")
        try:
            own.write_text(f"{explained(error).exit_code} {mine}")
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(own)
        except OSError as fault:
            log.warning("the agent is not told why this rank ends: %s", fault)
    left = _left()
    return left is not None and left[1] == mine


def _left() -> tuple[int, int] | None:
    """Status and process of the verdict."""
    name = os.environ.get(VERDICT_VARIABLE)
    if not name:
        return None
    try:
        status, process = Path(name).read_text().split()
    except FileNotFoundError:
        return None
    return int(status), int(process)
