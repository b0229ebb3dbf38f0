"""Flex attention gives what the dense reference gives: forward anywhere, the way back on a GPU."""

from __future__ import annotations

import pytest
import torch

from reca_core.contracts.errors import BadInput
from reca_core.contracts.requests import TrainingPlan
from reca_core.draws import KeyedDraws
from reca_core.models.bagel.adapter import Bagel
from reca_core.models.bagel.packing import block_mask
from reca_core.models.bagel.transformer import attend, block_mask_of
from reca_core.models.variants import following
from tests.reca_core.tiny_janus import tiny_pictures

LENGTHS = (9, 5, 23)
TOLERANCE = 1e-4


def test_the_forward_result_is_that_of_the_dense_mask() -> None:
    mask = block_mask(LENGTHS, ("full", "causal", "noise"))
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(sum(LENGTHS), heads, 16, generator=generator) for heads in (4, 2, 2))
    dense, flex = attend(query, key, value, mask), attend(query, key, value, block_mask_of(mask))
    torch.testing.assert_close(flex, dense, atol=TOLERANCE, rtol=TOLERANCE)


def test_flex_is_refused_where_it_cannot_train() -> None:
    with pytest.raises(BadInput, match="GPU only"):
        following(Bagel.smallest(), TrainingPlan(attention="flex"))


@pytest.mark.gpu
def test_loss_and_gradients_are_those_of_the_dense_mask_on_a_gpu() -> None:
    found = {}
    for kind in ("dense", "flex"):
        adapter = Bagel.smallest().to("cuda")
        adapter.network.choose_attention(kind)  # type: ignore[arg-type]
        images = adapter.prepare(tiny_pictures(3)).to("cuda")
        condition = adapter.condition(
            adapter.understand(images), adapter.templates[:3], torch.zeros(3, dtype=torch.bool)
        )
        loss = adapter.reconstruction_loss(condition, adapter.encode_target(images), KeyedDraws(0, range(3))).mean()
        loss.backward()
        weights = adapter.network.language_model.model.layers[0].self_attn.q_proj_moe_gen.weight
        found[kind] = (loss.detach(), weights.grad)
    for dense, flex in zip(found["dense"], found["flex"], strict=True):
        torch.testing.assert_close(flex, dense, atol=TOLERANCE, rtol=TOLERANCE)
