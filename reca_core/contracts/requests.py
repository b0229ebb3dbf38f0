"""What a person can ask for. These classes are at once the Prefect form, ``--config`` files, ``--set`` keys and help.

Units are in the names. ``steps`` are optimizer steps everywhere. No unions: a Literal name plus flat fields, because
the Prefect form draws unions as tabs (docs/decisions). Fields made with ``unhashed`` never change a result.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema

from reca_core.contracts.base import Config, hashed_when_set, unhashed
from reca_core.contracts.records import PreparedData, ResolvedModel
from reca_core.contracts.registry import FAMILIES, check_family
from reca_core.contracts.sharing import Share

FamilyChoice = Annotated[
    str, AfterValidator(check_family), WithJsonSchema({"type": "string", "enum": ["auto", *FAMILIES]})
]

AT_HOME = "home:"
"""Beginning of a caption source that lies below the home, wherever that is: what deployments can say."""


def _no_guidance_below_one(value: float) -> float:
    if 0 < value < 1:
        raise ValueError(f"{value} would push away from the prompt; choices: 0 (as published), 1 (none) or above")
    return value


GuidanceScale = Annotated[float, AfterValidator(_no_guidance_below_one)]


class ModelChoice(Config):
    """Which model to start from."""

    model_config = ConfigDict(title="Model")

    source: str = Field("tiny-janus", min_length=1, title="Model")
    """A bundled name (such as tiny-janus), a directory, a hub id, or a registered version: models:/NAME@ALIAS."""
    revision: str = Field("", title="Hub revision")
    """Commit, tag or branch of a hub id. Empty: main; the commit it stands for is recorded."""
    weights: str = Field("", title="Weights file")
    """Which one, where a directory or repository holds the weights of several models. Empty: there is only one."""
    family: FamilyChoice = Field("auto", title="Family")
    """Model family; auto reads it from the checkpoint's config.json."""


class ImageSource(Config):
    """Which pictures to learn from. Captions in the source are ignored: RecA needs none."""

    model_config = ConfigDict(title="Images")

    source: str = Field("shapeworld", min_length=1, title="Source")
    """shapeworld (rendered scenes), a folder, a .parquet or .arrow file, webdataset .tar files, or a hub id."""
    kind: Literal["auto", "shapeworld", "folder", "datasets", "webdataset"] = Field("auto", title="Kind of source")
    """auto looks at the source; datasets covers hub ids, parquet and arrow."""
    revision: str = Field("", title="Hub revision")
    """Commit of a hub data set. Empty: main; the commit it stands for is recorded."""
    subset: str = Field("", title="Subset")
    """Configuration of a hub data set that has several. Empty: its default."""
    split: str = Field("train", title="Split")
    """Split of a hub or parquet data set."""
    files: str = Field("", title="Files of a hub data set")
    """Pattern such as data/part-0*.tar over the repository's paths, whatever its splits. Empty: those of the split."""
    image_column: str = Field("image", title="Image column")
    """Column that holds the pictures in a hub or parquet data set."""
    limit: int = Field(0, ge=0, title="At most this many pictures")
    """0 takes all."""
    scenes: int = Field(2048, ge=1, le=1_000_000, title="Scenes to render")
    """How many pictures shapeworld renders."""
    scene_size_pixels: int = Field(16, ge=8, le=1024, title="Scene size in pixels")
    """Side of a rendered picture."""
    scene_seed: int = Field(20_000, ge=0, title="Scene seed")
    """First seed of the rendered scenes."""


class PrepareRequest(Config):
    """One preparation, complete: what ``python -m reca_core.launch prepare request.json`` reads."""

    images: ImageSource
    home: str = unhashed()
    """Absolute home directory: receives ``data/<digest>`` and the picture cache."""
    run_directory: str = unhashed()
    """Absolute; receives DONE.json, a PreparedData record, when the preparation is finished."""
    workers: int = unhashed(0, ge=0, le=256, title="Decoding threads")
    """0 is one per core this process may use."""


class LossTerms(Config):
    """Weights of the loss terms. RecA is reconstruction, and image-to-text where a family shares its parameters."""

    model_config = ConfigDict(title="Loss terms")

    reconstruction: float = Field(1.0, ge=0, le=100, title="Reconstruction weight")
    """Regenerate the picture from its own understanding embeddings: the RecA term."""
    image_to_text: float = Field(1.0, ge=0, le=100, title="Image-to-text weight")
    """Replay of question answering about pictures, which keeps understanding in families that share parameters."""
    text_to_image: float = Field(0.0, ge=0, le=100, title="Text-to-image weight")
    """Supervised term with captions; 0 in every published RecA recipe."""
    text: float = Field(1.0, ge=0, le=100, title="Text weight")
    """Replay of questions about captions. The tiny bases need it; published recipes have 0."""
    unconditional: float = hashed_when_set(0.0, ge=0, le=100, title="Unconditional weight")
    """Draw the same pictures from the empty prompt that guidance compares with; published recipes have 0."""


class CaptionSource(Config):
    """Where the captions and questions of the replay terms come from."""

    model_config = ConfigDict(title="Captions")

    source: str = Field("shapeworld", min_length=1, title="Source")
    """shapeworld, a JSON file in LLaVA format (image paths relative to the file), or home:FILE below the home."""
    rich_fraction: float = Field(0.2, ge=0, le=1, title="Fraction of rich captions")
    """How often a rendered scene's caption also names colours, counts and places; the rest names objects only."""
    described_fraction: float = Field(0.25, ge=0, le=1, title="Fraction of descriptions")
    """How often the question about a rendered scene asks for all of it instead of one detail."""
    finding_fraction: float = Field(0.0, ge=0, le=1, title="Fraction of finding questions")
    """How often a question must name an object to be found (its colour, place or relation) where the scene allows."""
    seed: int = Field(500_000, ge=0, title="Seed")
    """First seed of the scenes that captions are made for."""
    leak_filter: Literal["off", "prompts", "templates"] = Field("prompts", title="Leak filter")
    """Which fine-tuning captions of a file are left out. prompts: those that hold a prompt of GenEval or DPG-Bench;
    templates: besides, those in a benchmark's template with its words. How many is reported."""


class TrainingPlan(Config):
    """How to train."""

    model_config = ConfigDict(title="Training")

    stage: Literal["post", "base", "tokenizer", "decoder"] = Field("post", title="Stage")
    """post: RecA or fine-tuning; base: pretraining; tokenizer: the image tokenizer; decoder: only what of it draws."""
    condition: Literal["understanding", "own_tokens"] = Field("understanding", title="Condition")
    """What the generator is shown of the picture. understanding is RecA; own_tokens shows it the very tokens that it
    must write, which can only be copied: the control without a bottleneck, never a training for use."""
    steps: int = Field(150, ge=1, le=10_000_000, title="Optimizer steps")
    """Updates of the weights, whatever the accumulation or the number of devices."""
    images_per_step: int = Field(64, ge=1, le=1_000_000, title="Pictures per optimizer step")
    """Global batch, summed over devices and accumulation."""
    images_per_pass: int = unhashed(0, ge=0, le=1_000_000, title="Pictures per forward pass")
    """Split of a step into accumulated passes per device; 0 is all at once."""
    learning_rate: float = Field(3e-4, gt=0, le=1, title="Peak learning rate")
    """AdamW's rate after warm-up."""
    schedule: Literal["constant", "cosine", "linear"] = Field("constant", title="Schedule after warm-up")
    """cosine and linear end at zero, on the last step unless the schedule is longer than the run."""
    schedule_steps: int = Field(0, ge=0, le=10_000_000, title="Steps of the schedule")
    """Optimizer steps, warm-up included, over which cosine and linear fall to zero; 0 is the run's own steps. Published
    recipes decay over more steps than they take: Show-o over a million, of which it takes 5,000."""
    warmup_steps: int = Field(10, ge=0, title="Warm-up steps")
    """Linear ramp from 0."""
    beta1: float = Field(0.9, ge=0, lt=1, title="AdamW beta 1")
    """Decay of the first moment."""
    beta2: float = Field(0.95, ge=0, lt=1, title="AdamW beta 2")
    """Decay of the second moment."""
    epsilon: float = Field(1e-8, gt=0, le=1, title="AdamW epsilon")
    """Added to the root of the second moment. Published recipes have 1e-8; BAGEL has 1e-15."""
    weight_decay: float = Field(0.0, ge=0, le=1, title="Weight decay")
    """Applied to matrices only, and not to those that a family leaves out (docs/families.md)."""
    gradient_clip: float = Field(1.0, ge=0, title="Gradient norm limit")
    """0 switches clipping off."""
    drop_text: float = Field(0.1, ge=0, le=1, title="Prompt dropout")
    """How often the instruction is replaced by the family's null form, which classifier-free guidance needs."""
    precision: Literal["float32", "bfloat16"] = Field("float32", title="Precision")
    """Autocast type of the forward pass; trained weights and reductions stay float32."""
    understanding_downscale: int = Field(0, ge=0, le=64, title="Smaller understanding picture")
    """How many times smaller the understanding side sees the picture than it is drawn. 0: as the family was published;
    Harmon and Show-o's VQ variant can change it."""
    understanding_picture: Literal["published", "small", "blurred"] = Field("published", title="Understanding picture")
    """small keeps the smaller picture small, blurred blows it up again; only Show-o's VQ variant has both."""
    attention: Literal["dense", "flex"] = unhashed("dense", title="Attention")
    """dense is the reference and runs anywhere; flex leaves out what is hidden, on a GPU, for BAGEL's packed batches.
    Equal up to rounding."""
    upstream_parity: bool = Field(False, title="Upstream parity")
    """Repeat the documented slips of the family's published training (docs/families.md). Off: the correct behaviour."""
    ema_decay: float = Field(0.0, ge=0, lt=1, title="EMA decay")
    """0 switches the moving average off; the exported weights are never the average unless asked for."""
    lora_rank: int = Field(0, ge=0, le=4096, title="LoRA rank")
    """0 trains the weights themselves. Above 0 trains low-rank additions to them (peft), which are added in at the end:
    the result is an ordinary checkpoint."""
    lora_alpha: int = Field(16, ge=1, le=100_000, title="LoRA alpha")
    """Additions are scaled by alpha / rank."""
    lora_modules: list[str] = Field([], title="LoRA modules")
    """Last parts of the names of the linear layers that get additions, such as q_proj. Empty: every linear layer in the
    repeated layers that this stage trains."""
    activation_checkpointing: bool = unhashed(False, title="Recompute activations")
    """Keep only the inputs of the repeated layers and compute the rest again on the way back: much less memory, about a
    third more time, the same gradients."""
    compile: Literal["off", "inductor", "aot_eager"] = unhashed("off", title="Compile the layers")
    """torch.compile of the repeated layers: inductor makes kernels (on a CPU it needs a C++ compiler), aot_eager traces
    without making any, to look for trouble. Losses agree to 5 digits."""
    feature_cache: Literal["auto", "on", "off"] = unhashed("auto", title="Keep frozen features")
    """Compute once what frozen encoders say of a picture, keep it in cache/features, reuse it over epochs and runs.
    auto: where pictures come again and the disk has room; the run's log says why."""
    checkpoint_every_steps: int = unhashed(50, ge=1, title="Steps between checkpoints")
    """What a kill can lose at most."""
    keep_checkpoints: int = unhashed(2, ge=1, title="Checkpoints to keep")
    """The newest ones; older ones are removed, except the best."""
    best_by: Literal["off", "loss", "reconstruction", "image_to_text", "text_to_image", "text", "unconditional"] = (
        unhashed("loss", title="Best checkpoint by")
    )
    """The checkpoint with the lowest mean of it since the last is kept, too; loss sums all terms, off keeps none."""
    checkpoint_in_background: bool = unhashed(True, title="Write checkpoints in the background")
    """The training goes on from the moment the state is copied to the host's memory. Off saves that copy and waits."""
    checkpoint_format: Literal["auto", "whole", "shards"] = unhashed("auto", title="Checkpoint format")
    """whole gathers the state on the first process; shards lets every process write its own part, for models that fit
    no single one; auto takes shards where the model is sharded. Each can be resumed with any number of processes."""
    preview_every_steps: int = unhashed(50, ge=1, title="Steps between previews")
    """How often a fixed set of pictures is reconstructed and a fixed set of prompts drawn."""
    processes: int = unhashed(1, ge=1, le=4096, title="Processes")
    """Ranks on each machine; more than one starts torchrun."""
    nodes: int = unhashed(1, ge=1, le=4096, title="Machines")
    """How many machines train together; each must start the same request with the run directory on a shared disk."""
    rendezvous: str = unhashed("", pattern=r"^([^:\s]+:\d{1,5})?$", title="Meeting point of the machines")
    """HOST:PORT where torchrun's agents meet, a free port of one of the machines. Needed for more than one."""
    node_restarts: int = unhashed(3, ge=0, le=1000, title="Restarts after a lost machine")
    """How often a machine starts its processes again, from the last checkpoint, after another one was lost."""
    sharding: Literal["replicate", "shard", "hybrid"] = unhashed("replicate", title="Sharding")
    """replicate: every process holds the whole model (DDP); shard: each holds a part of it (FSDP2); hybrid: a group of
    processes shares one copy and the groups are replicas of each other."""
    shard_group: int = unhashed(0, ge=0, le=4096, title="Processes per hybrid group")
    """Processes that share one copy under hybrid sharding; 0 is those of one machine. Must divide all processes."""
    on_collapse: Literal["warn", "stop"] = unhashed("warn", title="On collapse")
    """stop ends a run that copies its input or forgets how to answer; right for published models, whose losses move
    little. Rendered scenes are simple enough to be redrawn almost without loss, honestly: there it can only warn."""
    device: Literal["auto", "cpu", "cuda"] = unhashed("auto", title="Device")
    """auto takes a GPU where there is one."""
    preflight: Literal["auto", "always", "off"] = unhashed("auto", title="Estimate before the start")
    """Of memory and disk; what cannot fit is refused. auto leaves out tiny models, and those still to be downloaded."""
    seed: int = Field(0, ge=0, title="Seed")
    """Key of every random draw of the training."""


class FineTuning(Config):
    """Supervised fine-tuning on captions before RecA, in the order that the two-stage paper run found the better one.

    Everything that is not here (precision, processes, seed, ...) is as in the training that follows.
    """

    model_config = ConfigDict(title="Fine-tuning first")

    steps: int = Field(0, ge=0, le=10_000_000, title="Optimizer steps")
    """0: no fine-tuning; RecA starts from the model as it is."""
    captions: str = Field("shapeworld", min_length=1, title="Captions")
    """Pictures with captions to draw: shapeworld, a JSON file in LLaVA format, or home:FILE below the home."""
    text_to_image: float = Field(1.0, ge=0, le=100, title="Text-to-image weight")
    """Draw the picture from its caption."""
    image_to_text: float = Field(0.0, ge=0, le=100, title="Image-to-text weight")
    """Answer questions about pictures of the same source."""
    images_per_step: int = Field(64, ge=1, le=1_000_000, title="Pictures per optimizer step")
    """Global batch, summed over devices and accumulation."""
    learning_rate: float = Field(1e-5, gt=0, le=1, title="Peak learning rate")
    """AdamW's rate after warm-up."""
    warmup_steps: int = Field(0, ge=0, title="Warm-up steps")
    """Linear ramp from 0."""
    schedule: Literal["constant", "cosine", "linear"] = Field("cosine", title="Schedule after warm-up")
    """cosine and linear end at zero on the last step."""


class SamplingSettings(Config):
    """How pictures and replies are drawn."""

    model_config = ConfigDict(title="Sampling")

    guidance_scale: GuidanceScale = Field(0.0, ge=0, le=100, title="Guidance scale")
    """Classifier-free guidance; 1 is none, 0 is what the model was published with (docs/families.md)."""
    image_guidance_scale: GuidanceScale = Field(0.0, ge=0, le=100, title="Image guidance scale")
    """The same for the picture that is edited; 1 is none, 0 is what the model was published with. BAGEL only."""
    renorm: Literal["published", "global", "channel", "text_channel"] = Field("published", title="Renormalisation")
    """How guidance is kept from raising the norm: over the whole picture, per token, or per token before the image
    guidance. BAGEL only."""
    steps: int = Field(0, ge=0, le=10_000, title="Drawing steps")
    """Rounds (Show-o, Harmon) or solver steps (OpenUni, BAGEL); 0 is what the model was published with. Janus draws its
    tokens one by one and has none."""
    temperature: float = Field(1.0, gt=0, le=10, title="Temperature")
    """Of the image tokens."""
    images_per_batch: int = unhashed(64, ge=1, le=4096, title="Pictures per batch")
    """Drawn together; results do not depend on it."""
    max_reply_tokens: int = Field(128, ge=1, le=8192, title="Longest reply in tokens")
    """For descriptions."""
    precision: Literal["float32", "bfloat16"] = hashed_when_set("float32", title="Precision")
    """bfloat16 is autocast, with half the memory for matrices; the image tokenizer stays in float32."""
    device: Literal["auto", "cpu", "cuda"] = unhashed("auto", title="Device")
    """auto takes a GPU where there is one."""


DpgFiles = Literal["grids", "single"]


class EvaluationPlan(Config):
    """What to measure, on how many pictures, and with which judge."""

    model_config = ConfigDict(title="Evaluation")

    benchmarks: list[str] = Field(["geneval.shapeworld"], min_length=1, title="Benchmarks")
    """Benchmark ids: NAME for the published judge, NAME.JUDGE for any other."""
    prompts_per_tag: int = Field(0, ge=0, title="Prompts per tag")
    """0 takes all prompts of the benchmark; fewer is quicker and less certain."""
    pictures_per_prompt: int = Field(4, ge=1, le=100, title="Pictures per prompt")
    """Seeds 0, 1, 2, ... of every prompt."""
    first_seed: int = Field(1000, ge=0, title="First seed")
    """Reporting uses seeds from 1000 on, tuning those below."""
    arithmetic: Literal["corrected", "parity"] = Field("corrected", title="Arithmetic")
    """parity repeats the upstream script, defects included."""
    resamples: int = Field(2000, ge=100, le=100_000, title="Bootstrap resamples")
    """For the 95% intervals, over prompts."""
    preview_prompts: int = Field(8, ge=0, le=64, title="Pictures in the grid")
    """How many fixed prompts are shown side by side."""
    pictures_from: str = Field("", title="Pictures from elsewhere")
    """For evaluate: absolute folder with pictures of one benchmark in its community's layout, judged as they are, as
    many per prompt as there are; no model draws."""
    pictures_missing: Literal["refuse", "unscored"] = Field("refuse", title="Missing pictures")
    """What to do when some of them are missing or unreadable; both name them. refuse starts no judge."""
    dpg_files: DpgFiles = Field("grids", title="DPG files named by their item")
    """grids: four pictures in one, two by two, as upstream; single: one picture."""


class Registration(Config):
    """Under which name the trained model is kept."""

    model_config = ConfigDict(title="Registration")

    name: str = Field("", max_length=200, pattern=r"^[^/:]*$", title="Registered name")
    """Name in the model registry. Empty: reca- and the name of the model that was trained."""
    alias: str = Field("challenger", max_length=200, pattern=r"^([A-Za-z][A-Za-z0-9_-]*)?$", title="Alias")
    """Moved to the new version; empty moves none."""
    weights: Literal["auto", "copy", "reference"] = unhashed("auto", title="Weights in the registry")
    """copy stores them with MLflow; reference keeps their path and hash; auto copies below 1 GiB."""


class VersionChoice(Config):
    """Which registered versions to look at."""

    model_config = ConfigDict(title="Versions")

    name: str = Field("reca-tiny-janus", min_length=1, max_length=200, pattern=r"^[^/:]*$", title="Registered name")
    """Name in the model registry."""
    aliases: list[str] = Field(["champion", "challenger"], title="Aliases")
    """The versions behind these are measured; an alias that points nowhere is reported and left out."""
    numbers: list[Annotated[str, Field(pattern=r"^[1-9]\d*$")]] = Field([], title="Version numbers")
    """These versions are measured too, such as 3."""
    force: bool = unhashed(False, title="Ask the judge again")
    """Judges the same pictures anew where nothing changed, and compares with last time: so a judge that changed under
    its name is found."""


class Cleaning(Config):
    """What to remove that nothing refers to any more."""

    model_config = ConfigDict(title="Cleaning")

    older_than_days: int = Field(30, ge=1, le=3650, title="Days without use")
    """What was used since stays, whatever refers to it or not."""
    dry_run: bool = Field(False, title="Only list")
    """Say what would go and remove nothing."""
    tracking: bool = Field(True, title="Also MLflow's deleted runs")
    """Remove for good what people deleted in MLflow that long ago (mlflow gc); never what a version points to."""


class TrainRequest(Config):
    """One training, complete: what ``python -m reca_core.launch train request.json`` reads."""

    model: ResolvedModel
    data: PreparedData
    losses: LossTerms
    captions: CaptionSource
    captions_sha256: str = ""
    """Of the caption file, where there is one: its content is part of the identity."""
    leaks_file: str = unhashed("")
    """Absolute; JSON of the benchmarks' prompts that fine-tuning captions are held against. Empty: no filter."""
    leaks_sha256: str = ""
    """Of that file's text."""
    feature_directory: str = unhashed("")
    """Absolute ``cache/features`` of the home, for ``training.feature_cache``. Empty: nothing is kept."""
    training: TrainingPlan
    numerics_version: int
    """Raised by whoever changes a result of this family's training; part of the identity."""
    run_directory: str = unhashed()
    """Absolute ``runs/<request_hash>``."""


class SampleRequest(Config):
    """One pass of one model over one prompts file: what ``python -m reca_core.launch sample request.json`` reads."""

    model: ResolvedModel
    task: Literal["draw", "reconstruct", "edit", "describe", "view", "ceiling"]
    """draw: text to image; reconstruct: image to image through the understanding encoder; edit: image and
    instruction to image; describe: image to text;
    view: the pixels the understanding encoder saw; ceiling: the image tokenizer alone, encode and decode."""
    prompts_file: str = unhashed()
    """Absolute path of prompts.jsonl."""
    prompts_sha256: str
    """Hash of that file: the prompts are part of the identity."""
    sampling: SamplingSettings
    numerics_version: int
    output_directory: str = unhashed()
    """Absolute; receives pictures, samples.jsonl and DONE.json."""
    share: Share = unhashed(Share())
    """Which part of it, where several processes share the work."""
