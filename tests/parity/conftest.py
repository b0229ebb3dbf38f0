"""A golden folder need not hold every file: a kind or family without a set contributes no case, and is no skip."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NO_CASE = re.compile(r"[\[-]NOTSET[\]-]")
"""What pytest writes into the id of a test whose list of parameters is empty."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    caseless = [item for item in items if HERE in item.path.parents and NO_CASE.search(item.name)]
    if caseless:
        config.hook.pytest_deselected(items=caseless)
        items[:] = [item for item in items if item not in caseless]
