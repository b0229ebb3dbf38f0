"""The card of a trained checkpoint: README.md beside the weights, which says what they are and how they were made.

Only what is part of the request's identity is in it, so that the same training writes the same card anywhere.
"""

from __future__ import annotations

import json
from pathlib import Path

from reca_core.contracts.files import atomic_write_text
from reca_core.contracts.hashing import hashed_part, request_hash
from reca_core.contracts.requests import TrainRequest
from reca_core.models.directory import CARD, PARITY, REPEATED

CORRECT = "no: the correct behaviour of this project"


def write_card(directory: Path, request: TrainRequest, slips: str) -> None:
    """``slips``: what was repeated of the family's published training, in words; empty where nothing was."""
    atomic_write_text(directory / CARD, card(request, slips))


def card(request: TrainRequest, slips: str) -> str:
    """The text of the card."""
    facts = {
        "family": request.model.family,
        "base weights, SHA-256": request.model.sha256,
        "pictures": f"{request.data.pictures}, digest {request.data.digest}",
        "request hash": request_hash(request),
        "stage": request.training.stage,
        PARITY: f"{REPEATED}{slips}" if slips else CORRECT,
    }
    settings = {"losses": request.losses, "captions": request.captions, "training": request.training}
    parts = {name: hashed_part(part) for name, part in settings.items()}
    parts["captions"]["source"] = Path(request.captions.source).name  # where it lay says nothing about the weights
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    return "\n".join(["# Checkpoint", "", *lines, "", "```json", json.dumps(parts, indent=2), "```", ""])
