"""One training step as the paper writes it: understand, condition, regenerate; beside it the replay terms.

    L = lambda_r L_gen(f(concat(t_template, h_v)), x) + lambda_i2t L_ce(i2t)
        [+ lambda_t2i L_gen(f(caption), x') + lambda_t L_ce + lambda_u L_gen(f(null prompt), x)]

(arXiv 2509.07295, section 3; weights in ``LossTerms``.) ``TrainingStep`` is the one module that distributed training
wraps: every parameter is used inside its ``forward``, because FSDP2 gathers parameters only there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from reca_core.contracts.errors import BadInput
from reca_core.contracts.requests import LossTerms, TrainingPlan
from reca_core.contracts.stages import AUTOENCODER_STAGES
from reca_core.draws import KeyedDraws
from reca_core.models.unified import (
    AnswersInText,
    DrawsFromText,
    Images,
    ShowsOwnTokens,
    Target,
    TrainsTokenizer,
    UnifiedModel,
)
from reca_core.objectives.loss_sum import LossSum
from reca_core.training.batch import Batch
from reca_core.training.features import TARGET, UNDERSTANDING, Features

RECONSTRUCTION, IMAGE_TO_TEXT, TEXT_TO_IMAGE, TEXT = "reconstruction", "image_to_text", "text_to_image", "text"
UNCONDITIONAL = "unconditional"
OWN_TOKENS = "own_tokens"
NEEDED_CAPABILITY: dict[str, type] = {
    IMAGE_TO_TEXT: AnswersInText,
    TEXT_TO_IMAGE: DrawsFromText,
    TEXT: AnswersInText,
    UNCONDITIONAL: DrawsFromText,
}


class TrainingStep(nn.Module):
    """``forward(batch)`` returns the sum and count of every active loss term.

    Args:
        adapter: the family; its ``network`` becomes this module's only child.
        plan: stage, seed of the draws and autocast precision.
        losses: weights; a term with weight 0 is not computed. Not read in the tokenizer stage.
        features: what frozen parts say of pictures, where it is kept.

    Raises:
        BadInput: a term has weight that the family has no means for, or none has.
    """

    def __init__(
        self, adapter: UnifiedModel, plan: TrainingPlan, losses: LossTerms, features: Features | None = None
    ) -> None:
        super().__init__()
        self.network = adapter.network
        self.plan, self.features = plan, features
        self.weights = active_weights(adapter, plan, losses)
        # Held in a tuple: an adapter that is itself a module must not become a second path to the same parameters.
        self._adapter = (adapter,)

    @property
    def adapter(self) -> UnifiedModel:
        """The family whose network this module trains."""
        return self._adapter[0]

    def forward(self, batch: Batch) -> dict[str, LossSum]:
        """Active terms by name. Parts of ``batch`` of inactive terms are not read."""
        if self.plan.stage in AUTOENCODER_STAGES:
            return self._tokenizer(batch)
        draws = KeyedDraws(self.plan.seed, batch.positions)
        sums: dict[str, LossSum] = {}
        if RECONSTRUCTION in self.weights or UNCONDITIONAL in self.weights:
            sums |= self._redrawn(batch, draws)
        if IMAGE_TO_TEXT in self.weights:
            sums[IMAGE_TO_TEXT] = self._image_to_text(batch)
        if TEXT_TO_IMAGE in self.weights:
            sums[TEXT_TO_IMAGE] = self._text_to_image(batch, draws)
        if TEXT in self.weights:
            sums[TEXT] = self._text(batch)
        return sums

    def _redrawn(self, batch: Batch, draws: KeyedDraws) -> dict[str, LossSum]:
        """The terms about the pictures themselves: with their own embeddings as condition, and with none."""
        target, sums = self._target(batch), dict[str, LossSum]()
        with self._autocast():
            if RECONSTRUCTION in self.weights:
                sums[RECONSTRUCTION] = self._reconstruction(batch, target, draws)
            if UNCONDITIONAL in self.weights:
                sums[UNCONDITIONAL] = self._unconditional(batch, target, draws)
        return sums

    def _reconstruction(self, batch: Batch, target: Target, draws: KeyedDraws) -> LossSum:
        assert batch.drop_template is not None  # the builder fills it together with the pictures
        seen = self._shown(batch, target)
        condition = self.adapter.condition(seen, batch.templates, batch.drop_template)
        return self.adapter.reconstruction_loss(condition, target, draws)

    def _unconditional(self, batch: Batch, target: Target, draws: KeyedDraws) -> LossSum:
        """Every text dropped: what guidance compares with.

        A pass over all pictures, not a few that lose their condition: the passes of all ranks stay alike, and a family
        whose null prompt is laid out otherwise than RecA's condition (Show-o) needs nothing of its own.
        """
        adapter = cast(DrawsFromText, self.adapter)  # checked on construction
        dropped = torch.ones(len(batch.templates), dtype=torch.bool)
        return adapter.text_to_image_loss(batch.templates, target, dropped, draws)

    def _target(self, batch: Batch) -> Target:
        if self.features is not None and TARGET in self.features.stores:
            return self.features.target(batch.known, batch.pictures)
        return self.adapter.encode_target(_present(batch.pictures))

    def _shown(self, batch: Batch, target: Target) -> Tensor:
        """What the condition says of the pictures: RecA's understanding tokens, or the control's own tokens."""
        if self.plan.condition == OWN_TOKENS:
            return cast(ShowsOwnTokens, self.adapter).own_tokens(target)  # checked on construction
        if self.features is not None and UNDERSTANDING in self.features.stores:
            return self.features.understanding(batch.known, batch.pictures)
        return self.adapter.understand(_present(batch.pictures))

    def _image_to_text(self, batch: Batch) -> LossSum:
        images = _present(batch.asked)
        adapter = cast(AnswersInText, self.adapter)  # checked on construction
        with self._autocast():
            return adapter.image_to_text_loss(images, batch.dialogues)

    def _text_to_image(self, batch: Batch, draws: KeyedDraws) -> LossSum:
        images = _present(batch.drawn)
        adapter = cast(DrawsFromText, self.adapter)  # checked on construction
        assert batch.drop_caption is not None  # the builder fills it together with the captions
        target = self.adapter.encode_target(images)
        with self._autocast():
            return adapter.text_to_image_loss(batch.captions, target, batch.drop_caption, draws)

    def _text(self, batch: Batch) -> LossSum:
        adapter = cast(AnswersInText, self.adapter)  # checked on construction
        with self._autocast():
            return adapter.text_loss(batch.told)

    def _tokenizer(self, batch: Batch) -> dict[str, LossSum]:
        images = _present(batch.pictures)
        adapter = cast(TrainsTokenizer, self.adapter)  # checked on construction
        with self._autocast():
            return adapter.tokenizer_loss(images)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        return autocast(self.network, self.plan.precision)


def autocast(network: nn.Module, precision: str) -> contextlib.AbstractContextManager[object]:
    """Where ``network`` computes in the precision of its training."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(next(network.parameters()).device.type, dtype=torch.bfloat16)


def active_weights(adapter: UnifiedModel, plan: TrainingPlan, losses: LossTerms) -> Mapping[str, float]:
    """Weight of every active term. The autoencoder's stages have the family's own terms, each of weight 1.

    Raises BadInput naming the term and what the family cannot do, or when no term is left.
    """
    if plan.stage in AUTOENCODER_STAGES:
        if not isinstance(adapter, TrainsTokenizer):
            raise BadInput(f"the family {adapter.family} has no tokenizer training", field="training.stage")
        return {}
    if plan.condition == OWN_TOKENS and not isinstance(adapter, ShowsOwnTokens):
        raise BadInput(
            f"the family {adapter.family} cannot be shown its own tokens",
            field="training.condition",
            choices=("understanding",),
        )
    weights = {name: weight for name, weight in losses.model_dump().items() if weight > 0}
    if not weights:
        raise BadInput("every loss term has weight 0", field="losses", choices=tuple(losses.model_dump()))
    for name in weights:
        needed = NEEDED_CAPABILITY.get(name)
        if needed is not None and not isinstance(adapter, needed):
            raise BadInput(
                f"the family {adapter.family} offers no {needed.__name__}, which this term needs",
                field=f"losses.{name}",
                remedy=f"set losses.{name} to 0",
            )
    return weights


def _present(images: Images | None) -> Images:
    assert images is not None  # the batch builder fills the parts of every active term
    return images
