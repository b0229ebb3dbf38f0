"""RecA with conditions that cannot be looked up place by place: what it then teaches, and what it then spares.

    python -m tests.evaluation.coarser_condition RUN/request.json DIRECTORY --condition pooled

Takes the request of a training that ``reca run`` made, and trains it again with another condition in the reconstruction
term alone; questions see what they saw. The tiny Janus and Show-o have one embedding for each image code, in the same
order. ``pooled``: every square of 2x2 patches says its mean four times, so that a condition has a quarter of its
vectors. ``averaged``: all say the mean of the picture. ``shuffled``: they come in an order drawn anew for each picture,
so that nothing but their content says what is where. The trained model lies in DIRECTORY/final; ``reca evaluate
--model`` measures it. What ``pooled`` gave on Show-o stands in docs/tiny_families.md, the others on Janus in
docs/tiny.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from reca_core.contracts.errors import BadInput
from reca_core.contracts.requests import TrainRequest
from reca_core.models.load import adapter_class
from reca_core.models.unified import Condition, UnifiedModel
from reca_core.training import run

SQUARE = 2
"""Patches on a side that are pooled."""
Patches = Float[Tensor, "batch patches width"]


def pooled(patches: Patches) -> Patches:
    """Every patch as the mean of its square."""
    batch, count, width = patches.shape
    side = round(count**0.5)
    grid = patches.transpose(1, 2).reshape(batch, width, side, side)
    coarse = nn.functional.avg_pool2d(grid, SQUARE)
    return nn.functional.interpolate(coarse, scale_factor=SQUARE).flatten(2).transpose(1, 2)


def shuffled(patches: Patches) -> Patches:
    """Every picture's patches in an order of their own."""
    order = torch.rand(patches.shape[:2]).argsort(dim=1).to(patches.device)
    return patches.gather(1, order[:, :, None].expand_as(patches))


def averaged(patches: Patches) -> Patches:
    """Every patch as the mean of its picture."""
    return patches.mean(dim=1, keepdim=True).expand_as(patches)


CONDITIONS: dict[str, Callable[[Patches], Patches]] = {"pooled": pooled, "averaged": averaged, "shuffled": shuffled}


def train(request: TrainRequest, directory: Path, name: str) -> None:
    """The same training with the condition of that name, in ``directory``.

    Raises BadInput where something lies there: a training's identity does not know of the condition, so that of another
    one would be found, or resumed.
    """
    if directory.exists() and any(directory.iterdir()):
        raise BadInput("is not empty", field=str(directory), remedy="name a new directory")
    family, change = adapter_class(request.model.family), CONDITIONS[name]
    honest = family.condition

    def condition(
        adapter: UnifiedModel, understanding: Patches, templates: Sequence[str], drop_text: Bool[Tensor, " batch"]
    ) -> Condition:
        return honest(adapter, change(understanding), templates, drop_text)

    family.condition = condition  # type: ignore[method-assign]
    try:
        plan = request.training.model_copy(update={"feature_cache": "off"})
        run.main(request.model_copy(update={"training": plan, "run_directory": str(directory.resolve())}))
    finally:
        family.condition = honest  # type: ignore[method-assign]


def main() -> None:
    """Train once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("request", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--condition", choices=list(CONDITIONS), required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    train(TrainRequest.model_validate_json(options.request.read_bytes()), options.directory, options.condition)


if __name__ == "__main__":
    main()
