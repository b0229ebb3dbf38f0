"""The drawn attention masks are those of a real training step, and say what docs/families.md says."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from reca_core.contracts.registry import FAMILIES
from reca_core.models.portraits import KINDS, PADDING, SEEN, TARGET, Portrait, portraits


@cache
def drawn() -> dict[str, Portrait]:
    return {portrait.name: portrait for portrait in portraits()}


def places(portrait: Portrait, kind: str) -> torch.Tensor:
    return torch.tensor([place for place, found in enumerate(portrait.kinds) if found == kind])


def test_a_portrait_labels_every_position() -> None:
    assert KINDS.keys() <= FAMILIES.keys()
    for portrait in drawn().values():
        assert portrait.allowed.shape == (len(portrait.kinds),) * 2


@pytest.mark.parametrize("name", ["janus", "harmon", "openuni"])
def test_the_autoregressive_families_are_causal(name: str) -> None:
    allowed = drawn()[name].allowed
    assert torch.equal(allowed, torch.ones_like(allowed).tril())


@pytest.mark.parametrize("name", ["showo", "showo-vq", "bagel"])
def test_a_picture_to_be_made_sees_itself_whole_and_the_shown_picture_never_sees_it(name: str) -> None:
    portrait = drawn()[name]
    target, seen = places(portrait, TARGET), places(portrait, SEEN)
    assert portrait.allowed[target][:, target].all()
    assert portrait.allowed[target][:, seen].all()
    assert not portrait.allowed[seen][:, target].any()


@pytest.mark.parametrize("name", ["showo", "showo-vq"])
def test_padding_is_hidden_from_everything_else(name: str) -> None:
    portrait = drawn()[name]
    padding = places(portrait, PADDING)
    others = torch.tensor([place for place, kind in enumerate(portrait.kinds) if kind != PADDING])
    assert not portrait.allowed[others][:, padding].any()
