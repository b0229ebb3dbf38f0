"""How many requests and dollars a judging may use, kept across its attempts in ``answers/<hash>/spent.json``.

The file is written before every request, so that a kill loses none: what was under way then counts as expected.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reca_core.contracts.errors import BadInput, StageFailed
from reca_core.contracts.files import write_json
from reca_core.contracts.judging import JudgeSettings

SPENT_FILE = "spent.json"
PICTURE_TOKENS = 1_500
"""More than a picture costs at OpenAI's high detail: 85 + 170 per tile of 512 pixels, at most 8 tiles."""
REPLY_TOKENS = 1_400
"""What a reply is taken to cost before it is there, where the request sets no limit: GEdit's own limit."""
PER_MILLION = 1e-6
MOST_TOKENS = 1_000_000_000
"""More than any exchange takes: an endpoint that counts higher does not count."""


@dataclass(frozen=True)
class Usage:
    """Tokens of one exchange, as the endpoint counted them."""

    input_tokens: int
    output_tokens: int

    @classmethod
    def read(cls, found: Any) -> Usage | None:
        """From a reply's ``usage``; None where it is absent or makes no sense."""
        if not isinstance(found, dict):
            return None
        counts = [found.get(name) for name in ("prompt_tokens", "completion_tokens")]
        whole = [count for count in counts if type(count) is int and 0 <= count <= MOST_TOKENS]
        return cls(whole[0], whole[1]) if len(whole) == len(counts) else None


@dataclass(frozen=True)
class Prices:
    """Dollars per token."""

    input: float
    output: float

    @classmethod
    def of(cls, settings: JudgeSettings) -> Prices:
        """As set. Raises BadInput for a limit in dollars without prices."""
        priced = settings.dollars_per_million_input_tokens and settings.dollars_per_million_output_tokens
        if settings.max_cost_dollars and not priced:
            raise BadInput(
                "a limit in dollars needs both prices",
                field="judge.max_cost_dollars",
                remedy="set judge.dollars_per_million_input_tokens and ..._output_tokens as your endpoint charges",
            )
        return cls(
            settings.dollars_per_million_input_tokens * PER_MILLION,
            settings.dollars_per_million_output_tokens * PER_MILLION,
        )

    def dollars(self, usage: Usage) -> float:
        """Cost of one exchange."""
        return usage.input_tokens * self.input + usage.output_tokens * self.output


def expected_usage(text_bytes: int, pictures: int, max_tokens: int | None) -> Usage:
    """Upper estimate before asking: a token is at least a byte, a reply as long as it may be or usually is."""
    return Usage(text_bytes + pictures * PICTURE_TOKENS, REPLY_TOKENS if max_tokens is None else max_tokens)


class Budget:
    """Limits, and what is used of them. Belongs to one thread."""

    def __init__(self, settings: JudgeSettings, directory: Path) -> None:
        self._max_requests = settings.max_requests
        self._max_dollars = settings.max_cost_dollars
        self._prices = Prices.of(settings)
        self._file = directory / SPENT_FILE
        spent = json.loads(self._file.read_text(encoding="utf-8")) if self._file.is_file() else {}
        self.requests: int = spent.get("requests", 0)
        self.dollars: float = spent.get("dollars", 0.0)
        self._under_way: list[float] = []

    @property
    def _reserved(self) -> float:
        return sum(self._under_way)

    def reserve(self, content: list[dict[str, Any]], max_tokens: int | None) -> float | None:
        """Take one request from the budget.

        Returns: the dollars set aside, for ``settle``; None where requests under way hold what is left, so that it is
            known only after them.
        Raises: StageFailed where the budget does not cover it.
        """
        text_bytes = sum(len(part["text"].encode()) for part in content if part["type"] == "text")
        pictures = sum(part["type"] != "text" for part in content)
        upper = self._prices.dollars(expected_usage(text_bytes, pictures, max_tokens))
        if self._max_requests and self.requests >= self._max_requests:
            raise _used_up(f"{self.requests} requests were made", "judge.max_requests")
        if self._max_dollars and self.dollars + upper > self._max_dollars:
            raise _used_up(f"about {self.dollars:.2f} dollars are spent", "judge.max_cost_dollars")
        if self._max_dollars and self.dollars + self._reserved + upper > self._max_dollars:
            return None
        self.requests += 1
        self._under_way.append(upper)
        self.save()
        return upper

    def settle(self, reserved: float, usage: Usage | None) -> None:
        """A request ended. Where the endpoint did not say what it took, it counts as expected."""
        self._under_way.remove(reserved)
        self.dollars += reserved if usage is None else self._prices.dollars(usage)

    def save(self) -> None:
        """Write down what is used, and what is set aside for requests whose end nobody may live to see."""
        write_json(self._file, {"requests": self.requests, "dollars": self.dollars + self._reserved})


def _used_up(fact: str, field: str) -> StageFailed:
    remedy = "raise the limit and start again: what was answered is kept and not asked again"
    return StageFailed(f"the budget is used up: {fact}", field=field, remedy=remedy)
