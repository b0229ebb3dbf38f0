"""Captions that a benchmark asks for are left out of fine-tuning, others are not, and how many is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from reca_core.contracts.requests import CaptionSource, LossTerms
from reca_core.data.captions import open_captions
from reca_core.data.leaks import Leaks, words

PROMPTS = {
    "geneval": [
        "a photo of a bench",
        "a photo of a red cow",
        "a photo of two clocks",
        "a photo of a bench and a cow",
    ],
    "dpg": ["A rusty anchor lies on wet sand, beside a broken oar.", "Sunset."],
}
FINE_TUNING = LossTerms(reconstruction=0, image_to_text=0, text_to_image=1, text=0)


@pytest.mark.parametrize(
    ("caption", "prompts", "templates"),
    [
        ("a photo of a bench", True, True),
        ("A PHOTO of a bench!", True, True),
        ("High quality: a photo of a red cow, 4k", True, True),
        ("a photo of two red clocks", False, True),
        ("a photo of a bench in a park", True, True),
        ("a photo of a red dog", False, False),
        ("two clocks", False, False),
        ("a rusty anchor lies on wet sand beside a broken oar", True, True),
        ("a rusty anchor on wet sand", False, False),
        ("sunset", True, True),
        ("a long sunset over the sea", False, False),
        ("a photo of a benchmark", False, False),
        ("", False, False),
    ],
)
def test_what_leaks(caption: str, prompts: bool, templates: bool) -> None:
    assert Leaks(PROMPTS, templates=False).holds(caption) == prompts
    assert Leaks(PROMPTS, templates=True).holds(caption) == templates


def test_words_ignore_case_punctuation_and_how_accents_are_written() -> None:
    assert words("Café—CAFE\u0301, “naïve” x2!") == ("café", "café", "naïve", "x2")


@pytest.mark.parametrize("sign", ["\u00ad", "\u200b", "\u200d", "\u2060", "\ufeff"])
def test_signs_that_show_nothing_hide_no_prompt(sign: str) -> None:
    assert words(f"{sign}a pho{sign}to of{sign} a ben{sign}ch") == ("a", "photo", "of", "a", "bench")


def test_prompts_without_a_common_opening_make_no_template() -> None:
    assert not Leaks({"dpg": PROMPTS["dpg"]}, templates=True).holds("a rusty oar")


def test_leaked_captions_are_never_drawn_and_counted(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "0.png")
    captions = ["a photo of a bench", "a kite", "a photo of two cows", "a drum"]
    turns = [[{"from": "human", "value": text}, {"from": "gpt", "value": "<image>"}] for text in captions]
    (tmp_path / "c.json").write_text(json.dumps([{"image": "0.png", "conversations": pair} for pair in turns]))
    source = CaptionSource(source=str(tmp_path / "c.json"))
    opened = open_captions(source, 16, FINE_TUNING, Leaks(PROMPTS, templates=False))
    assert opened.leaked == 1
    assert {opened.drawn(position).caption for position in range(40)} == {"a kite", "a photo of two cows", "a drum"}
    assert open_captions(source, 16, FINE_TUNING).leaked == 0
