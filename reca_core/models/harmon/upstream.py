"""Harmon as its authors publish it: ``harmon_*.pth`` and ``kl16.ckpt`` beside the files of the Qwen2.5 it came from.

File names: reference "model_goldens", section 3. Neither file says its sizes, so they are read off the shapes; head
counts cannot be, and depths would not show a lost block, so both follow from the width as in MAR's published models
(arXiv 2406.11838, section 5.1; reference "reca_recipe", section 4.2 C). Where
``reca.json`` lies beside them (an export of ours), it says all of this. ``iter_N.pth`` may be a DeepSpeed directory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import Qwen2Config

from reca_core.contracts.errors import CheckpointRefused, PrerequisiteMissing
from reca_core.models import directory as common
from reca_core.models import ldm_autoencoder
from reca_core.models.harmon.checkpoint import AUTOENCODER as PREFIX
from reca_core.models.harmon.checkpoint import from_upstream, tied
from reca_core.models.harmon.configuration import DrawingPlan, HarmonConfiguration
from reca_core.models.harmon.mar import MarConfiguration
from reca_core.models.harmon.network import HarmonSizes
from reca_core.models.pickles import Weights
from reca_core.models.published import (
    INDEX,
    SETTINGS,
    Published,
    SizesUnknown,
    WeightsFile,
    is_recorded,
    read_file,
    recorded,
    small_files,
)
from reca_core.models.shapes import Shapes

WEIGHTS, AUTOENCODER, INSIDE = "*.pth", "kl16.ckpt", "model"
PARTS = ((WeightsFile("vae.safetensors", PREFIX), WeightsFile(AUTOENCODER, PREFIX, INSIDE)),)
"""Where the autoencoder of a recorded set lies."""
OTHER_FORMS = ("model.safetensors", f"model.safetensors{INDEX}")
LANGUAGE_TYPE = "qwen2"
SIDE = 512
HEADS = {768: 12, 1024: 16, 1280: 16}
"""Width of MAR-B, MAR-L and MAR-H -> attention heads."""
DEPTHS = {768: (12, 6), 1024: (16, 8), 1280: (20, 12)}
"""The same -> blocks of encoder and of decoder, blocks of the diffusion head."""
BLOCK = r"\.\d+\.(norm[12]\.(weight|bias)|(attn\.proj|mlp\.fc2)\.bias)"
HEAD = r"diffloss\.net\.((cond_embed|time_embed\.mlp\.\d)\.bias|res_blocks\.\d+\.(in_ln\.(weight|bias)|mlp\.\d\.bias))"
"""Vectors that are as wide as a half, and as the diffusion head."""


def is_upstream(directory: Path) -> bool:
    """True where the published autoencoder file lies, or a recorded set."""
    return (directory / AUTOENCODER).is_file() or is_recorded(directory)


def read(directory: Path) -> tuple[HarmonConfiguration, dict[str, Tensor]]:
    """Configuration and weights under our names. Raises as ``find`` does."""
    found = find(directory)
    levels = len(found.configuration.sizes.autoencoder["block_out_channels"])
    return found.configuration, from_upstream(found.state, levels)


def find(directory: Path, which: Weights | None = None, chosen: Path | None = None) -> Published:
    """The checkpoint under full upstream names: the model's as they are, the autoencoder's after ``vae.``.

    Raises CheckpointRefused for sizes that cannot be told, PrerequisiteMissing for absent files.
    """
    if is_recorded(directory):
        return _settled(recorded(directory, recorded_configuration, PARTS, which, chosen))
    weights = chosen or _weights_file(directory)
    files: tuple[WeightsFile, ...] = (WeightsFile(weights.name), WeightsFile(AUTOENCODER, PREFIX, INSIDE))
    state = read_file(weights, files[0], which or "model")
    if any(name.startswith(PREFIX) for name in state):
        files = files[:1]  # the authors' other form has the autoencoder inside
    else:
        state |= read_file(directory / AUTOENCODER, files[1])
    small = small_files(directory)
    if SETTINGS in small:
        configuration = HarmonConfiguration.from_json(common.read_json(directory / SETTINGS), str(directory / SETTINGS))
    else:
        configuration = configuration_of(state, common.read_json(directory / common.CONFIG), directory)
    return _settled(Published(configuration, files, state, small, directory))


def _settled(found: Published) -> Published:
    """Tied as config says, unless the file holds a text head of its own."""
    language = found.configuration.sizes.language
    language.tie_word_embeddings = tied(bool(language.tie_word_embeddings), found.state)
    return found


def configuration_of(state: Mapping[str, Tensor], language: Mapping[str, Any], directory: Path) -> HarmonConfiguration:
    """From the shapes. ``language``: config.json of the Qwen2.5 it was made from."""
    if language.get("model_type") != LANGUAGE_TYPE:
        raise CheckpointRefused(
            f"is of model_type {language.get('model_type')!r}, Harmon's language model is {LANGUAGE_TYPE}",
            field=str(directory / common.CONFIG),
            remedy="put the files of Qwen2.5-0.5B-Instruct or Qwen2.5-1.5B-Instruct beside Harmon's",
        )
    autoencoder = {name.removeprefix(PREFIX): tensor for name, tensor in state.items() if name.startswith(PREFIX)}
    arguments = ldm_autoencoder.arguments_of(autoencoder, ldm_autoencoder.KL_16)
    mar = mar_sizes(state)
    patch = math.isqrt(mar.latent_channels // int(arguments["latent_channels"]))
    if patch**2 * int(arguments["latent_channels"]) != mar.latent_channels:
        raise CheckpointRefused(
            f"its tokens of {mar.latent_channels} channels are no squares of latents of {arguments['latent_channels']}",
            field=str(directory),
            remedy=f"put the {AUTOENCODER} that it was trained with beside it",
        )
    configuration = HarmonConfiguration(HarmonSizes(Qwen2Config(**language), mar, arguments, latent_patch=patch), SIDE)
    configuration.check(str(directory))
    return configuration


def recorded_configuration(sizes: Mapping[str, Any]) -> HarmonConfiguration:
    """Of a recorded set, whose config.json says every size."""
    mar, vae = sizes["mar"], sizes["vae"]
    levels = range(len(vae["ch_mult"]))
    attention = [vae["resolution"] // 2**level in vae["encoder_attn_resolutions"] for level in levels]
    network = HarmonSizes(
        language=Qwen2Config(**sizes["llm"]),
        mar=MarConfiguration(
            latent_channels=mar["vae_embed_dim"] * mar["patch_size"] ** 2,
            width=mar["encoder_embed_dim"],
            encoder_depth=mar["encoder_depth"],
            decoder_depth=mar["decoder_depth"],
            decoder_width=mar["decoder_embed_dim"],
            encoder_heads=mar["encoder_num_heads"],
            decoder_heads=mar["decoder_num_heads"],
            native_side=mar["img_size"] // mar["vae_stride"] // mar["patch_size"],
            buffer=mar["buffer_size"],
            mlp_ratio=mar["mlp_ratio"],
            norm_epsilon=mar["norm_eps"],
            head_depth=mar["diffloss_d"],
            head_width=mar["diffloss_w"],
            classes=mar["class_num"],
        ),
        autoencoder={
            "down_block_types": tuple("AttnDownEncoderBlock2D" if a else "DownEncoderBlock2D" for a in attention),
            "up_block_types": ("UpDecoderBlock2D",) * len(levels),
            "block_out_channels": tuple(vae["ch"] * multiplier for multiplier in vae["ch_mult"]),
            "layers_per_block": vae["num_res_blocks"],
            "latent_channels": vae["embed_dim"],
        },
        latent_scale=sizes["vae_scale"],
        latent_patch=mar["patch_size"],
    )
    drawing = DrawingPlan(rounds=sizes["sample"]["num_iter"], head_steps=int(mar["num_sampling_steps"]))
    return HarmonConfiguration(network, side=sizes["px"][0], drawing=drawing)


def _weights_file(directory: Path) -> Path:
    found = sorted(directory.glob(WEIGHTS)) or [directory / n for n in OTHER_FORMS if (directory / n).is_file()][:1]
    if not found:
        raise PrerequisiteMissing(f"no {WEIGHTS} beside {AUTOENCODER}", field=str(directory), remedy="add harmon_*.pth")
    if len(found) > 1:
        raise CheckpointRefused(
            "several models beside one autoencoder",
            field=str(directory),
            choices=tuple(path.name for path in found),
            remedy="keep the one that is meant",
        )
    return found[0]


def mar_sizes(weights: Mapping[str, Tensor]) -> MarConfiguration:
    """Sizes of the masked-autoregressive half: of a published width its depths, the rest from vectors and counts.

    Raises SizesUnknown naming a tensor without which they cannot be told, CheckpointRefused for an unpublished width.
    """
    shapes = Shapes(weights, WEIGHTS, prefix="mar.")
    width = shapes.length("z_proj.bias", rf"(z_proj_ln|encoder_norm)\.(weight|bias)|encoder_blocks{BLOCK}")
    decoder_width = shapes.length("decoder_norm.weight", rf"decoder_(norm|embed)\.bias|decoder_blocks{BLOCK}")
    head_width = shapes.length("diffloss.net.input_proj.bias", HEAD)
    tokens, buffer = _places(shapes, width, decoder_width)
    counted = max(shapes.count(rf"{half}_blocks\.(\d+)\.") for half in ("encoder", "decoder"))
    head = shapes.count(r"diffloss\.net\.res_blocks\.(\d+)\.")
    depth, head_depth = DEPTHS.get(width, (counted, max(head, 1)))
    halves = "(encoder|decoder)" if width == decoder_width else "encoder"
    inner = shapes.length("encoder_blocks.0.mlp.fc1.bias", rf"{halves}_blocks\.\d+\.mlp\.fc1\.bias")
    channels = (
        shapes.rows("z_proj.weight", width),
        shapes.rows("diffloss.net.input_proj.weight", head_width),
        shapes.rows("diffloss.net.final_layer.linear.bias", 2),  # noise and variance
    )
    return MarConfiguration(
        latent_channels=shapes.most("z_proj.weight", channels),
        width=width,
        encoder_depth=depth,
        decoder_depth=depth,
        decoder_width=decoder_width,
        encoder_heads=_heads(width),
        decoder_heads=_heads(decoder_width),
        native_side=math.isqrt(tokens),
        buffer=buffer,
        mlp_ratio=inner / width,
        head_depth=head_depth,
        head_width=head_width,
        classes=shapes.rows("class_emb.weight", width) or MarConfiguration.classes,
    )


def _places(shapes: Shapes, width: int, decoder_width: int) -> tuple[int, int]:
    """Rows of the position tables: image tokens, which fill a square, and the buffer before them."""
    encoder, decoder, head = (f"{part}_pos_embed_learned" for part in ("encoder", "decoder", "diffusion"))
    both = shapes.most(encoder, [shapes.rows(encoder, width), shapes.rows(decoder, decoder_width)])
    tokens = shapes.rows(head, decoder_width) or 0
    if not 0 < math.isqrt(tokens) ** 2 == tokens < both:
        tokens = both - MarConfiguration.buffer  # the table itself is damaged or absent, which the comparison says
    if tokens <= 0:
        raise SizesUnknown([shapes.prefix + head], field=WEIGHTS)
    return tokens, both - tokens


def _heads(width: int) -> int:
    if width not in HEADS:
        raise CheckpointRefused(f"no published MAR is {width} wide", field=WEIGHTS, choices=tuple(map(str, HEADS)))
    return HEADS[width]
