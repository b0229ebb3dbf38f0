"""The published sizes with random weights: for measuring, where the weights are not at hand.

Sizes: reference "model_goldens", section 3, "reca_recipe", section 4.2, and the configurations of the language models
that they name. The tokenizers are word lists; what they say does not matter here. Not published anywhere that could be
read is the inner width of OpenUni L's connector: it is assumed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from transformers import (
    CLIPVisionConfig,
    InternVLConfig,
    JanusConfig,
    JanusVisionConfig,
    JanusVQVAEConfig,
    LlamaConfig,
    PhiConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

from reca_core.models.bagel import smallest as tiny_bagel
from reca_core.models.bagel.adapter import Bagel
from reca_core.models.bagel.configuration import BagelConfiguration
from reca_core.models.bagel.network import BagelSizes
from reca_core.models.harmon import smallest as tiny_harmon
from reca_core.models.harmon.adapter import Harmon
from reca_core.models.harmon.configuration import HarmonConfiguration
from reca_core.models.harmon.mar import MarConfiguration
from reca_core.models.harmon.network import HarmonSizes
from reca_core.models.janus import smallest as tiny_janus
from reca_core.models.janus.adapter import Janus
from reca_core.models.janus.word_tokenizer import word_tokenizer as janus_words
from reca_core.models.openuni import smallest as tiny_openuni
from reca_core.models.openuni.adapter import OpenUni
from reca_core.models.openuni.chat import IMAGE
from reca_core.models.openuni.configuration import OpenUniConfiguration
from reca_core.models.openuni.network import OpenUniSizes
from reca_core.models.showo import smallest as tiny_showo
from reca_core.models.showo.adapter import Showo
from reca_core.models.showo.configuration import ShowoConfiguration
from reca_core.models.showo.magvit import MagvitConfiguration
from reca_core.models.showo.network import ShowoSizes
from reca_core.models.unified import UnifiedModel
from reca_core.models.word_tokenizer import word_tokenizer

MILLION = 1e6
SHOWO_TEXT, SHOWO_ALL = 50295, 58498
QWEN_0_5B: dict[str, Any] = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
}
QWEN_1_5B: dict[str, Any] = {
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
}
CONNECTOR_LARGE = 6144
"""Assumed: four times the width."""


def _filled(words: tuple[str, ...], length: int, make: Callable[[tuple[str, ...]], Any]) -> PreTrainedTokenizerFast:
    """A word tokenizer of exactly ``length`` ids."""
    missing = length - len(make(words))
    tokenizer: PreTrainedTokenizerFast = make((*words, *(f"w{number:06d}" for number in range(missing))))
    return tokenizer


def janus(width: int = 2048, inner: int = 5632, layers: int = 24, heads: int = 16) -> Janus:
    """Janus-1.3B and Janus-Pro-1B, which are of one size; the numbers of Pro-7B are DeepSeek-LLM-7B's."""
    config = JanusConfig(
        text_config=LlamaConfig(
            vocab_size=102_400,
            hidden_size=width,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=16_384,
        ),
        vision_config=JanusVisionConfig(projection_dim=width, num_image_tokens=576, image_size=384, patch_size=16),
        vq_config=JanusVQVAEConfig(projection_dim=width, image_token_embed_dim=width),
        tie_word_embeddings=False,
    )
    return Janus.from_configuration(config, janus_words(tiny_janus.WORDS), tiny_janus.TEMPLATES)


def showo(side: int = 512, clip: bool = True) -> Showo:
    """Show-o at 512 or 256 pixels, with CLIP or looking at its own image codes."""
    encoder = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
    )
    sizes = ShowoSizes(
        PhiConfig(
            vocab_size=SHOWO_ALL,
            hidden_size=2048,
            intermediate_size=8192,
            num_hidden_layers=24,
            num_attention_heads=32,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
            qk_layernorm=True,
            tie_word_embeddings=False,
        ),
        MagvitConfiguration(128, (1, 2, 2, 4, 4), (4, 3, 4, 3, 4), (1, 1, 2, 2, 4), (4, 4, 3, 4, 3), 13),
        encoder if clip else None,
    )
    tokenizer = _filled(
        tiny_showo.WORDS, SHOWO_TEXT, lambda words: word_tokenizer(words, tiny_showo.STRUCTURAL, tiny_showo.ROLES)
    )
    configuration = ShowoConfiguration(sizes, side=side, text_vocabulary=SHOWO_TEXT)
    return Showo.from_configuration(configuration, tokenizer, tiny_showo.TEMPLATES)


def harmon(large: bool = True) -> Harmon:
    """Harmon 1.5B (Qwen2.5-1.5B, MAR-H) or 0.5B (Qwen2.5-0.5B, MAR-B)."""
    language = Qwen2Config(vocab_size=151_936, tie_word_embeddings=True, **(QWEN_1_5B if large else QWEN_0_5B))
    width, depth, heads = (1280, 20, 16) if large else (768, 12, 12)
    mar = MarConfiguration(
        latent_channels=16,
        width=width,
        encoder_depth=depth,
        decoder_depth=depth,
        decoder_width=width,
        encoder_heads=heads,
        decoder_heads=heads,
        native_side=16,
        head_depth=12 if large else 6,
        head_width=1536 if large else 1024,
    )
    autoencoder = {
        "down_block_types": ("DownEncoderBlock2D",) * 4 + ("AttnDownEncoderBlock2D",),
        "up_block_types": ("UpDecoderBlock2D",) * 5,
        "block_out_channels": (128, 128, 256, 256, 512),
        "layers_per_block": 2,
        "latent_channels": 16,
    }
    configuration = HarmonConfiguration(HarmonSizes(language, mar, autoencoder), side=512)
    tokenizer = word_tokenizer(tiny_harmon.WORDS, tiny_harmon.STRUCTURAL)
    return Harmon.from_configuration(configuration, tokenizer, tiny_harmon.TEMPLATES)


def openuni(large: bool = False) -> OpenUni:
    """OpenUni B (InternVL3-1B, SANA 0.6B) or L (InternVL3-2B, SANA 1.6B), at 512 pixels.

    The sizes of SANA 1.6B and of the autoencoder are the defaults of diffusers' classes.
    """
    tokenizer = word_tokenizer(tiny_openuni.WORDS, tiny_openuni.STRUCTURAL)
    text = QWEN_1_5B if large else QWEN_0_5B
    width = text["hidden_size"]
    language = InternVLConfig(
        vision_config={
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": [448, 448],
        },
        text_config={"model_type": "qwen2", "vocab_size": 151_674, **text},
        image_token_id=tokenizer.get_vocab()[IMAGE],
    )
    connector = SiglipVisionConfig(
        hidden_size=width,
        intermediate_size=CONNECTOR_LARGE if large else 3072,
        num_hidden_layers=6,
        num_attention_heads=width // 64,
    )
    heads, layers, cross_heads, cross_width = (70, 20, 20, 112) if large else (36, 28, 16, 72)
    transformer = {
        "num_attention_heads": heads,
        "num_layers": layers,
        "num_cross_attention_heads": cross_heads,
        "cross_attention_head_dim": cross_width,
        "cross_attention_dim": cross_heads * cross_width,
        "sample_size": 16,
        "caption_channels": 2304,
        "in_channels": 32,
    }
    autoencoder = {
        "latent_channels": 32,
        "encoder_block_out_channels": [128, 256, 512, 512, 1024, 1024],
        "decoder_block_out_channels": [128, 256, 512, 512, 1024, 1024],
        "scaling_factor": 0.41407,
    }
    sizes = OpenUniSizes(language, connector, 256, transformer, autoencoder)
    return OpenUni.from_configuration(OpenUniConfiguration(sizes, side=512), tokenizer, tiny_openuni.TEMPLATES)


def bagel() -> Bagel:
    """BAGEL-7B-MoT."""
    sizes = BagelSizes(
        language=Qwen2Config(
            vocab_size=152_064,
            hidden_size=3584,
            intermediate_size=18_944,
            num_hidden_layers=28,
            num_attention_heads=28,
            num_key_value_heads=4,
            tie_word_embeddings=False,
            rope_parameters={"rope_type": "default", "rope_theta": MILLION},
        ),
        vision=SiglipVisionConfig(
            hidden_size=1152,
            intermediate_size=4304,
            num_hidden_layers=26,
            num_attention_heads=16,
            image_size=980,
            patch_size=14,
        ),
        autoencoder={
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "block_out_channels": (128, 256, 512, 512),
            "layers_per_block": 2,
            "latent_channels": 16,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
            "scaling_factor": 0.3611,
            "shift_factor": 0.1159,
        },
        latent_channels=16,
        vae_downsampling=8,
        latent_patch=2,
        latent_per_side=64,
        vit_per_side=70,
    )
    tokenizer = word_tokenizer(tiny_bagel.WORDS, tiny_bagel.STRUCTURAL)
    return Bagel.from_configuration(BagelConfiguration(sizes), tokenizer, tiny_bagel.TEMPLATES)


_MAKERS: dict[str, Callable[[], Any]] = {
    "janus-1.3b": janus,
    "janus-pro-1b": janus,
    "janus-pro-7b": partial(janus, width=4096, inner=11_008, layers=30, heads=32),
    "showo-256-clip": partial(showo, side=256),
    "showo-512-clip": showo,
    "showo-256-vq": partial(showo, side=256, clip=False),
    "showo-512-vq": partial(showo, clip=False),
    "harmon-0.5b": partial(harmon, large=False),
    "harmon-1.5b": harmon,
    "openuni-b": openuni,
    "openuni-l": partial(openuni, large=True),
    "bagel-7b-mot": bagel,
}
PUBLISHED: dict[str, Callable[[], UnifiedModel]] = dict(_MAKERS)  # mypy cannot see that adapters follow the protocol
"""Size -> the model; which published checkpoints are of a size: ``contracts.hub_models.OF_PUBLISHED_SIZE``."""


def family_of(size: str) -> str:
    """Registry key of a size's family."""
    return size.partition("-")[0]
