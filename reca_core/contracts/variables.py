"""Numbers that an environment variable may change, refused by name where they are none."""

from __future__ import annotations

from collections.abc import Mapping

from reca_core.contracts.errors import BadInput


def whole_number(variable: str, usual: int, environment: Mapping[str, str]) -> int:
    """A variable's value, or the usual one. Raises BadInput for anything but a whole number above 0."""
    text = environment.get(variable, str(usual))
    if not text.isdigit() or int(text) < 1:
        raise BadInput(f"{text!r} is not a whole number above 0", field=variable, remedy=f"set it to {usual}, say")
    return int(text)
