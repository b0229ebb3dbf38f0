"""Where the tiny Janus begins: its sizes, random weights, and an image tokenizer whose encoder is set, not trained.

Janus' VQ encoder normalises over the whole picture (group norm, attention). Trained in the usual way on a small
codebook it makes codes that describe the whole picture: one 4x4 patch got 14 to 117 different codes (docs/tiny.md), and
a small language model cannot learn to write those. So the encoder is a map that sees one patch at a time, and stays so:

- convolutions keep their centre tap, strided ones the 2x2 block under them; residual and attention branches start at 0;
- opposite biases before the last level (two channels per group) hold the group norm's statistics nearly constant;
- ``quant_conv`` whitens what comes out, plus one constant coordinate, so that no direction is undefined;
- the codebook is a spherical k-means of patches, begun with the ones farthest from each other.

The "tokenizer" stage then trains the decoder. All of it is ordinary weights: transformers loads the result unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from transformers import JanusConfig, JanusVisionConfig, JanusVQVAEConfig, LlamaConfig
from transformers.models.janus.modeling_janus import JanusVQVAE

from reca_core.contracts.requests import CaptionSource
from reca_core.contracts.world import VOCABULARY, WORLD_TEMPLATES
from reca_core.models import patchwise
from reca_core.models.janus.adapter import Janus
from reca_core.models.janus.directory import GUIDANCE
from reca_core.models.janus.vq import pre_quantised
from reca_core.models.janus.word_tokenizer import word_tokenizer
from reca_core.models.tiny_stages import BASE, DECODER, SIDE_PIXELS, base_stage

PATCH_PIXELS = 4
WIDTH, LAYERS, HEADS, FEED_FORWARD = 96, 5, 4, 240
ENCODER_WIDTH, ENCODER_LAYERS, ENCODER_RATIO = 64, 2, 2.0
CODES, CODE_WIDTH = 256, 16
SPREAD = 0.05
"""Standard deviation of the language model's and understanding encoder's first weights."""
NORM_BIAS = 6.0
"""Opposite biases of the two channels of a group: large beside the signal, so that the norm hardly depends on it."""
CONSTANT_COORDINATE = 4.0
"""Of the whitened vector: how far its mean, and with it the ground, lies from the origin."""
SMALLEST_VARIANCE = 1e-8
KMEANS_ROUNDS = 5
ZEROED_BRANCHES = ("conv2", "proj_out")
STRIDED = "downsample"
TINY_GUIDANCE = 2.0
"""What suits the tiny model, whose conditional distributions are sharp already."""
TOKENIZER = DECODER.with_plan(stage="tokenizer")
"""Of Janus, too, only the decoder learns."""
FINDING = base_stage(
    seed=1,
    steps=500,
    learning_rate=1.2e-3,
    warmup_steps=30,
    image_to_text=3,
    captions=CaptionSource(rich_fraction=0.1, seed=800_000, described_fraction=0.05, finding_fraction=0.7),
)
"""The same again with more of what is slowest to learn: questions about an object that is found by its shape."""
POLISH = base_stage(
    seed=2,
    steps=600,
    learning_rate=7e-4,
    warmup_steps=20,
    image_to_text=4,
    captions=CaptionSource(rich_fraction=0.1, seed=900_000, described_fraction=0.05, finding_fraction=0.35),
)
"""All kinds of questions at a lower rate: after FINDING the easy ones had become a little worse."""
STAGES = (TOKENIZER, BASE, FINDING, POLISH)


def tiny_configuration(vocabulary: int) -> JanusConfig:
    """16 px pictures, 4x4 patches for both paths, 256 codes, tied text embeddings: 1.5 M parameters."""
    return JanusConfig(
        text_config=LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=WIDTH,
            intermediate_size=FEED_FORWARD,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            initializer_range=SPREAD,
        ),
        vision_config=JanusVisionConfig(
            hidden_size=ENCODER_WIDTH,
            num_hidden_layers=ENCODER_LAYERS,
            num_attention_heads=HEADS,
            mlp_ratio=ENCODER_RATIO,
            image_size=SIDE_PIXELS,
            patch_size=PATCH_PIXELS,
            projection_dim=WIDTH,
            num_image_tokens=(SIDE_PIXELS // PATCH_PIXELS) ** 2,
            initializer_range=SPREAD,
        ),
        vq_config=JanusVQVAEConfig(
            embed_dim=CODE_WIDTH,
            num_embeddings=CODES,
            latent_channels=CODE_WIDTH,
            base_channels=32,
            channel_multiplier=[1, 1, 2],
            num_res_blocks=1,
            projection_dim=WIDTH,
            image_token_embed_dim=WIDTH,
        ),
        tie_word_embeddings=True,
    )


def tiny_start(pictures: Sequence[Image.Image], seed: int) -> Janus:
    """The untrained tiny Janus in the words of the rendered world.

    Args:
        pictures: scenes from which the encoder's scale and the codebook are computed, some hundreds.
        seed: of every random weight.
    """
    tokenizer = word_tokenizer(VOCABULARY)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapter = Janus.from_configuration(tiny_configuration(len(tokenizer)), tokenizer, WORLD_TEMPLATES)
        set_local_encoder(adapter.network.model.vqmodel, adapter.prepare(pictures).target)
    setattr(adapter.network.generation_config, GUIDANCE, TINY_GUIDANCE)
    return adapter


@torch.no_grad()
def set_local_encoder(vq: JanusVQVAE, pixels: Float[Tensor, "batch 3 height width"]) -> None:
    """Give an image tokenizer of two channels per group the encoder and codebook described above; decoder at random."""
    for name, module in vq.named_modules():
        if isinstance(module, nn.Conv2d):
            patchwise.start_convolution(
                module,
                patchwise=name.startswith("encoder"),
                zeroed=name.endswith(ZEROED_BRANCHES),
                own=patchwise.STRIDED_TAPS if STRIDED in name else patchwise.OWN_TAP,
            )
    signs = torch.tensor([1.0, -1.0]).repeat(len(vq.encoder.norm_out.weight) // 2)
    vq.encoder.down[-1].block[0].nin_shortcut.bias.copy_(NORM_BIAS * signs)
    _whiten(vq, pixels)
    vq.quantize.embedding.weight.copy_(spherical_kmeans(_directions(vq, pixels), len(vq.quantize.embedding.weight)))


def _whiten(vq: JanusVQVAE, pixels: Float[Tensor, "batch 3 height width"]) -> None:
    """Set ``quant_conv`` so that all but its last coordinate have mean 0 and variance 1 and are uncorrelated."""
    values = rearrange(vq.encoder(pixels), "b c h w -> (b h w) c")
    mean, (variances, axes) = values.mean(0), torch.linalg.eigh(torch.cov(values.T))
    kept = vq.quant_conv.weight.shape[0] - 1
    whitening = (axes[:, -kept:] / variances[-kept:].clamp(min=SMALLEST_VARIANCE).sqrt()).T
    vq.quant_conv.weight.zero_()
    vq.quant_conv.weight[:kept] = rearrange(whitening, "k c -> k c 1 1")
    assert vq.quant_conv.bias is not None  # transformers gives it one
    vq.quant_conv.bias[:kept] = -(whitening @ mean)
    vq.quant_conv.bias[kept] = CONSTANT_COORDINATE


def _directions(vq: JanusVQVAE, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "patches code"]:
    return rearrange(F.normalize(pre_quantised(vq, pixels), dim=1), "b c h w -> (b h w) c")


def spherical_kmeans(points: Float[Tensor, "points code"], clusters: int) -> Float[Tensor, "clusters code"]:
    """Unit centres of unit ``points`` by cosine; each first centre is the point farthest from those before it."""
    chosen, closest = [0], points @ points[0]
    while len(chosen) < clusters:
        chosen.append(int(closest.argmin()))
        closest = torch.maximum(closest, points @ points[chosen[-1]])
    centres = points[chosen]
    for _ in range(KMEANS_ROUNDS):
        members = (points @ centres.T).argmax(-1)
        sums = torch.zeros_like(centres).index_add(0, members, points)
        centres = F.normalize(sums + SMALLEST_VARIANCE * centres, dim=-1)  # an empty cluster keeps its centre
    return centres
