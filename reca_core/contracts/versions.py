"""What a person can ask for about registered versions: when one becomes champion, and when that is taken back.

The measuring part, ``VersionChoice``, is in requests.py. The rule itself is in ``tasks/promotion.py``.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from reca_core.contracts.base import Config

ALIAS = r"^[A-Za-z][A-Za-z0-9_-]*$"
NAME = r"^[^/:]*$"


class Promotion(Config):
    """Whether the challenger becomes champion once both are measured."""

    model_config = ConfigDict(title="Promotion")

    decide: Literal["never", "by_rule", "after_approval"] = Field("never", title="Decide")
    """never: only measure. by_rule: promote if the rule below says so. after_approval: as by_rule, but ask a person
    first; the run waits, suspended, until somebody resumes it in the Prefect UI."""
    metric: str = Field("", max_length=200, title="Deciding number")
    """BENCHMARK/ROW, such as geneval.shapeworld/overall: it must improve beyond its 95% interval. Empty: the first row
    of the first benchmark."""
    largest_fall_percent: float = Field(5.0, ge=0, le=100, title="Largest fall of any other number, in percent")
    """Of the champion's value. A number that falls further refuses the promotion, whatever its interval."""
    without_champion: Literal["refuse", "promote"] = Field("refuse", title="Where there is no champion yet")
    """promote makes the challenger the first champion once it is measured completely."""
    champion: str = Field("champion", max_length=200, pattern=ALIAS, title="Champion's alias")
    """The alias that moves."""
    challenger: str = Field("challenger", max_length=200, pattern=ALIAS, title="Challenger's alias")
    """The version behind it is compared with the champion."""
    approval_days: int = Field(30, ge=1, le=365, title="Days to wait for a person")
    """For after_approval: a run that nobody answers fails after so long, which is recorded as a refusal."""


class Rollback(Config):
    """Which champion to take back."""

    model_config = ConfigDict(title="Rollback")

    name: str = Field("reca-tiny-janus", min_length=1, max_length=200, pattern=NAME, title="Registered name")
    """Name in the model registry."""
    to: str = Field("", pattern=r"^([1-9]\d*)?$", title="Version to go back to")
    """Empty: the version that was champion before."""
    alias: str = Field("champion", max_length=200, pattern=ALIAS, title="Alias")
    """The alias that moves."""
    reason: str = Field("", max_length=1000, title="Reason")
    """Kept with the version that is taken back."""


class RegistryWatch(Config):
    """Which models to look at for versions that nobody has measured."""

    model_config = ConfigDict(title="Registry")

    names: list[str] = Field(["*"], min_length=1, title="Registered names")
    """Names or patterns with * and ?; * looks at every model, whoever registered it."""
