"""Drawing with BAGEL: Euler steps on VAE tokens over three remembered contexts, with text and image guidance.

Contexts grow item by item: the conditional one gets everything; before each text, the text-free one becomes a copy of
the conditional one; the image-free one gets texts only. Guidance is text first, ``v_t = u_t + s_t (v - u_t)``, then
image, ``u_i + s_i (v_t - u_i)``, each renormalised so that guidance cannot raise the norm (arXiv 2505.14683).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reca_core.models.bagel.network import BagelNetwork, Noised
from reca_core.models.bagel.packing import Item, Pack, Packer, Specials, block_mask
from reca_core.models.bagel.patches import unpatchify
from reca_core.models.bagel.transformer import Memory, Routing

Renorm = Literal["global", "channel", "text_channel"]
NORM_FLOOR = 1e-8


@dataclass(frozen=True)
class FlowSettings:
    """How to draw. ``interval``: guidance acts at times in (lo, hi]."""

    text_guidance: float
    image_guidance: float
    interval: tuple[float, float]
    renorm: Renorm
    renorm_minimum: float
    times: int
    """Points of time, so one Euler step fewer."""
    shift: float


@dataclass
class Context:
    """What one branch of guidance remembers, and the next rotary position."""

    memory: Memory = field(default_factory=Memory)
    rotary: int = 0

    def copy(self) -> Context:
        """A branch from here."""
        return Context(self.memory.copy(), self.rotary)


@dataclass(frozen=True)
class Contexts:
    """The three branches of guidance."""

    conditional: Context
    without_text: Context
    without_image: Context


VaeNoise = Callable[[tuple[int, ...]], Tensor]
"""Shape of a latent [1, C, h, w] -> the normal draws that sample it."""


class Drawer:
    """Draws one picture at a time with one network."""

    def __init__(self, network: BagelNetwork, specials: Specials) -> None:
        self.network = network
        self.specials = specials

    # ---- contexts ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def contexts(self, items: Sequence[Item], vae_noise: VaeNoise) -> Contexts:
        """Contexts of an interleaved prompt; picture items carry "vit" or "vae" in the order they are to be read."""
        conditional, without_text, without_image = Context(), Context(), Context()
        for item in items:
            if item.kind == "text":
                without_text = conditional.copy()
                without_image = self.extended(without_image, item, vae_noise)
                conditional = self.extended(conditional, item, vae_noise)
            else:
                conditional = self.extended(conditional, item, vae_noise)
                without_text = conditional.copy()
        return Contexts(conditional, without_text, without_image)

    @torch.no_grad()
    def extended(self, context: Context, item: Item, vae_noise: VaeNoise) -> Context:
        """The context with one more item read."""
        packer = Packer(self.specials, self.network.sizes.grids())
        packer.add([item])
        pack = packer.pack
        noised = None
        if pack.vae_pixels:
            pixels = pack.vae_pixels[0]
            scale = self.network.sizes.vae_downsampling
            shape = (1, self.network.sizes.latent_channels, pixels.shape[1] // scale, pixels.shape[2] // scale)
            clean = self.network.pack_latents(pack, vae_noise(shape))
            noised = Noised(clean, torch.zeros_like(clean), torch.zeros(len(clean), device=clean.device))
        rows = self.network.embed(pack, noised)
        memory = self._read(context, pack, rows)
        return Context(memory, context.rotary + max(pack.positions) + 1)

    def _read(self, context: Context, pack: Pack, rows: Float[Tensor, "tokens width"]) -> Memory:
        _, memory = self._pass(context, pack, rows)
        return memory

    def _pass(
        self, context: Context, pack: Pack, rows: Float[Tensor, "tokens width"]
    ) -> tuple[Float[Tensor, "tokens width"], Memory]:
        generation = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        generation[pack.vae_index] = True
        inside = block_mask(pack.split_lengths, pack.modes)
        before = torch.ones(len(rows), context.memory.length, dtype=torch.bool)
        mask = torch.cat([before, inside], dim=1).to(rows.device)
        positions = torch.tensor(pack.positions, device=rows.device) + context.rotary
        states, memory = self.network.language_model.model(rows, positions, Routing(generation, [mask]), context.memory)
        return states, memory

    # ---- pictures ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def draw(
        self,
        contexts: Contexts,
        size: tuple[int, int],
        start: Float[Tensor, "tokens channels"],
        settings: FlowSettings,
        observe: Callable[[Tensor], None] = lambda _: None,
    ) -> Float[Tensor, "1 channels h w"]:
        """Latents of a picture of ``size`` (height, width in pixels) from noise; ``observe`` sees every velocity."""
        pack = self._canvas(size)
        times = shifted_time_line(settings.times, settings.shift).to(start.device)
        x = start
        for time, following in itertools.pairwise(times):
            velocity = self._guided(contexts, pack, x, float(time), settings)
            observe(velocity)
            x = x - velocity * (time - following)
        return unpatchify(x, *pack.vae_grids[0], self.network.sizes.latent_patch)[None]

    def _canvas(self, size: tuple[int, int]) -> Pack:
        packer = Packer(self.specials, self.network.sizes.grids())
        packer.add([Item("vae", pixels=torch.zeros(3, *size), predict=True)])
        return packer.pack

    def _velocity(
        self, context: Context, pack: Pack, x: Float[Tensor, "tokens channels"], time: float
    ) -> Float[Tensor, "tokens channels"]:
        noised = Noised(x, x, torch.full((len(x),), time, device=x.device))
        states, _ = self._pass(context, pack, self.network.embed(pack, noised))
        return self.network.velocity(pack, states)

    def _guided(
        self, contexts: Contexts, pack: Pack, x: Tensor, time: float, settings: FlowSettings
    ) -> Float[Tensor, "tokens channels"]:
        plain = self._velocity(contexts.conditional, pack, x, time)
        low, high = torch.tensor(settings.interval).tolist()  # as precise as times are, so that a bound is met exactly
        if settings.text_guidance <= 1.0 or not low < time <= high:
            return plain
        without_text = self._velocity(contexts.without_text, pack, x, time)
        guided = without_text + settings.text_guidance * (plain - without_text)
        if settings.renorm == "text_channel":
            guided = renormalised(guided, plain, settings)
        if settings.image_guidance > 1.0:
            without_image = self._velocity(contexts.without_image, pack, x, time)
            guided = without_image + settings.image_guidance * (guided - without_image)
        return guided if settings.renorm == "text_channel" else renormalised(guided, plain, settings)

    # ---- words -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def greedy_text(
        self,
        context: Context,
        *,
        end: int,
        max_tokens: int,
        observe: Callable[[Tensor], None] = lambda _: None,
    ) -> list[int]:
        """Most likely continuation; the first token fed is bos. ``observe`` sees the logits of every step."""
        reply: list[int] = []
        token = self.specials.bos
        while len(reply) < max_tokens:
            rows = self.network.language_model.model.embed_tokens(self._tensor([token]))
            mask = torch.ones(1, context.memory.length + 1, dtype=torch.bool, device=rows.device)
            routing = Routing(torch.zeros(1, dtype=torch.bool, device=rows.device), [mask])
            states, memory = self.network.language_model.model(
                rows, self._tensor([context.rotary]), routing, context.memory
            )
            context = Context(memory, context.rotary + 1)
            logits = self.network.language_model.lm_head(states[0])
            observe(logits)
            token = int(logits.argmax())
            if token == end:
                break
            reply.append(token)
        return reply

    def _tensor(self, values: list[int]) -> Int[Tensor, " values"]:
        return torch.tensor(values, device=self.network.vae2llm.weight.device)


def shifted_time_line(times: int, shift: float) -> Float[Tensor, " times"]:
    """From 1 (noise) to 0 (picture); ``shift`` above 1 spends more steps near the noise."""
    line = torch.linspace(1, 0, times)
    return shift * line / (1 + (shift - 1) * line)


def renormalised(guided: Tensor, plain: Tensor, settings: FlowSettings) -> Float[Tensor, "tokens channels"]:
    """``guided`` scaled down to the norm of ``plain``, over everything or per token, never below the minimum factor."""
    if settings.renorm == "global":
        factor = plain.norm() / (guided.norm() + NORM_FLOOR)
    else:
        factor = plain.norm(dim=-1, keepdim=True) / (guided.norm(dim=-1, keepdim=True) + NORM_FLOOR)
    return guided * factor.clamp(settings.renorm_minimum, 1.0)
