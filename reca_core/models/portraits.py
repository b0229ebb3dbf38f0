"""Who looks at whom while a family redraws a picture: taken from the attention that its smallest model really computes.

One picture and one instruction go through ``reconstruction_loss``; the masks that scaled dot product attention is
called with are kept, so what is drawn is what is trained (docs/families.md). What each position is, the family's own
sequence code says. Figures: ``python -m deployments.figures families``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from reca_core.draws import KeyedDraws
from reca_core.models.load import adapter_class
from reca_core.models.showo.adapter import Showo
from reca_core.models.unified import UnifiedModel
from reca_core.objectives.next_token import IGNORED

TEXT, SEEN, TARGET, PADDING = "text and marks", "picture, as understood", "picture, to be made", "padding"
QUERIES = "learned queries"
PIXELS = 32


@dataclass(frozen=True)
class Portrait:
    """One sequence. ``allowed[q, k]``: position q looks at position k."""

    name: str
    kinds: tuple[str, ...]
    allowed: Bool[Tensor, "length length"]

    @property
    def segments(self) -> list[tuple[str, int]]:
        """Runs of positions of one kind."""
        return [(kind, len(list(run))) for kind, run in groupby(self.kinds)]


def portraits() -> Iterator[Portrait]:
    """The families that ``KINDS`` knows to label, Show-o in both variants."""
    for family, kinds in KINDS.items():
        yield portrait(family, adapter_class(family).smallest(seed=0), kinds)
    variant: UnifiedModel = cast("UnifiedModel", Showo.smallest(seed=0, clip=False))
    yield portrait("showo-vq", variant, _showo)


def portrait(name: str, adapter: UnifiedModel, kinds: Callable[[Any, str, int], list[str]]) -> Portrait:
    """Of one model. Raises StopIteration if no attention over the whole sequence was computed."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (PIXELS, PIXELS, 3), dtype=np.uint8))
    template = adapter.templates[1 % len(adapter.templates)]
    images = adapter.prepare([image])
    with torch.no_grad():
        condition = adapter.condition(adapter.understand(images), [template], torch.zeros(1, dtype=torch.bool))
        target = adapter.encode_target(images)
        with watched() as seen:
            adapter.reconstruction_loss(condition, target, KeyedDraws(0, [0]))
    prefix = condition.embeddings.shape[1]
    allowed = next(mask for mask in seen if len(mask) > prefix)
    return Portrait(name, tuple(kinds(adapter, template, len(allowed))), allowed)


@contextmanager
def watched() -> Iterator[list[Bool[Tensor, "queries keys"]]]:
    """Who may look at whom, of every attention of a sequence with itself that is computed inside the block."""
    seen: list[Tensor] = []
    original = F.scaled_dot_product_attention

    def attention(query: Tensor, key: Tensor, *rest: Any, **options: Any) -> Tensor:
        rows, columns = query.shape[-2], key.shape[-2]
        if rows == columns:
            seen.append(_allowed(options.get("attn_mask"), bool(options.get("is_causal")), rows))
        return original(query, key, *rest, **options)

    with patch.object(F, "scaled_dot_product_attention", attention):
        yield seen


def _allowed(mask: Tensor | None, causal: bool, length: int) -> Bool[Tensor, "length length"]:
    if mask is None:
        everything = torch.ones(length, length, dtype=torch.bool)
        return everything.tril() if causal else everything
    first = mask.expand(*mask.shape[:-2], length, length).reshape(-1, length, length)[0]
    return first if first.dtype == torch.bool else first > torch.finfo(first.dtype).min / 2


def _by_ids(ids: Sequence[int], picture: int, rest: str, length: int, padding: int | None = None) -> list[str]:
    """Kinds of a prompt's ids, then ``rest`` up to ``length``."""
    named = {picture: SEEN, padding: PADDING}
    kinds = [named.get(token, TEXT) for token in ids]
    return kinds + [rest] * (length - len(kinds))


def _janus(adapter: Any, template: str, length: int) -> list[str]:
    return _by_ids(adapter.chat.redrawing_prompts([template])[0], adapter.chat.ids.image, TARGET, length)


def _harmon(adapter: Any, template: str, length: int) -> list[str]:
    (row,) = adapter.turns.learning_prompts([template], [False])
    return _by_ids(row, -1, TARGET, length)


def _openuni(adapter: Any, template: str, length: int) -> list[str]:
    (row,) = adapter.turns.redrawing_prompts([template], [False])
    return _by_ids(row, adapter.turns.image, QUERIES, length)


def _showo(adapter: Any, template: str, length: int) -> list[str]:
    (row,) = adapter.picture_layout.openings(adapter.wording.instructions([template])).tolist()
    kinds = _by_ids(row, IGNORED, TARGET, length, padding=adapter.special.pad)
    return [*kinds[: len(row)], TEXT, *kinds[len(row) + 1 : -1], TEXT]


def _bagel(adapter: Any, template: str, length: int) -> list[str]:
    tokens = adapter.network.sizes.grids().vit_per_side
    side = adapter.configuration.pictures.understanding.longest // adapter.network.sizes.grids().vit_patch
    seen = min(side, tokens) ** 2
    text = len(adapter.words.item(template).ids) + 2
    before = [TEXT, *[SEEN] * seen, TEXT, *[TEXT] * text]
    return [*before, TEXT, *[TARGET] * (length - len(before) - 2), TEXT]


KINDS: dict[str, Callable[[Any, str, int], list[str]]] = {
    "janus": _janus,
    "showo": _showo,
    "harmon": _harmon,
    "openuni": _openuni,
    "bagel": _bagel,
}
