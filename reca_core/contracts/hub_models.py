"""Published checkpoints on the Hugging Face hub: which repositories each consists of, at which commit, and where.

Most families are published as several downloads that belong together (reference "model_goldens", section 3;
"reca_recipe", 4.3). A name here is what ``model.source`` takes: a repository, or one file of a repository that holds
several models. Every download has a place below one directory, which the family's loader reads.

Commits were read from public code that names them, not from the hub itself, which could not be reached where this was
written. A repository without one is pinned on its first download: the commit is remembered below the home and used from
then on (tasks/hub_models.py).
"""

from __future__ import annotations

from dataclasses import dataclass

SETTINGS = ("*.json", "*.txt", "*.model", "*.jinja")
"""Configurations and tokenizers."""
SAFE, PICKLED = "*.safetensors", "*.bin"


@dataclass(frozen=True)
class Download:
    """One repository of a published model.

    Args:
        repository: OWNER/NAME.
        files: patterns of the files that are needed.
        place: folder below the model's directory that receives them; empty: the directory itself.
        revision: commit; empty: pinned on the first download.
    """

    repository: str
    files: tuple[str, ...]
    place: str = ""
    revision: str = ""


@dataclass(frozen=True)
class HubModel:
    """A published model: its family, and all downloads, the one that names it first."""

    family: str
    downloads: tuple[Download, ...]


PHI = Download("microsoft/phi-1_5", SETTINGS, "phi-1_5", "675aa382d814580b22651a30acb1a585d7c25963")
MAGVIT = Download("showlab/magvitv2", ("*.json", PICKLED), "magvitv2", "5c3fa78f8b3523347c5cd1a4c97f3c4e96f33d5d")
CLIP = Download(
    "openai/clip-vit-large-patch14-336",
    ("config.json", "preprocessor_config.json", "pytorch_model.bin"),
    "clip-vit-large-patch14-336",
    "ce19dc912ca5cd21c8a653c79e251e808ccabcd1",
)
QWEN_SMALL = Download("Qwen/Qwen2.5-0.5B-Instruct", SETTINGS, "", "7ae557604adf67be50417f59c2c2f167def9a775")
QWEN_LARGE = Download("Qwen/Qwen2.5-1.5B-Instruct", SETTINGS, "", "989aa7980e4cf806f80c7fef2b1adb7bc71aa306")
KL16 = Download("wusize/harmon", ("kl16.ckpt",))
INTERNVL_SMALL = Download(
    "OpenGVLab/InternVL3-1B", (*SETTINGS, SAFE), "InternVL3-1B", "4415a3b810e636d11dfa86b0e9ba40bb00535aa8"
)
INTERNVL_LARGE = Download(
    "OpenGVLab/InternVL3-2B", (*SETTINGS, SAFE), "InternVL3-2B", "899155015275a9b7338c7f4677e19c784e0e5a21"
)
SANA_FILES = ("transformer/*", "vae/config.json", "scheduler/*")
"""Not the autoencoder's weights: OpenUni was trained with another (DC_AE)."""
SANA_SMALL = Download(
    "Efficient-Large-Model/Sana_600M_512px_diffusers",
    SANA_FILES,
    "Sana_600M_512px_diffusers",
    "83d7a190bfd1fd070570a793d2dab5c7a3231b9d",
)
SANA_LARGE = Download(
    "Efficient-Large-Model/Sana_1600M_512px_diffusers",
    SANA_FILES,
    "Sana_1600M_512px_diffusers",
    "e58e81ec2dc4faf305122872313884df3afeffa8",
)
SANA_LARGE_1024 = Download(
    "Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers",
    SANA_FILES,
    "SANA1.5_1.6B_1024px_diffusers",
    "caa51e5ea874be07d3a9c7c2d0fd800570b18440",
)
DC_AE = Download(
    "mit-han-lab/dc-ae-f32c32-sana-1.1-diffusers",
    ("config.json", SAFE),
    "dc-ae-f32c32-sana-1.1-diffusers",
    "6f7b3f3b289a439a11ef4fb1034989fd4b9a4766",
)
BAGEL = "ByteDance-Seed/BAGEL-7B-MoT"
BAGEL_COMMIT = "5019f57d168e5816e8f3f701b17cc816bb7cf24b"
BAGEL_REST = Download(BAGEL, (*SETTINGS, "ae.safetensors"), "", BAGEL_COMMIT)


def _janus(repository: str, revision: str = "", weights: str = PICKLED) -> HubModel:
    return HubModel("janus", (Download(repository, (*SETTINGS, weights), "", revision),))


def _showo(repository: str, clip: bool) -> HubModel:
    own = Download(repository, ("*.json", PICKLED, SAFE))
    return HubModel("showo", (own, MAGVIT, PHI, *((CLIP,) if clip else ())))


def _harmon(repository: str, file: str, language: Download) -> HubModel:
    return HubModel("harmon", (Download(repository, (file,)), KL16, language))


def _openuni(repository: str, file: str, language: Download, sana: Download) -> HubModel:
    return HubModel("openuni", (Download(repository, (file,)), language, sana, DC_AE))


def _openuni_files(size: str, language: Download, sana: Download) -> dict[str, HubModel]:
    files = [f"openuni_{size}_hf_{data}.pth" for data in ("text2image23m", "blip3o60k")]
    return {f"wusize/openuni/{file}": _openuni("wusize/openuni", file, language, sana) for file in files}


HUB_MODELS: dict[str, HubModel] = {
    "deepseek-ai/Janus-1.3B": _janus("deepseek-ai/Janus-1.3B"),
    "deepseek-ai/Janus-Pro-1B": _janus("deepseek-ai/Janus-Pro-1B", "960ab33191f61342a4c60ae74d8dc356a39fafcb"),
    "deepseek-ai/Janus-Pro-7B": _janus("deepseek-ai/Janus-Pro-7B", "5c3eb3fb2a3b61094328465ba61fcd4272090d67"),
    "deepseek-community/Janus-Pro-1B": _janus("deepseek-community/Janus-Pro-1B", weights=SAFE),
    "deepseek-community/Janus-Pro-7B": _janus("deepseek-community/Janus-Pro-7B", weights=SAFE),
    "showlab/show-o": _showo("showlab/show-o", clip=False),
    "showlab/show-o-512x512": _showo("showlab/show-o-512x512", clip=False),
    "showlab/show-o-w-clip-vit": _showo("showlab/show-o-w-clip-vit", clip=True),
    "showlab/show-o-w-clip-vit-512x512": _showo("showlab/show-o-w-clip-vit-512x512", clip=True),
    "sanaka87/Show-o-RecA": _showo("sanaka87/Show-o-RecA", clip=True),
    "sanaka87/Show-o-512x512-RecA": _showo("sanaka87/Show-o-512x512-RecA", clip=True),
    "wusize/harmon/harmon_0.5b.pth": _harmon("wusize/harmon", "harmon_0.5b.pth", QWEN_SMALL),
    "wusize/harmon/harmon_1.5b.pth": _harmon("wusize/harmon", "harmon_1.5b.pth", QWEN_LARGE),
    "wusize/harmon/harmon_1.5b-o.pth": _harmon("wusize/harmon", "harmon_1.5b-o.pth", QWEN_LARGE),
    "wusize/Harmon-0_5B": _harmon("wusize/Harmon-0_5B", SAFE, QWEN_SMALL),
    "wusize/Harmon-1_5B": _harmon("wusize/Harmon-1_5B", SAFE, QWEN_LARGE),
    "sanaka87/Harmon-0.5B-RecA": _harmon("sanaka87/Harmon-0.5B-RecA", "*.pth", QWEN_SMALL),
    "sanaka87/Harmon-1.5B-RecA": _harmon("sanaka87/Harmon-1.5B-RecA", "*.pth", QWEN_LARGE),
    "sanaka87/Harmon-1.5B-RecA-plus": _harmon("sanaka87/Harmon-1.5B-RecA-plus", "*.pth", QWEN_LARGE),
    **_openuni_files("b_internvl3_1b_sana_0_6b_512", INTERNVL_SMALL, SANA_SMALL),
    **_openuni_files("l_internvl3_2b_sana_1_6b_512", INTERNVL_LARGE, SANA_LARGE),
    **_openuni_files("l_internvl3_2b_sana_1_6b_1024", INTERNVL_LARGE, SANA_LARGE_1024),
    "sanaka87/OpenUni-1-0.6B-RecA": _openuni("sanaka87/OpenUni-1-0.6B-RecA", "*.pth", INTERNVL_SMALL, SANA_SMALL),
    "sanaka87/OpenUni-RecA": _openuni("sanaka87/OpenUni-RecA", "*.pth", INTERNVL_LARGE, SANA_LARGE),
    BAGEL: HubModel("bagel", (Download(BAGEL, (*SETTINGS, "ema.safetensors", "ae.safetensors"), "", BAGEL_COMMIT),)),
    "sanaka87/BAGEL-RecA": HubModel(
        "bagel", (Download("sanaka87/BAGEL-RecA", ("model_bf16.safetensors",)), BAGEL_REST)
    ),
}
"""``model.source`` -> what it consists of."""


def models_of_repository(repository: str) -> tuple[str, ...]:
    """The names of a repository that holds several models; empty for any other."""
    return tuple(name for name in HUB_MODELS if name.startswith(f"{repository}/"))


OF_PUBLISHED_SIZE: dict[str, tuple[str, ...]] = {
    "janus-1.3b": ("deepseek-ai/Janus-1.3B",),
    "janus-pro-1b": ("deepseek-ai/Janus-Pro-1B", "deepseek-community/Janus-Pro-1B"),
    "janus-pro-7b": ("deepseek-ai/Janus-Pro-7B", "deepseek-community/Janus-Pro-7B"),
    "showo-256-clip": ("showlab/show-o-w-clip-vit", "sanaka87/Show-o-RecA"),
    "showo-512-clip": ("showlab/show-o-w-clip-vit-512x512", "sanaka87/Show-o-512x512-RecA"),
    "showo-256-vq": ("showlab/show-o",),
    "showo-512-vq": ("showlab/show-o-512x512",),
    "harmon-0.5b": ("wusize/harmon/harmon_0.5b.pth", "wusize/Harmon-0_5B", "sanaka87/Harmon-0.5B-RecA"),
    "harmon-1.5b": (
        "wusize/harmon/harmon_1.5b.pth",
        "wusize/harmon/harmon_1.5b-o.pth",
        "wusize/Harmon-1_5B",
        "sanaka87/Harmon-1.5B-RecA",
        "sanaka87/Harmon-1.5B-RecA-plus",
    ),
    "openuni-b": (
        *_openuni_files("b_internvl3_1b_sana_0_6b_512", INTERNVL_SMALL, SANA_SMALL),
        "sanaka87/OpenUni-1-0.6B-RecA",
    ),
    "openuni-l": (
        *_openuni_files("l_internvl3_2b_sana_1_6b_512", INTERNVL_LARGE, SANA_LARGE),
        "sanaka87/OpenUni-RecA",
    ),
    "bagel-7b-mot": (BAGEL, "sanaka87/BAGEL-RecA"),
}
"""Size -> names of the models whose sizes reca_core/models/published_sizes.py knows without their files."""


def published_size(name: str) -> str:
    """The size as which a model of the hub can be estimated before it is here; empty for others."""
    return next((size for size, names in OF_PUBLISHED_SIZE.items() if name in names), "")
