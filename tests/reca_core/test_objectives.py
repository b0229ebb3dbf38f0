"""Losses as sums and counts, and the next-token loss."""

from __future__ import annotations

import math

import pytest
import torch

from reca_core.objectives.loss_sum import LossSum
from reca_core.objectives.next_token import IGNORED, cross_entropy


def test_uniform_logits_cost_the_logarithm_of_the_classes() -> None:
    loss = cross_entropy(torch.zeros(2, 5, 16), torch.zeros(2, 5, dtype=torch.long))
    assert loss.mean().item() == pytest.approx(math.log(16))
    assert loss.count.item() == 10


def test_cross_entropy_is_minus_the_log_probability_of_the_target() -> None:
    logits, targets = torch.randn(3, 4, 7), torch.randint(0, 7, (3, 4))
    by_hand = -logits.log_softmax(-1).gather(-1, targets[..., None]).sum()
    assert cross_entropy(logits, targets).total.item() == pytest.approx(by_hand.item(), rel=1e-6)


def test_ignored_positions_add_nothing_and_count_nothing() -> None:
    logits, targets = torch.randn(1, 4, 7), torch.tensor([[1, IGNORED, 2, IGNORED]])
    loss, kept = cross_entropy(logits, targets), cross_entropy(logits[:, [0, 2]], targets[:, [0, 2]])
    assert loss.count.item() == 2
    assert loss.total.item() == pytest.approx(kept.total.item())


def test_nothing_to_predict_is_a_loss_of_zero_with_a_gradient() -> None:
    logits = torch.randn(1, 2, 7, requires_grad=True)
    loss = cross_entropy(logits, torch.full((1, 2), IGNORED)).mean()
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_half_precision_logits_are_summed_in_float32() -> None:
    logits, targets = torch.randn(64, 1000).bfloat16(), torch.randint(0, 1000, (64,))
    assert cross_entropy(logits, targets).total.item() == cross_entropy(logits.float(), targets).total.item()


def test_uneven_parts_give_the_mean_of_the_whole_not_the_mean_of_means() -> None:
    logits, targets = torch.randn(10, 5), torch.randint(0, 5, (10,))
    parts = cross_entropy(logits[:1], targets[:1]) + cross_entropy(logits[1:], targets[1:])
    assert parts.mean().item() == pytest.approx(cross_entropy(logits, targets).mean().item(), rel=1e-6)


def test_detached_sums_carry_no_graph() -> None:
    loss = LossSum(torch.ones((), requires_grad=True) * 2, torch.tensor(1.0))
    assert loss.total.requires_grad
    assert not loss.detached().total.requires_grad
