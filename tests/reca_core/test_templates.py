"""The general list of instructions: many, varied, of the published length."""

from __future__ import annotations

from reca_core.data.templates import TEMPLATES


def test_there_are_about_three_hundred_distinct_templates() -> None:
    assert 280 <= len(TEMPLATES) == len({template.lower() for template in TEMPLATES})


def test_every_template_has_between_4_and_40_words_on_one_line() -> None:
    lengths = [len(template.split()) for template in TEMPLATES]
    assert (min(lengths), max(lengths)) >= (4, 30)
    assert max(lengths) <= 40
    assert all(template == " ".join(template.split()) for template in TEMPLATES)


def test_templates_do_not_all_begin_alike() -> None:
    openings = {" ".join(template.split()[:2]) for template in TEMPLATES}
    assert len(openings) >= len(TEMPLATES) / 3
