"""BAGEL as a UnifiedModel: RecA on a flow-matching model whose understanding and generation have experts of their own.

    picture -> SigLIP (small) -> [soi ViT eoi] [bos instruction eos] [soi noised VAE tokens eoi] -> velocity

Understanding is frozen while RecA trains the generation experts (reference "reca_recipe", sections 1.3 and 4.2 E).
Pictures keep their aspect; a batch is packed, and every picture is computed as if it were alone. Source: arXiv
2505.14683; drawing settings: reference, section 1.8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from reca_core.contracts.errors import BadInput
from reca_core.contracts.requests import SamplingSettings, TrainingPlan
from reca_core.draws import KeyedDraws, picture_stream
from reca_core.models import directory as common
from reca_core.models.bagel import directory as layout
from reca_core.models.bagel import sequence, smallest
from reca_core.models.bagel.configuration import BagelConfiguration
from reca_core.models.bagel.network import BagelNetwork
from reca_core.models.bagel.packing import Item
from reca_core.models.bagel.patches import patchify
from reca_core.models.bagel.pictures import AspectTransform, Size, VariedImages, as_pixels, cut
from reca_core.models.bagel.sampler import Context, Drawer, FlowSettings, Renorm
from reca_core.models.bagel.sequence import LatentTarget, PackedCondition, Words
from reca_core.models.frozen import described
from reca_core.models.pictures import to_pictures
from reca_core.models.unified import (
    Condition,
    Dialogue,
    DrawRequest,
    EditRequest,
    FrozenPart,
    FrozenParts,
    Images,
    RedrawRequest,
    Target,
)
from reca_core.models.variants import refuse_others
from reca_core.models.word_tokenizer import word_tokenizer
from reca_core.objectives.loss_sum import LossSum

AUTOENCODER = "vae."
GENERATION = ("time_embedder.", "vae2llm.", "llm2vae.")
EXPERT = "_moe_gen."
UNDERSTANDING = ("vit_model.", "connector.", "vit_pos_embed.")
STAGES = ("base", "post")
"""base: everything but the autoencoder; post: the generation experts and what leads to and from the latents (1.3)."""
NO_TEMPERATURE = 1.0


class Bagel(nn.Module):
    """The adapter. Construct with ``load`` or ``from_configuration``.

    Args:
        configuration: sizes and published settings.
        network: all parameters.
        tokenizer: the checkpoint's own.
        templates: instructions for RecA in words that this checkpoint knows.
        companions: the files that ``save`` writes beside config and weights, by name.
    """

    family = "bagel"
    understanding_space = "SigLIP features"
    target_space = "FLUX autoencoder latents"
    parity = (
        "the moving average of the weights was exported, nine tenths of which are the base model after the published "
        "1000 steps (BAGEL's published conversion)"
    )
    parity_average = 0.9999
    undecayed: tuple[str, ...] = ()

    def __init__(
        self,
        configuration: BagelConfiguration,
        network: BagelNetwork,
        tokenizer: PreTrainedTokenizerFast,
        templates: Sequence[str],
        companions: Mapping[str, bytes],
    ) -> None:
        super().__init__()
        self.configuration = configuration
        self.network = network
        self.templates = tuple(templates)
        self._companions = companions
        self.words = Words(tokenizer)
        self.transform = AspectTransform(configuration.pictures, configuration.sizes.grids())

    @classmethod
    def from_configuration(
        cls, configuration: BagelConfiguration, tokenizer: PreTrainedTokenizerFast, templates: Sequence[str] = ()
    ) -> Bagel:
        """A model with random weights (torch's global generator), for tiny models and tests."""
        chosen = tuple(templates) or common.GENERAL_TEMPLATES
        network = smallest.random_network(configuration.sizes)
        return cls(configuration, network, tokenizer, chosen, common.new_companions(tokenizer, chosen)).eval()

    @classmethod
    def smallest(cls, seed: int = 0) -> Bagel:
        """The smallest model that has every part, with random weights of this seed."""
        tokenizer = word_tokenizer(smallest.WORDS, smallest.STRUCTURAL)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return cls.from_configuration(
                smallest.smallest_configuration(len(tokenizer)), tokenizer, smallest.TEMPLATES
            )

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> Bagel:
        """Read a checkpoint directory, ours or the published files, in float32.

        Raises CheckpointRefused naming the keys that do not fit.
        """
        found = layout.read(directory)
        adapter = cls(found.configuration, found.network, found.tokenizer, found.templates, found.companions)
        return adapter.to(device).eval()

    def save(self, directory: Path) -> None:
        """Write our layout: what ``load`` reads."""
        layout.write(directory, self.configuration, self.network, self._companions)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.network.device

    def trainable_names(self, stage: str) -> frozenset[str]:
        """Names of ``network``'s parameters that the stage may change. Raises BadInput for an unknown stage."""
        if stage not in STAGES:
            raise BadInput(f"{self.family} has no stage {stage!r}", field="training.stage", choices=STAGES)
        names = [name for name, _ in self.network.named_parameters()]
        if stage == "base":
            return frozenset(name for name in names if not name.startswith(AUTOENCODER))
        return frozenset(name for name in names if EXPERT in name or name.startswith(GENERATION))

    def following(self, plan: TrainingPlan) -> Bagel:
        """Nothing in the step differs: upstream's slip is in what it exported (``parity_average``).

        Raises BadInput for flex attention on a CPU, where it has no way back.
        """
        refuse_others(self.family, plan, ("upstream_parity", "attention"))
        if plan.attention == "flex" and self.device.type == "cpu":
            raise BadInput("flex attention trains on a GPU only", field="training.attention", choices=("dense",))
        self.network.choose_attention(plan.attention)
        return self

    # ---- what goes in ------------------------------------------------------------------------------------------

    def prepare(self, pictures: Sequence[Image.Image], whole: bool = False) -> VariedImages:
        """The aspect kept, all of the picture either way; ``whole`` shows more of it to questions. On the CPU."""
        return self.transform(pictures, whole)

    def understand(self, images: Images) -> Float[Tensor, "batch und_tokens width"]:
        """SigLIP patches through the connector; rows of zeros past a picture's own."""
        varied = _varied(images)
        return sequence.see(self.network, cut(varied.understanding, varied.understanding_sizes))

    def condition(
        self,
        understanding: Float[Tensor, "batch und_tokens width"],
        templates: Sequence[str],
        drop_text: Bool[Tensor, " batch"],
    ) -> PackedCondition:
        """Picture, then the bare instruction. Dropped rows keep the picture and have no text."""
        return sequence.prefix(self.network, self.words, templates, drop_text, understanding)

    def encode_target(self, images: Images) -> LatentTarget:
        """Mean and deviation of the latents, in patches; float32, no gradient. Pictures of one size go together."""
        varied, stride = _varied(images), self.network.sizes.grids().vae_stride
        sizes = varied.target_sizes
        pictures = cut(varied.target.to(self.device), sizes)
        rows: dict[int, Tensor] = {}
        for size in dict.fromkeys(sizes):
            members = [index for index, other in enumerate(sizes) if other == size]
            rows.update(zip(members, self._posterior(torch.stack([pictures[i] for i in members])), strict=True))
        grids = [rearrange(rows[at], "(h w) c -> h w c", h=height // stride) for at, (height, _) in enumerate(sizes)]
        return LatentTarget.of(grids)

    def _posterior(self, pixels: Float[Tensor, "batch 3 h w"]) -> list[Float[Tensor, "tokens channels2"]]:
        side = self.network.sizes.latent_patch
        moments = zip(*self.network.posterior(pixels), strict=True)
        return [torch.cat([patchify(part, side) for part in of_one], dim=-1) for of_one in moments]

    def frozen_parts(self) -> FrozenParts:
        """Every picture's own tokens without padding, frozen with all of understanding; its latents' distribution."""
        sizes = self.network.sizes
        looked = described(sizes.vision, sizes.vit_per_side, self.transform)
        drawn = described(sizes.autoencoder, sizes.latent_patch, self.transform)
        seen = FrozenPart(
            UNDERSTANDING, looked, lambda images: sequence.seen_rows(self.understand(images)), sequence.padded
        )
        target: FrozenPart[Target] = FrozenPart(
            (AUTOENCODER,), drawn, lambda images: self.encode_target(images).pictures(), LatentTarget.of
        )
        return FrozenParts(seen, target)

    # ---- losses ------------------------------------------------------------------------------------------------

    def reconstruction_loss(self, condition: Condition, target: Target, draws: KeyedDraws) -> LossSum:
        """Squared error of the velocity (arXiv 2509.07295, equation 1), one count per VAE token."""
        if not isinstance(condition, PackedCondition) or not isinstance(target, LatentTarget):
            raise BadInput("BAGEL's conditions and targets are its own", field="target", remedy="use encode_target")
        return sequence.generation_loss(
            self.network,
            self.words.specials,
            condition,
            target,
            draws,
            shift=self.configuration.learning_shift,
            frozen_understanding=self.understanding_is_frozen,
        )

    @property
    def understanding_is_frozen(self) -> bool:
        """True in RecA's stage: then no gradient passes through understanding tokens either, as published."""
        return not self.network.language_model.model.embed_tokens.weight.requires_grad

    def text_to_image_loss(
        self, captions: Sequence[str], target: Target, drop_text: Bool[Tensor, " batch"], draws: KeyedDraws
    ) -> LossSum:
        """The same error after a caption; dropped rows have none."""
        return self.reconstruction_loss(sequence.prefix(self.network, self.words, captions, drop_text), target, draws)

    def image_to_text_loss(self, images: Images, dialogues: Sequence[Dialogue]) -> LossSum:
        """Cross-entropy of the answers' tokens, end included. No gradient where understanding is frozen."""
        shown = [dialogue.picture for dialogue in dialogues if dialogue.picture is not None]
        rows = sequence.seen_rows(self.understand(images)) if shown else []
        samples = [self._dialogue(dialogue, rows) for dialogue in dialogues]
        seen = torch.cat([rows[index] for index in shown]) if shown else None
        return sequence.answer_loss(self.network, self.words.specials, samples, seen)

    def text_loss(self, dialogues: Sequence[Dialogue]) -> LossSum:
        """The same about captions that stand in the question. Raises BadInput if a dialogue shows a picture."""
        if any(dialogue.picture is not None for dialogue in dialogues):
            raise BadInput("a text dialogue refers to a picture", field="dialogues", remedy="use image_to_text_loss")
        samples = [self._dialogue(dialogue, []) for dialogue in dialogues]
        return sequence.answer_loss(self.network, self.words.specials, samples, None)

    def _dialogue(self, dialogue: Dialogue, rows: Sequence[Tensor]) -> list[Item]:
        shown = [Item("vit", embedded=len(rows[dialogue.picture]))] if dialogue.picture is not None else []
        return [*shown, self.words.item(dialogue.question), self.words.item(dialogue.answer, predict=True)]

    # ---- what comes out ----------------------------------------------------------------------------------------

    def generate(self, requests: Sequence[DrawRequest], settings: SamplingSettings) -> Iterator[Image.Image]:
        """Text to image, in order, each picture by itself."""
        side, flow = self.configuration.pictures.drawn_side, self._plain_flow(settings)
        for request in requests:
            prompt = [self.words.item(request.text)]
            yield self._draw(prompt, (side, side), (request.text, request.seed), flow)

    def reconstruct(self, requests: Sequence[RedrawRequest], settings: SamplingSettings) -> Iterator[Image.Image]:
        """Image to image through the understanding encoder, in order and in each picture's own aspect."""
        flow = self._plain_flow(settings)
        for request in requests:
            images = self.prepare([request.picture])
            seen = cut(images.understanding, images.understanding_sizes)[0].to(self.device)
            prompt = [Item("vit", pixels=seen), self.words.item(request.template)]
            key = (request.template, request.seed)
            yield self._draw(prompt, images.target_sizes[0], key, flow)

    def edit(self, requests: Sequence[EditRequest], settings: SamplingSettings) -> Iterator[Image.Image]:
        """Pictures changed as told: both views of the picture, then the instruction; text and image guidance."""
        plan = self.configuration.drawing
        flow = self._flow(settings, plan.edit_renorm, settings.image_guidance_scale or plan.edit_image_guidance)
        for request in requests:
            images = self.prepare([request.picture], whole=True)
            clean = cut(images.target, images.target_sizes)[0].to(self.device)
            seen = cut(images.understanding, images.understanding_sizes)[0].to(self.device)
            prompt = [Item("vae", pixels=clean), Item("vit", pixels=seen), self.words.item(request.instruction)]
            yield self._draw(prompt, images.target_sizes[0], (request.instruction, request.seed), flow)

    def _plain_flow(self, settings: SamplingSettings) -> FlowSettings:
        """Without image guidance, which is about a picture that is edited."""
        refuse_others(self.family, settings, ("steps", "renorm"))
        return self._flow(settings, self.configuration.drawing.renorm, image_guidance=1.0)

    def _flow(self, settings: SamplingSettings, renorm: Renorm, image_guidance: float) -> FlowSettings:
        """Raises BadInput for a temperature: the path from noise to picture is no random walk."""
        if settings.temperature != NO_TEMPERATURE:
            raise BadInput(
                f"{settings.temperature} has no meaning for BAGEL, which draws along a flow",
                field="sampling.temperature",
                choices=(str(NO_TEMPERATURE),),
            )
        plan = self.configuration.drawing
        return FlowSettings(
            text_guidance=settings.guidance_scale or plan.guidance,
            image_guidance=image_guidance,
            interval=(plan.lowest_time, plan.highest_time),
            renorm=renorm if settings.renorm == "published" else settings.renorm,
            renorm_minimum=plan.renorm_minimum,
            times=settings.steps or plan.times,
            shift=plan.shift,
        )

    @torch.no_grad()
    def _draw(self, prompt: Sequence[Item], size: Size, key: tuple[str, int], flow: FlowSettings) -> Image.Image:
        drawer, sizes = Drawer(self.network, self.words.specials), self.network.sizes
        latents = picture_stream([key], "latents")
        contexts = drawer.contexts(prompt, lambda shape: latents.normal(*shape[1:]).to(self.device))
        stride, channels = sizes.grids().vae_stride, sizes.latent_channels * sizes.latent_patch**2
        tokens = (size[0] // stride) * (size[1] // stride)
        start = picture_stream([key], "start").normal(tokens, channels)[0].to(self.device)
        return to_pictures(self.network.decode_latents(drawer.draw(contexts, size, start, flow)))[0]

    @torch.no_grad()
    def describe(
        self, pictures: Sequence[Image.Image], questions: Sequence[str], settings: SamplingSettings
    ) -> list[str]:
        """Greedy answers, one per picture and question, each by itself."""
        return [
            self._answer(picture, question, settings.max_reply_tokens)
            for picture, question in zip(pictures, questions, strict=True)
        ]

    def _answer(self, picture: Image.Image, question: str, max_tokens: int) -> str:
        drawer, context = Drawer(self.network, self.words.specials), Context()
        bounds, patch = self.configuration.pictures.questions, self.network.sizes.grids().vit_patch
        seen = Item("vit", pixels=as_pixels(picture, bounds, patch).to(self.device))
        for item in (seen, self.words.item(question)):
            context = drawer.extended(context, item, torch.zeros)
        return self.words.reply(drawer.greedy_text(context, end=self.words.specials.eos, max_tokens=max_tokens))

    @torch.no_grad()
    def tokenizer_ceiling(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        """Encoded and decoded by the autoencoder alone, without its noise: the best any reconstruction could be."""
        images = self.prepare(pictures)
        means = [
            self.network.posterior(target[None].to(self.device))[0]
            for target in cut(images.target, images.target_sizes)
        ]
        return [to_pictures(self.network.decode_latents(mean))[0] for mean in means]

    def understanding_view(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        """The pixels that the understanding encoder saw."""
        images = self.prepare(pictures)
        return [to_pictures(seen[None])[0] for seen in cut(images.understanding, images.understanding_sizes)]


def _varied(images: Images) -> VariedImages:
    if not isinstance(images, VariedImages):
        raise BadInput("pictures without their sizes", field="images", remedy="use the adapter's prepare")
    return images
