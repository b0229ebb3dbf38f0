"""The order of an epoch: a permutation that depends on seed, name and epoch, in constant memory for any number of rows.

Up to ``TABLE_ROWS`` rows a table is drawn, which is quickest to look up. Beyond, position p is enciphered: a balanced
Feistel network over the next power of four is a permutation of that range whatever its round function is, and
cycle-walking (enciphering again until the result is a row) restricts it to the rows (Black and Rogaway, "Ciphers with
Arbitrary Finite Domains", CT-RSA 2002). At most four walks on average, some twenty microseconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch

from reca_core.draws import keyed_generator

TABLE_ROWS = 1 << 20
"""4 MiB a table."""
ROUNDS = 4
"""Three make a pseudo-random permutation of a pseudo-random function (Luby and Rackoff, 1988); one more is custom."""
HALF_BYTES = 8

Permutation = Callable[[int], int]


def permutation(rows: int, seed: int, name: str, epoch: int) -> Permutation:
    """Place in the epoch -> row; every row once."""
    if rows <= TABLE_ROWS:
        table = torch.randperm(rows, generator=keyed_generator(seed, name, epoch), dtype=torch.int32)
        return lambda place: int(table[place])
    return Cipher(rows, f"{seed}/{name}/{epoch}")


class Cipher:
    """A keyed permutation of ``range(rows)`` that holds nothing but its key."""

    def __init__(self, rows: int, key: str) -> None:
        self.rows = rows
        self.half = (max(1, rows - 1).bit_length() + 1) // 2
        self.mask = (1 << self.half) - 1
        self.keys = [hashlib.sha256(f"{key}/{number}".encode()).digest() for number in range(ROUNDS)]

    def __call__(self, place: int) -> int:
        """The row at a place. Raises IndexError outside the rows."""
        if not 0 <= place < self.rows:
            raise IndexError(f"place {place} of {self.rows}")
        row = self._encipher(place)
        while row >= self.rows:
            row = self._encipher(row)
        return row

    def _encipher(self, number: int) -> int:
        left, right = number >> self.half, number & self.mask
        for key in self.keys:
            left, right = right, left ^ (self._mixed(right, key) & self.mask)
        return left << self.half | right

    @staticmethod
    def _mixed(half: int, key: bytes) -> int:
        digest = hashlib.blake2b(half.to_bytes(HALF_BYTES, "big"), key=key, digest_size=HALF_BYTES).digest()
        return int.from_bytes(digest, "big")
