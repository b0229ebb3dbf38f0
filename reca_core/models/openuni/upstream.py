"""OpenUni as its authors publish it: one ``.pth`` of what was trained, and the downloads that it was made from.

    <any name>.pth                queries, connector, projector, SANA; rarely the frozen parts too
    <InternVL3 directory>         config.json (``internvl_chat``), weights in the original layout, tokenizer files
    <SANA directory>              transformer/, vae/ and scheduler/, as diffusers keeps them
    <DC-AE directory>             the autoencoder that was trained with, where it is another than SANA's own

File names: reference "model_goldens", section 3. The directories are looked for inside that of the ``.pth`` and beside
it, by what they hold; of several, the one that fits is taken. Frozen parts that the ``.pth`` lacks come from there.
Pickles are read with ``weights_only=True``, memory-mapped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor
from transformers import (
    InternVLConfig,
    InternVLVisionConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Tokenizer,
    SiglipVisionConfig,
)

from reca_core.contracts.errors import CheckpointRefused, PrerequisiteMissing
from reca_core.models import directory as common
from reca_core.models.openuni.chat import IMAGE
from reca_core.models.openuni.checkpoint import TEXT_HEAD, WORDS, tied, upstream_name
from reca_core.models.openuni.configuration import NOT_SIZES, DrawingPlan, LearningPlan, OpenUniConfiguration
from reca_core.models.openuni.network import OpenUniSizes
from reca_core.models.pickles import Weights
from reca_core.models.published import (
    SETTINGS,
    Published,
    WeightsFile,
    is_recorded,
    read_file,
    recorded,
    small_files,
    weights_in_directory,
)
from reca_core.models.shapes import Shapes

WEIGHTS = "*.pth"
LANGUAGE_TYPE = "internvl_chat"
HEAD_WIDTH = 64
"""Of the connector: 14 heads for a width of 896, 24 for 1536."""
DEPTHS = {896: 6}
"""Width of OpenUni B's connector -> its layers (reference "native_models"). L's are counted: none are documented."""
QUERIES = 256
"""Of every published model."""
LANGUAGE, TRANSFORMER, AUTOENCODER = "lmm.", "transformer.", "vae."
SANA_PARTS = ("transformer", "vae", "scheduler")
SHUFFLE = 0.5
"""Side of a block of picture tokens that become one, inverted."""
ADDED = "added_tokens.json"
"""Ids of the tokens that InternVL added to Qwen2's."""
PRIVATE = "_"
"""diffusers' configurations say class and version in entries that begin so."""


def is_upstream(directory: Path) -> bool:
    """True where a ``.pth`` lies and no configuration of ours, and for recorded sets."""
    return (any(directory.glob(WEIGHTS)) and not (directory / common.CONFIG).is_file()) or is_recorded(directory)


def find(directory: Path, which: Weights | None = None, chosen: Path | None = None) -> Published:
    """The checkpoint under full upstream names: frozen parts after ``lmm. transformer. vae.``.

    Raises PrerequisiteMissing naming a download that is not there, CheckpointRefused for several that fit or for sizes
    that cannot be told.
    """
    if is_recorded(directory):
        return recorded(directory, recorded_configuration, (), which, chosen)
    weights = chosen or _weights_file(directory)
    main = WeightsFile(weights.name)
    state = read_file(weights, main, which or "model")
    shapes = Shapes(state, WEIGHTS)
    width = _connector_width(shapes)
    language = _part(directory, "InternVL3", _is_language, lambda place: _language_width(place) == width)
    sana = _part(directory, "SANA", _is_sana, lambda place: _sana_fits(place, shapes))
    autoencoder = _separate_autoencoder(directory) or sana / "vae"
    frozen = {LANGUAGE: language, TRANSFORMER: sana / "transformer", AUTOENCODER: autoencoder}
    whole, files = completed(state, frozen)
    small = small_files(directory) | small_files(language, language.name)
    for place in (sana / "transformer", sana / "vae", sana / "scheduler", autoencoder):
        small |= small_files(place, _inside(place, directory)) if place.is_dir() else {}
    if SETTINGS in small:
        where = directory / SETTINGS
        configuration = OpenUniConfiguration.from_json(common.read_json(where), str(where))
    else:
        configuration = _configuration(directory, language, sana, autoencoder, shapes)
    return _settled(Published(configuration, (main, *files), whole, small, language))


def _settled(found: Published) -> Published:
    """Tied as config says, unless the file holds a text head of its own."""
    language = found.configuration.sizes.language
    head, words = upstream_name(TEXT_HEAD), upstream_name(WORDS)
    language.tie_word_embeddings = tied(bool(language.tie_word_embeddings), found.state, head, words)
    return found


def _configuration(
    directory: Path, language: Path, sana: Path, autoencoder: Path, shapes: Shapes
) -> OpenUniConfiguration:
    schedule = common.read_json(sana / "scheduler" / "scheduler_config.json")
    transformer, compression = _diffusers(sana / "transformer"), _diffusers(autoencoder)
    connector = _connector_sizes(shapes)
    queries = shapes.rows("meta_queries", connector.hidden_size) or QUERIES
    words = _language_sizes(language, read_tokenizer(language))
    try:
        sizes = OpenUniSizes(words, connector, queries, transformer, compression)
        configuration = OpenUniConfiguration(
            sizes,
            side=int(transformer["sample_size"]) * sizes.stride,
            learning=LearningPlan(shift=float(schedule.get("shift", LearningPlan().shift))),
            drawing=DrawingPlan(flow_shift=float(schedule.get("flow_shift", DrawingPlan().flow_shift))),
        )
        configuration.check(str(directory))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointRefused(f"does not describe a SANA and its autoencoder ({error!r})", field=str(sana)) from error
    return configuration


def recorded_configuration(sizes: Mapping[str, Any]) -> OpenUniConfiguration:
    """Of a recorded set, whose config.json says every size."""
    language = InternVLConfig(
        vision_config=vision_sizes(sizes["vit"]).to_dict(),
        text_config=Qwen2Config(**sizes["llm"]).to_dict(),
        image_token_id=sizes["image_token_id"],
        downsample_ratio=SHUFFLE,
        tie_word_embeddings=sizes["llm"]["tie_word_embeddings"],
    )
    connector = SiglipVisionConfig(**sizes["connector"], hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6)
    return OpenUniConfiguration(
        OpenUniSizes(language, connector, sizes["num_queries"], sizes["sana"], sizes["vae"], sizes["vit_input_size"]),
        side=sizes["image_size"],
        learning=LearningPlan(sizes["train_scheduler"]["num_train_timesteps"], sizes["train_scheduler"]["shift"]),
        drawing=DrawingPlan(steps=sizes["sample"]["num_steps"], flow_shift=sizes["test_scheduler"]["flow_shift"]),
    )


def completed(trained: Mapping[str, Tensor], frozen: Mapping[str, Path]) -> tuple[dict[str, Tensor], list[WeightsFile]]:
    """With all of each part that ``trained`` holds nothing of, from its own directory; and the files of those."""
    whole, files = dict(trained), []
    for prefix, place in frozen.items():
        if not any(name.startswith(prefix) for name in trained):
            path = weights_in_directory(place)
            files.append(WeightsFile(str(PurePosixPath(_inside(place, place)) / path.name), prefix))
            whole |= read_file(path, files[-1])
    return whole, files


def _inside(place: Path, directory: Path) -> str:
    """Where a part lies in a directory that holds all of them: SANA's parts keep their common folder."""
    return f"{place.parent.name}/{place.name}" if place.name in SANA_PARTS else place.name


def _separate_autoencoder(directory: Path) -> Path | None:
    """A DC-AE download of its own, inside or beside. Raises CheckpointRefused if there are several."""
    for parent in (directory, directory.resolve().parent):
        found = [place for place in _directories(parent) if _is_autoencoder(place)]
        if len(found) > 1:
            raise CheckpointRefused(
                "several autoencoders", field=str(parent), choices=tuple(map(str, found)), remedy="keep the one meant"
            )
        if found:
            return found[0]
    return None


def _is_autoencoder(place: Path) -> bool:
    config = place / common.CONFIG
    return config.is_file() and common.read_json(config).get("_class_name") == "AutoencoderDC"


def read_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """tokenizer.json as it stands, or Qwen2's vocabulary and merges where the download has no such file.

    Raises PrerequisiteMissing without either, CheckpointRefused if added tokens get other ids than the download says.
    """
    if (directory / common.TOKENIZER_FILES[0]).is_file():
        return common.read_tokenizer(directory)
    if not (directory / "vocab.json").is_file():
        raise PrerequisiteMissing("no tokenizer files", field=str(directory), remedy="download the directory again")
    tokenizer: PreTrainedTokenizerFast = Qwen2Tokenizer.from_pretrained(directory)
    stated = common.read_json(directory / ADDED) if (directory / ADDED).is_file() else {}
    moved = [token for token, index in stated.items() if tokenizer.get_vocab().get(token) != index]
    if moved:
        raise CheckpointRefused(f"other ids than stated for {', '.join(moved)}", field=str(directory / ADDED))
    return tokenizer


def _weights_file(directory: Path) -> Path:
    found = sorted(directory.glob(WEIGHTS))
    if len(found) > 1:
        raise CheckpointRefused(
            "several models in one directory",
            field=str(directory),
            choices=tuple(path.name for path in found),
            remedy="keep the one that is meant",
        )
    return found[0]


def _part(directory: Path, title: str, holds: Callable[[Path], bool], fits: Callable[[Path], bool]) -> Path:
    """The one directory inside or beside ``directory`` that holds the part and fits."""
    inside = _directories(directory)
    found = [place for place in inside if holds(place)]
    found = found or [place for place in _directories(directory.resolve().parent) if holds(place)]
    fitting = [place for place in found if fits(place)]
    if not found:
        raise PrerequisiteMissing(
            f"no {title} directory inside it or beside it",
            field=str(directory),
            remedy=f"download the {title} that this OpenUni was made from to one of these places",
        )
    if len(fitting) != 1:
        raise CheckpointRefused(
            f"{len(fitting)} of {len(found)} {title} directories fit the sizes of the weights",
            field=str(directory),
            choices=tuple(str(place) for place in fitting or found),
            remedy=f"keep exactly the {title} that this OpenUni was made from, with its own {common.CONFIG}",
        )
    return fitting[0]


def _directories(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir())


def _is_language(place: Path) -> bool:
    config = place / common.CONFIG
    return config.is_file() and common.read_json(config).get("model_type") == LANGUAGE_TYPE


def _is_sana(place: Path) -> bool:
    return all((place / part / common.CONFIG).is_file() for part in ("transformer", "vae"))


def _language_width(place: Path) -> int:
    words = common.read_json(place / common.CONFIG).get("llm_config")
    width = words.get("hidden_size") if isinstance(words, dict) else None
    return width if isinstance(width, int) else 0


def _sana_fits(place: Path, shapes: Shapes) -> bool:
    """Width, depth and norms of the transformer, so far as the weights hold one, and the caption's channels."""
    settings = _diffusers(place / "transformer")
    numbers = ("caption_channels", "num_attention_heads", "attention_head_dim", "num_layers")
    if not all(isinstance(settings.get(name), int) for name in numbers):
        return False
    told = [shapes.shapes[name][:1] for name in ("projector.weight", "projector.bias") if name in shapes.shapes]
    captions = (settings["caption_channels"],) in told  # by either, so that the comparison can name a damaged other
    depth = shapes.count(rf"{TRANSFORMER}transformer_blocks\.(\d+)\.")
    if not depth:
        return captions
    width = settings["num_attention_heads"] * settings["attention_head_dim"]
    vectors = rf"{TRANSFORMER}(caption_norm\.weight|transformer_blocks\.\d+\.attn2\.to_out\.0\.bias)"
    found = shapes.length(f"{TRANSFORMER}patch_embed.proj.bias", vectors)
    normed = shapes.count(rf"{TRANSFORMER}transformer_blocks\.(\d+)\.attn1\.norm_q\.") > 0
    ours = (depth, found, normed)
    return captions and ours == (settings["num_layers"], width, bool(settings.get("qk_norm")))


def _language_sizes(place: Path, tokenizer: PreTrainedTokenizerFast) -> InternVLConfig:
    settings = common.read_json(place / common.CONFIG)
    try:
        words = settings["llm_config"]
        return InternVLConfig(
            vision_config=vision_sizes(settings["vision_config"]).to_dict(),
            text_config=Qwen2Config(**words).to_dict(),
            image_token_id=tokenizer.get_vocab()[IMAGE],
            downsample_ratio=settings["downsample_ratio"],
            tie_word_embeddings=bool(words.get("tie_word_embeddings", settings.get("tie_word_embeddings", False))),
        )
    except KeyError as error:
        raise CheckpointRefused(f"does not say {error.args[0]}", field=str(place / common.CONFIG)) from error


def vision_sizes(original: Mapping[str, Any]) -> InternVLVisionConfig:
    """transformers' configuration of an InternViT from its original one. Raises KeyError for an absent entry."""
    return InternVLVisionConfig(
        hidden_size=original["hidden_size"],
        intermediate_size=original["intermediate_size"],
        num_hidden_layers=original["num_hidden_layers"],
        num_attention_heads=original["num_attention_heads"],
        num_channels=original.get("num_channels", 3),
        patch_size=(original["patch_size"],) * 2,
        image_size=(original["image_size"],) * 2,
        attention_bias=original["qkv_bias"],
        use_qk_norm=original["qk_normalization"],
        norm_type=original.get("norm_type", "layer_norm"),
        hidden_act=original["hidden_act"],
        layer_norm_eps=original["layer_norm_eps"],
    )


def original_language(language: InternVLConfig) -> dict[str, Any]:
    """InternVL3's original config.json of one of transformers': the inverse of what ``find`` reads."""
    settings: Any = language
    vision = settings.vision_config
    kept = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_channels")
    words = {name: value for name, value in settings.text_config.to_dict().items() if name not in NOT_SIZES}
    return {
        "model_type": LANGUAGE_TYPE,
        "downsample_ratio": settings.downsample_ratio,
        "tie_word_embeddings": bool(settings.tie_word_embeddings),
        "llm_config": words | {"tie_word_embeddings": bool(settings.tie_word_embeddings)},
        "vision_config": {name: getattr(vision, name) for name in kept}
        | {
            "patch_size": vision.patch_size[0],
            "image_size": vision.image_size[0],
            "qkv_bias": vision.attention_bias,
            "qk_normalization": vision.use_qk_norm,
            "norm_type": vision.norm_type,
            "hidden_act": vision.hidden_act,
            "layer_norm_eps": vision.layer_norm_eps,
        },
    }


def _connector_width(shapes: Shapes) -> int:
    inside = r"(layer_norm[12]\.(weight|bias)|self_attn\.\w+_proj\.bias|mlp\.fc2\.bias)"
    return shapes.length("connector.layers.0.layer_norm1.bias", rf"connector\.layers\.\d+\.{inside}")


def _connector_sizes(shapes: Shapes) -> SiglipVisionConfig:
    """Read off the shapes; heads, which they do not tell, and depth, which they tell only of whole files, as published.

    Raises SizesUnknown, and CheckpointRefused for a width that no such heads have.
    """
    width = _connector_width(shapes)
    if width % HEAD_WIDTH:
        raise CheckpointRefused(f"a connector {width} wide has no heads of {HEAD_WIDTH}", field=WEIGHTS)
    return SiglipVisionConfig(
        hidden_size=width,
        intermediate_size=shapes.length("connector.layers.0.mlp.fc1.bias", r"connector\.layers\.\d+\.mlp\.fc1\.bias"),
        num_hidden_layers=DEPTHS.get(width) or shapes.count(r"connector\.layers\.(\d+)\."),
        num_attention_heads=width // HEAD_WIDTH,
    )


def _diffusers(place: Path) -> dict[str, Any]:
    settings = common.read_json(place / common.CONFIG)
    return {name: value for name, value in settings.items() if not name.startswith(PRIVATE)}
