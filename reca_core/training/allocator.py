"""Large blocks go back to the system when they are freed, so that a CPU training holds what it uses and no more.

glibc raises its threshold for blocks of their own (mmap) to the largest one it has seen freed, up to 32 MiB; from then
on activations, gradients and moments share one heap, whose holes fit nothing. Measured on a Show-o of 41 MiB with wide
layers: 583 MiB at the peak, 319 with a fixed threshold (docs/operations.md). A block of its own costs page faults, so
small models, whose steps are short and whose memory does not matter, keep glibc's rule.
"""

from __future__ import annotations

import ctypes
import logging
from pathlib import Path

from reca_core.contracts.estimate import SMALL_BYTES

M_MMAP_THRESHOLD = -3
"""Of mallopt(3); setting it ends the adjustment."""
LARGE_BLOCK_BYTES = 256 << 10
log = logging.getLogger(__name__)


def give_back_large_blocks(checkpoint: Path) -> bool:
    """Fix the threshold for this process if the checkpoint's files are not small; True if it was done.

    Elsewhere than on glibc, which alone has this rule, nothing is changed.
    """
    size = sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file())
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if size < SMALL_BYTES or mallopt is None:
        return False
    done = bool(mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES))
    log.info("blocks from %d KiB on go back to the system at once: %s", LARGE_BLOCK_BYTES >> 10, done)
    return done
