"""The flows a person can start: where each is, and which settings it takes, without importing Prefect.

``tests/deployments/test_catalogue.py`` holds this table against the signatures of the flows themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

from reca_core.contracts.base import Config


@dataclass(frozen=True)
class FlowEntry:
    """One flow."""

    target: str
    """``package.module:function``."""
    purpose: str
    """One line for help texts."""
    parameters: dict[str, type[Config]]
    """Parameter name -> its settings class, in the order of the signature."""
