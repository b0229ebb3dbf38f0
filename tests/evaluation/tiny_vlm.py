"""Vision-language models of a few thousand random weights, as whole checkpoints on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN_TOKENS = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{% for p in m.content %}"
    "{% if p.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ p.text }}{% endif %}"
    "{% endfor %}<|im_end|>{% endfor %}<|im_start|>"
)
LLAVA_TEMPLATE = (
    "{% for m in messages %}{% for p in m.content %}"
    "{% if p.type == 'image' %}<image>{% else %}{{ p.text }}{% endif %}{% endfor %}{% endfor %}<|im_start|>"
)
WORDS = ["yes", "no", "rate", "this", "is", "it", "red", "?", "one", "two", "three"]


def tokenizer(extra: list[str], **named: str) -> Any:
    names = [*SPECIAL, *extra, *WORDS]
    inner = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token=SPECIAL[0]))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=SPECIAL[2], pad_token=SPECIAL[0], unk_token=SPECIAL[0], **named
    )
    made.add_special_tokens({"additional_special_tokens": [*SPECIAL, *extra]})
    return made


TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def qwen25(folder: Path) -> Path:
    words = tokenizer(QWEN_TOKENS)
    ids = {name: words.convert_tokens_to_ids(name) for name in QWEN_TOKENS}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    config = transformers.Qwen2_5_VLConfig(
        text_config={**TEXT, "num_key_value_heads": 2, "vocab_size": len(words), "rope_parameters": rope},
        vision_config={"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16},
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    return _saved(folder, transformers.Qwen2_5_VLForConditionalGeneration(config), words, "Qwen2_5_VLProcessor")


def qwen3(folder: Path) -> Path:
    words = tokenizer(QWEN_TOKENS)
    ids = {name: words.convert_tokens_to_ids(name) for name in QWEN_TOKENS}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    config = transformers.Qwen3VLConfig(
        text_config={
            **TEXT,
            "head_dim": 8,
            "num_key_value_heads": 2,
            "vocab_size": len(words),
            "rope_parameters": rope,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
            "deepstack_visual_indexes": [0],
            "num_position_embeddings": 16,
            "patch_size": 14,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    return _saved(folder, transformers.Qwen3VLForConditionalGeneration(config), words, "Qwen3VLProcessor")


def _saved(folder: Path, model: Any, words: Any, kind: str) -> Path:
    from evaluation.judges.local_vlm import image_only

    words.chat_template = QWEN_TEMPLATE
    images = transformers.Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": 56 * 56})
    processor = image_only(getattr(transformers, kind))(images, words, chat_template=QWEN_TEMPLATE)
    return save(folder, model, processor)


def llava(folder: Path) -> Path:
    words = tokenizer(["<image>"], image_token="<image>")
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=28,
            patch_size=14,
        ),
        text_config=transformers.LlamaConfig(**TEXT, vocab_size=len(words)),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    images = transformers.CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = transformers.LlavaProcessor(
        images,
        words,
        patch_size=14,
        vision_feature_select_strategy="default",
        chat_template=LLAVA_TEMPLATE,
        num_additional_image_tokens=1,
    )
    return save(folder, transformers.LlavaForConditionalGeneration(config), processor)


def save(folder: Path, model: Any, processor: Any) -> Path:
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


TINY = {"qwen2.5-vl": qwen25, "qwen3-vl": qwen3, "llava": llava}
