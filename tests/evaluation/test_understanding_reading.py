"""Replies are read as each published script reads them, oddities included, and strictly in one way for all."""

from __future__ import annotations

import pytest

from evaluation.understanding.mmvp import read_options
from evaluation.understanding.reading import (
    internvl_choice,
    mme_reading,
    pope_reading,
    strict_choice,
    strict_yes_no,
)

YES_NO = [
    # reply, POPE, MME, strict
    ("yes", "yes", "yes", "yes"),
    ("Yes.", "yes", "yes", "yes"),
    ("No", "no", "no", "no"),
    ("no, there is none", "no", "no", "no"),
    ("NO", "yes", "no", "no"),
    ("There is no dog in the picture.", "no", "other", "no"),
    ("There is a dog in the picture.", "yes", "other", "other"),
    ("It is not there", "no", "other", "no"),
    ("I see nothing", "yes", "other", "other"),
    ("I cannot tell", "yes", "other", "other"),
    ("Yes. But no dog.", "yes", "yes", "yes"),
    ("Well, yes", "yes", "other", "yes"),
    ("Perhaps yes, perhaps no", "no", "other", "other"),
    ("not yes", "no", "no", "other"),
    ("A nose", "yes", "no", "other"),
    ("  yes", "yes", "other", "yes"),
    ("eyes", "yes", "yes", "other"),
    ("", "yes", "other", "other"),
]


@pytest.mark.parametrize("reply, pope, mme, strict", YES_NO)
def test_yes_and_no_are_read_as_each_script_does_and_strictly(reply: str, pope: str, mme: str, strict: str) -> None:
    assert (pope_reading(reply), mme_reading(reply), strict_yes_no(reply)) == (pope, mme, strict)


CHOICES = [
    # reply, InternVL, strict
    ("A", "A", "A"),
    ("B.", "B", "B"),
    ("b", "b", "B"),
    ("(b)", "(b)", "B"),
    ("B. Closed", "B", "B"),
    ("A bird sits there", "A", "other"),
    ("Both look alike", "B", "other"),
    ("It is Closed", "B", "B"),
    ("it is closed", "it is closed", "B"),
    ("Open or Closed", "A", "other"),
    ("disclosed", "disclosed", "other"),
    ("C", "C", "other"),
    ("", "", "other"),
]


@pytest.mark.parametrize("reply, internvl, strict", CHOICES)
def test_letters_are_read_as_the_script_does_and_strictly(reply: str, internvl: str, strict: str) -> None:
    options = {"A": "Open", "B": "Closed"}
    assert (internvl_choice(reply, options), strict_choice(reply, options)) == (internvl, strict)


def test_options_are_taken_apart_at_their_letters() -> None:
    assert read_options("(a) Open (b) Closed") == {"A": "Open", "B": "Closed"}
    assert read_options("(a) 2 (two) (b) 3(c)4") == {"A": "2 (two)", "B": "3", "C": "4"}
