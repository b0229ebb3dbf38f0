"""What the run form of Prefect's UI needs beyond a flow's signature: a human title for each of its boxes.

Prefect titles a parameter by its Python name (``images``) and gives no way to say otherwise. A title that stands in the
parameter's own schema wins, and the classes of our settings know theirs; bounds are told by the classes too
(``reca_core/contracts/base.py``), since the form shows help but no limits.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, ParamSpec, TypeVar, get_type_hints

from pydantic import Field

from reca_core.contracts.base import Config

P = ParamSpec("P")
R = TypeVar("R")


def titled(flow: Callable[P, R]) -> Callable[P, R]:
    """Give every parameter the title of its settings class. Goes below ``@flow``; calls are as before."""
    hints = get_type_hints(flow)
    for name in inspect.signature(flow).parameters:
        flow.__annotations__[name] = _with_title(hints[name])
    return flow


def _with_title(settings: type[Config]) -> Any:
    extra: dict[str, Any] = {"title": settings.model_config["title"]}
    return Annotated[settings, Field(json_schema_extra=extra)]
