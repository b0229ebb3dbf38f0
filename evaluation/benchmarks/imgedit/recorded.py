"""Recorded judge replies scored without any model: ``reca score imgedit --answers FILE [--items basic_edit.json]``.

``FILE``: key -> reply, or a list of runs ``{"name", "judge_replies": {key: reply}}``. ``items``: key -> {edit_type}.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluation.benchmarks.imgedit.ratings import EDIT_TYPES, score_reply
from evaluation.records import Arithmetic, Judgment, Scored, Unscored
from reca_core.contracts.errors import BadInput

Items = Mapping[str, str]
"""Key -> edit type, in file order."""


def read_items(document: Any, name: str) -> dict[str, str]:
    """Edit types of ``basic_edit.json``. Raises BadInput naming file, key and field."""
    if not isinstance(document, dict):
        raise BadInput(f"{name}: expected an object key -> item", field="items")
    types: dict[str, str] = {}
    for key, item in document.items():
        edit_type = item.get("edit_type") if isinstance(item, dict) else None
        if edit_type not in EDIT_TYPES:
            raise BadInput(
                f"{name}, key {key!r}, field edit_type: {edit_type!r} is none", field="items", choices=EDIT_TYPES
            )
        types[key] = edit_type
    return types


def judgments(replies: Mapping[str, Any], items: Items | None, arithmetic: Arithmetic) -> list[Judgment]:
    """One judgment per reply in recorded order (upstream sums in it, which decides ties when rounding), then one per
    item that has no reply.

    Without ``items`` the replies themselves are what is expected, and no edit type is known. Upstream averages replies
    to unknown keys into the overall; corrected does not score them.
    """
    judged = [
        Judgment(id=key, prompt_id=key, tag=(items or {}).get(key, ""), outcome=_outcome(key, reply, items, arithmetic))
        for key, reply in replies.items()
    ]
    absent = Unscored(reason="there is no reply")
    judged += [
        Judgment(id=key, prompt_id=key, tag=edit_type, outcome=absent)
        for key, edit_type in (items or {}).items()
        if key not in replies
    ]
    return judged


def _outcome(key: str, reply: Any, items: Items | None, arithmetic: Arithmetic) -> Scored | Unscored:
    if items is not None and key not in items and arithmetic == "corrected":
        return Unscored(reason="no item of the benchmark has this key", evidence={"reply": reply})
    return score_reply(reply, (items or {}).get(key), arithmetic)
