"""The judge ``local``: a transformers image-text-to-text model in this process, asked greedily, question by question.

One at a time because padding changes answers. Any model that AutoModelForImageTextToText loads and whose processor has
a chat template; the processors of Qwen are loaded without their video half, which needs torchvision.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.benchmark import JudgeTask
from evaluation.judges.devices import pick_device
from evaluation.judges.opening import JudgePlace, check_weights
from evaluation.judges.vlm import STYLES_VERSION, Style, picture_of, reply, style_of, words
from evaluation.judges.weights import load_folder, local_folder
from evaluation.records import JudgeIdentity, Reply
from evaluation.subjects import UNDECODABLE
from reca_core.contracts.errors import BadInput
from reca_core.contracts.hashing import sha256_tree
from reca_core.contracts.judging import JudgeSettings

log = logging.getLogger(__name__)

FIELD = "judge.model"
TASKS_PER_CALL = 8
QWEN_PROCESSORS = {
    "qwen2_vl": "Qwen2VLProcessor",
    "qwen2_5_vl": "Qwen2_5_VLProcessor",
    "qwen3_vl": "Qwen3VLProcessor",
    "qwen3_vl_moe": "Qwen3VLProcessor",
}
"""model_type -> processor class of transformers."""


class LocalVlmJudge:
    """Asks a model in this process."""

    batch_size = TASKS_PER_CALL

    def __init__(self, model: Any, processor: Any, identity: JudgeIdentity, style: Style) -> None:
        self.identity = identity
        self._model = model
        self._processor = processor
        self._style = style

    @classmethod
    def open(cls, place: JudgePlace, settings: JudgeSettings) -> LocalVlmJudge:
        """Load the model.

        Raises: BadInput for a benchmark that is not asked in words, no model, or one of another kind;
            PrerequisiteMissing for a hub id that cannot be had.
        """
        style = style_of(place.benchmark, "local")
        chosen = settings.weights or settings.model
        if not chosen:
            raise BadInput("names no model", field=FIELD, remedy="--judge-model HUB_ID or --judge-weights DIR")
        folder = local_folder(chosen, FIELD)
        sha256 = sha256_tree(folder)
        check_weights(settings, sha256)
        model, processor = load(folder, pick_device(settings.device))
        _set_pixels(processor, style)
        identity = JudgeIdentity(
            name="local",
            model=settings.model or Path(settings.weights).name,
            sha256=sha256,
            settings={"requests_version": str(STYLES_VERSION), "dtype": str(model.dtype).removeprefix("torch.")},
        )
        return cls(model, processor, identity, style)

    def answer(self, tasks: Sequence[JudgeTask]) -> list[Reply]:
        """One reply per task. A picture this model cannot take is no reply, with the reason."""
        return [self._answer(task) for task in tasks]

    def _answer(self, task: JudgeTask) -> Reply:
        import torch

        try:
            message = self._message(task)
            return reply(self._say(message), self._style)
        except torch.OutOfMemoryError:
            return Reply(error="the device's memory does not suffice for this picture")
        except (*UNDECODABLE, ValueError) as error:
            return Reply(error=f"this model cannot look at the picture: {type(error).__name__}: {error}")

    def _message(self, task: JudgeTask) -> dict[str, Any]:
        parts: list[dict[str, Any]] = []
        for part in ordered(task.question.parts, self._style):
            if part == "text":
                parts.append({"type": "text", "text": words(task, self._style)})
            else:
                parts.append({"type": "image", "image": self._style.look(picture_of(part, task), task)})
        return {"role": "user", "content": parts}

    def _say(self, message: dict[str, Any]) -> str:
        import torch

        inputs = self._processor.apply_chat_template(
            [message], tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        ).to(self._model.device)
        with torch.inference_mode():
            tokens = self._model.generate(**inputs, max_new_tokens=self._style.local_max_tokens, do_sample=False)
        fresh = tokens[0, inputs["input_ids"].shape[1] :]
        spoken: str = self._processor.tokenizer.decode(fresh, skip_special_tokens=True)
        return spoken


def ordered(parts: Sequence[str], style: Style) -> list[str]:
    """The parts of a question as a model in this process gets them."""
    if style.local_order == "asked":
        return list(parts)
    return [part for part in parts if part != "text"] + [part for part in parts if part == "text"]


def load(folder: Path, device: str) -> tuple[Any, Any]:
    """Model and processor from a folder in transformers layout; never code from it.

    Raises BadInput where it is no such folder or no such model.
    """
    from transformers import AutoModelForImageTextToText

    model = load_folder(AutoModelForImageTextToText, folder, FIELD, dtype="auto")
    try:
        processor = _processor(folder, model.config.model_type)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{folder} has no processor that can be loaded here: {error}", field=FIELD) from error
    if not getattr(processor, "chat_template", None):
        raise BadInput(f"{folder} has no chat template", field=FIELD)
    model.generation_config.do_sample = False
    return model.to(device), processor


def _processor(folder: Path, model_type: str) -> Any:
    import transformers

    if model_type not in QWEN_PROCESSORS or importlib.util.find_spec("torchvision"):
        return transformers.AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    kind = image_only(getattr(transformers, QWEN_PROCESSORS[model_type]))
    return kind.from_pretrained(folder, local_files_only=True)


def image_only(base: Any) -> Any:
    """The processor class ``base`` without videos: transformers reads from ``__init__`` what has to be loaded."""

    class ImageOnly(base):
        def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
            super().__init__(image_processor, tokenizer, None, chat_template=chat_template)

    return ImageOnly


def _set_pixels(processor: Any, style: Style) -> None:
    """Bounds of the picture's area where upstream sets them and the processor, one of Qwen's, knows such bounds."""
    images = processor.image_processor
    if style.local_pixels and "Qwen" in type(images).__name__:
        images.size = {"shortest_edge": style.local_pixels[0], "longest_edge": style.local_pixels[1]}
