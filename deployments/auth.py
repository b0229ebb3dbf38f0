"""Who may talk to the servers: one user and password, from a file that only its owner can read.

The same pair is asked for by Prefect and by MLflow. It travels in environments alone, which only the same user (and
root) can read: in no command line, no state file, no log, no link. There is no default.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reca_core.contracts.errors import BadInput, PrerequisiteMissing

AUTH_VARIABLE = "RECA_AUTH_FILE"
FIELD = "--auth"
OTHERS = 0o077
"""Rights that nobody else may have on the file."""
LEAST_LETTERS = 12
"""Of a password: MLflow refuses shorter ones."""
EXAMPLE = "write one line user:password and chmod 600 it"


@dataclass(frozen=True)
class Credentials:
    """A user and a password; printing it shows neither."""

    user: str = field(repr=False)
    password: str = field(repr=False)

    @property
    def pair(self) -> tuple[str, str]:
        """For HTTP basic authentication."""
        return self.user, self.password

    def for_clients(self) -> dict[str, str]:
        """What a process that talks to both servers has in its environment."""
        return {
            "PREFECT_API_AUTH_STRING": f"{self.user}:{self.password}",
            "MLFLOW_TRACKING_USERNAME": self.user,
            "MLFLOW_TRACKING_PASSWORD": self.password,
        }


def read_credentials(file: Path) -> Credentials:
    """The pair in a file.

    Raises PrerequisiteMissing for a file that is not there or that others may read, BadInput for what is no pair. No
    message repeats what the file holds.
    """
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & OTHERS:
            raise PrerequisiteMissing(
                f"{file} has mode {mode:04o}: others can read it", field=FIELD, remedy=f"chmod 600 {file}"
            )
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise PrerequisiteMissing(f"{file}: {error.strerror}", field=FIELD, remedy=EXAMPLE) from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{file} is no text", field=FIELD, remedy=EXAMPLE) from error
    user, colon, password = text.strip("\r\n").partition(":")
    fault = _fault(user, colon, password)
    if fault:
        raise BadInput(f"{file}: {fault}", field=FIELD, remedy=EXAMPLE)
    return Credentials(user, password)


def _fault(user: str, colon: str, password: str) -> str:
    """What is wrong with a pair, without repeating it. Letters beyond ASCII reach the two servers differently."""
    if not colon or not user:
        return "it does not have the form user:password"
    if len(password) < LEAST_LETTERS:
        return f"the password has {len(password)} letters, at least {LEAST_LETTERS} are needed"
    if not (user + password).isascii() or not (user + password).isprintable():
        return "user and password must be one line of printable ASCII letters"
    return "" if user == user.strip() else "the user begins or ends with a space"


def chosen_file(typed: str, environment: Mapping[str, str], here: Path) -> Path | None:
    """Option, else variable, else none; absolute."""
    name = typed or environment.get(AUTH_VARIABLE, "")
    return Path(os.path.abspath(here / Path(name).expanduser())) if name else None
