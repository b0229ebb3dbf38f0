"""What ``reca convert`` asks its child for, and what comes back."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reca_core.contracts.base import Config, Record

Layout = Literal["reca", "upstream"]
AskedWeights = Literal["auto", "model", "ema"]


class ConvertRequest(Config):
    """One conversion, complete: what ``python -m reca_core.launch convert request.json`` reads."""

    family: str
    """Registry key of the family."""
    source: str
    """Absolute path of a checkpoint directory, of one weights file or of a DeepSpeed directory."""
    target: str
    """Absolute path of a directory that is not there yet, or empty."""
    layout: Layout
    """reca: this project's own; upstream: the one that the family's authors publish."""
    base: str = ""
    """Absolute path of the checkpoint that the source was trained from; gives what the source lacks."""
    weights: AskedWeights = "auto"
    """Which, where a checkpoint holds several: auto is the model's, and never a trained one's moving average."""
    report: str
    """Absolute path of the file that receives a ConversionReport, or a ConversionFault."""


class ConversionFault(Record):
    """Why there is no report: an error of the child, to be raised again by the parent."""

    exit_code: int
    fact: str
    field: str = ""
    choices: list[str] = []
    remedy: str = ""


class ConversionReport(Record):
    """How the source compares with what its family's network needs, in the names of the source."""

    missing: list[str] = []
    """Tensors that are needed and not there."""
    unexpected: list[str] = []
    """Tensors that are there and not known."""
    mismatched_shape: list[str] = []
    """Tensors of another shape, or of whole numbers where fractions belong."""
    unchanged: list[str] = []
    """With a base: tensors that post-training changes and that equal the base's."""
    n_tensors: int = 0
    """Tensors written, or found where nothing was written."""
    details: list[str] = []
    """Found and needed shape of each mismatched tensor."""
    notes: list[str] = []
    """What was chosen on the way."""
    refusal: str = ""
    """Why nothing was written, where the three lists above do not say it."""
    written: bool = Field(False)
    """True if the target is there and complete."""

    def clean(self) -> bool:
        """True if every tensor found its place."""
        return not (self.missing or self.unexpected or self.mismatched_shape)
