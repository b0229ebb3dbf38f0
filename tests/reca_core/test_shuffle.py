"""An epoch's order: every row once, its own for every epoch, without a table where a table would be large."""

from __future__ import annotations

import itertools

import pytest

from reca_core.data import shuffle
from reca_core.data.shuffle import Cipher, permutation


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 15, 16, 17, 1000, 4097])
def test_a_cipher_is_a_permutation_of_its_rows(rows: int) -> None:
    cipher = Cipher(rows, "key")
    assert sorted(cipher(place) for place in range(rows)) == list(range(rows))
    for outside in (-1, rows):
        with pytest.raises(IndexError):
            cipher(outside)


def test_keys_give_different_orders_without_a_trend() -> None:
    rows = 3000
    first, second = ([Cipher(rows, key)(place) for place in range(rows)] for key in ("0/images/0", "0/images/1"))
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 20
    for order in (first, second):
        neighbours = sum(abs(a - b) for a, b in itertools.pairwise(order)) / (rows - 1)
        assert abs(neighbours / rows - 1 / 3) < 0.02, "random neighbours are a third of the range apart"


def test_a_large_set_is_enciphered_and_a_small_one_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shuffle, "TABLE_ROWS", 10)
    small, large = permutation(10, 0, "order", 3), permutation(11, 0, "order", 3)
    assert not isinstance(small, Cipher)
    assert isinstance(large, Cipher)
    assert sorted(large(place) for place in range(11)) == list(range(11))
