"""Kinds of training stages (``TrainingPlan.stage``) that are told apart in more than one place."""

from __future__ import annotations

from collections.abc import Iterator

from reca_core.contracts.errors import BadInput

AUTOENCODER_STAGES = ("tokenizer", "decoder")
"""They learn from pictures alone, by the image tokenizer's own loss; "decoder" changes what makes pictures of codes or
latents and nothing else, so that codes and latents stay what they are."""


def division_faults(stage: str, processes: int, images_per_pass: int) -> Iterator[BadInput]:
    """What is wrong where a step of the autoencoder's objective would be divided: it compares the pictures of a pass.

    Janus' decoder sees patches exchanged between them and Show-o's bits are to differ over all of them, so the parts of
    a step would add up to another objective.
    """
    if stage not in AUTOENCODER_STAGES:
        return
    for field, asked, whole in (("processes", processes, 1), ("images_per_pass", images_per_pass, 0)):
        if asked != whole:
            yield BadInput(
                f"a step of the stage {stage!r} cannot be divided, and this is {asked}",
                field=f"training.{field}",
                choices=(str(whole),),
                remedy="a step in one pass of one process",
            )
