"""What the model does with the same few pictures and prompts, every so many steps.

``previews/step-NNNNNNNN/`` holds ``reconstruct-II.png`` and ``draw-II.png``; ``previews/originals/`` the pictures to
compare with; ``previews/index.jsonl`` one ``PreviewRow`` per picture; ``previews/colours.jsonl`` the cast of what was
drawn. Step 0 is the base model. Inputs and seeds never change, and the training's draws are keyed, so looking does not
change what is learned.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import torch
from PIL import Image

from reca_core.contracts.files import append_jsonl, read_jsonl
from reca_core.contracts.home import RunDirectory
from reca_core.contracts.records import ManifestRow, PreviewRow
from reca_core.contracts.requests import SamplingSettings, TrainingPlan
from reca_core.contracts.stages import AUTOENCODER_STAGES
from reca_core.data.colour import TINTED, colours_of, statistics_of
from reca_core.data.images import load_verified
from reca_core.data.png import write_png
from reca_core.models.unified import DrawRequest, RedrawRequest, UnifiedModel
from reca_core.training.checkpoint_folder import step_name
from reca_core.training.metrics import STEP, keep_steps
from reca_core.training.optimizer import set_modes
from reca_core.training.step import autocast

log = logging.getLogger(__name__)

PICTURES = 8
"""Of each kind. A few hundred milliseconds with the tiny models, a batch with the published ones."""
SEED = 0
NOTHING_DONE = -1
ORIGINAL_PIXELS = 256
"""Longest side of the stored originals."""
INDEX = "index.jsonl"
COLOURS = "colours.jsonl"
"""One row per step: the cast of the drawn pictures, under its metric names."""
CAST_A, CAST_B = "preview/cast_a", "preview/cast_b"


class Previews:
    """The fixed inputs of one run."""

    def __init__(
        self,
        run: RunDirectory,
        adapter: UnifiedModel,
        rows: Sequence[ManifestRow],
        prompts: Sequence[str],
        template: str,
        plan: TrainingPlan,
        done_steps: int,
        writes: bool,
    ) -> None:
        """Args:
        rows: manifest rows; the first ``PICTURES`` are reconstructed, with ``template``.
        prompts: the first ``PICTURES`` are drawn.
        done_steps: rows of the index of later steps are removed.
        writes: False on ranks that only take part in the computation.
        """
        self.run, self.adapter, self.template = run, adapter, template
        self.stage, self.precision = plan.stage, plan.precision
        self.writes = writes
        self.rows = list(rows[:PICTURES])
        self.pictures = [load_verified(row) for row in self.rows]
        self.prompts = list(prompts[:PICTURES]) if plan.stage not in AUTOENCODER_STAGES else []
        self.settings = SamplingSettings(images_per_batch=PICTURES)
        if writes:
            # An attempt without a checkpoint looks at the base model again: nothing of the last one is kept.
            keep_steps(run.previews / INDEX, done_steps or NOTHING_DONE)
            keep_steps(run.previews / COLOURS, done_steps or NOTHING_DONE, (CAST_A, CAST_B))

    @torch.no_grad()
    def make(self, step: int) -> None:
        """Write the pictures of a step and then their rows. The network is in evaluation mode meanwhile."""
        self.adapter.network.eval()
        try:
            with autocast(self.adapter.network, self.precision):
                redrawn = self._reconstruct()
                drawn = self._draw()
        finally:
            set_modes(self.adapter.network)
        if self.writes:
            self._write(step, redrawn, drawn)
            self._watch_colours(step, drawn or redrawn)

    def _write(self, step: int, redrawn: Sequence[Image.Image], drawn: Sequence[Image.Image]) -> None:
        rows = [self._row(step, "reconstruct", *item) for item in enumerate(redrawn)]
        rows += [self._row(step, "draw", *item) for item in enumerate(drawn)]
        append_jsonl(self.run.previews / INDEX, [row.model_dump() for row in rows])

    def _watch_colours(self, step: int, pictures: Sequence[Image.Image]) -> None:
        """Note the cast of what was drawn, and say when training has moved it: RecA can tint (data/colour.py)."""
        found = statistics_of(colours_of(picture.convert("RGB")) for picture in pictures)
        rows = [{STEP: step, CAST_A: found.cast_a, CAST_B: found.cast_b}]
        append_jsonl(self.run.previews / COLOURS, rows)
        first = next(iter(read_jsonl(self.run.previews / COLOURS)))
        moved = math.hypot(found.cast_a - first[CAST_A], found.cast_b - first[CAST_B])
        if moved > TINTED:
            log.warning(
                "the drawn previews' mean colour has moved by %.0f since step %d (a* %+.0f, b* %+.0f now): training "
                "may be tinting the model; compare the colours of its pictures in prepared.json",
                moved,
                first[STEP],
                found.cast_a,
                found.cast_b,
            )

    def _draw(self) -> list[Image.Image]:
        requests = [DrawRequest(text, SEED) for text in self.prompts]
        return list(self.adapter.generate(requests, self.settings)) if requests else []

    def _reconstruct(self) -> list[Image.Image]:
        if self.stage in AUTOENCODER_STAGES:
            return self.adapter.tokenizer_ceiling(self.pictures)
        requests = [RedrawRequest(picture, SEED, self.template) for picture in self.pictures]
        return list(self.adapter.reconstruct(requests, self.settings))

    def _row(self, step: int, task: str, number: int, picture: Image.Image) -> PreviewRow:
        path = f"{step_name(step)}/{task}-{number:02d}.png"
        write_png(self.run.previews / path, picture)
        if task == "draw":
            return PreviewRow(step=step, task=task, path=path, text=self.prompts[number])
        return PreviewRow(step=step, task=task, path=path, text=self.rows[number].label, source=self._original(number))

    def _original(self, number: int) -> str:
        path = f"originals/{number:02d}.png"
        if not (self.run.previews / path).exists():
            picture = self.pictures[number].copy()
            picture.thumbnail((ORIGINAL_PIXELS, ORIGINAL_PIXELS), Image.Resampling.LANCZOS)
            write_png(self.run.previews / path, picture)
        return path
