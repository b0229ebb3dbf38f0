"""The published sizes with random weights, one of each family: for measuring, where the weights are not at hand.

Sizes: reference "model_goldens", section 3, "reca_recipe", section 4.2, and the configurations of the language models
that they name. The tokenizers are word lists as long as the real vocabularies; what they say does not matter here.
"""

from __future__ import annotations

from collections.abc import Callable
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


def _filled(words: tuple[str, ...], length: int, make: Callable[[tuple[str, ...]], Any]) -> PreTrainedTokenizerFast:
    """A word tokenizer of exactly ``length`` ids."""
    missing = length - len(make(words))
    tokenizer: PreTrainedTokenizerFast = make((*words, *(f"w{number:06d}" for number in range(missing))))
    return tokenizer


def janus() -> Janus:
    """Janus-Pro-1B."""
    width = 2048
    config = JanusConfig(
        text_config=LlamaConfig(
            vocab_size=102_400,
            hidden_size=width,
            intermediate_size=5632,
            num_hidden_layers=24,
            num_attention_heads=16,
            num_key_value_heads=16,
            max_position_embeddings=16_384,
        ),
        vision_config=JanusVisionConfig(projection_dim=width, num_image_tokens=576, image_size=384, patch_size=16),
        vq_config=JanusVQVAEConfig(projection_dim=width, image_token_embed_dim=width),
        tie_word_embeddings=False,
    )
    return Janus.from_configuration(config, janus_words(tiny_janus.WORDS), tiny_janus.TEMPLATES)


def showo() -> Showo:
    """Show-o at 512 pixels, CLIP variant."""
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
        CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            image_size=336,
            patch_size=14,
        ),
    )
    tokenizer = _filled(
        tiny_showo.WORDS, SHOWO_TEXT, lambda words: word_tokenizer(words, tiny_showo.STRUCTURAL, tiny_showo.ROLES)
    )
    configuration = ShowoConfiguration(sizes, side=512, text_vocabulary=SHOWO_TEXT)
    return Showo.from_configuration(configuration, tokenizer, tiny_showo.TEMPLATES)


def harmon() -> Harmon:
    """Harmon 1.5B."""
    language = Qwen2Config(
        vocab_size=151_936,
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    mar = MarConfiguration(
        latent_channels=16,
        width=1280,
        encoder_depth=20,
        decoder_depth=20,
        decoder_width=1280,
        encoder_heads=16,
        decoder_heads=16,
        native_side=16,
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


def openuni() -> OpenUni:
    """OpenUni B: InternVL3-1B and SANA 0.6B. The autoencoder's sizes are the defaults of diffusers' class."""
    tokenizer = word_tokenizer(tiny_openuni.WORDS, tiny_openuni.STRUCTURAL)
    width = 896
    language = InternVLConfig(
        vision_config={
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": [448, 448],
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": 151_674,
            "hidden_size": width,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
        },
        image_token_id=tokenizer.get_vocab()[IMAGE],
    )
    connector = SiglipVisionConfig(
        hidden_size=width, intermediate_size=3072, num_hidden_layers=6, num_attention_heads=14
    )
    transformer = {
        "num_attention_heads": 36,
        "num_layers": 28,
        "num_cross_attention_heads": 16,
        "cross_attention_head_dim": 72,
        "cross_attention_dim": 1152,
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
    "janus": janus,
    "showo": showo,
    "harmon": harmon,
    "openuni": openuni,
    "bagel": bagel,
}
PUBLISHED: dict[str, Callable[[], UnifiedModel]] = dict(_MAKERS)  # mypy cannot see that adapters follow the protocol
"""Family -> one published size."""
