"""Files that settings name must be there: looked at once, before a server or a child is started.

``tasks/validate.py`` looks at settings alone; what a file holds is the stage's business, which names it in its error.
Only for runs on this machine: a deployment's worker may see other disks.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping

from reca_core.contracts.base import Config
from reca_core.contracts.errors import BadInput

NAMED = (("images", "source"), ("captions", "source"), ("fine_tuning", "captions"))
"""Parameter and field. Not the model and the judge's files: their absence is a missing prerequisite, found as early."""


def absent(parameters: Mapping[str, Config]) -> Iterator[BadInput]:
    """A fault for every absolute path, or pattern of paths, that leads to nothing."""
    for parameter, field in NAMED:
        value = str(getattr(parameters.get(parameter), field, ""))
        if os.path.isabs(value) and not os.path.lexists(value) and not any(glob.iglob(value, recursive=True)):
            fact = f"{value} matches no file" if glob.has_magic(value) else f"{value} does not exist"
            yield BadInput(fact, field=f"{parameter}.{field}", remedy="check the spelling, and that the disk is there")
