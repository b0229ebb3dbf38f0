"""Named settings: one function per run worth repeating, whose docstring gives source, upstream's units, cost and score.

``reca run train-then-evaluate --recipe NAME`` starts from one; ``--config`` and ``--set`` change it; ``--dry-run``
prints what it would do, without weights or network. Each is also a deployment of the servers (deployments/prefect.yaml,
stack_setup.py). A recipe lists what its run rests on; the rest are the defaults of the settings classes
(reca_core/contracts/requests.py). One module per family; numbers from the published configurations, collected in
docs/families.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

from deployments.recipes import bagel, demo, harmon, janus, openuni, showo
from deployments.recipes.common import Settings
from deployments.settings import unknown

RECIPES: dict[str, Callable[[], Settings]] = {
    "demo": demo.demo,
    "janus-1.3b": janus.janus_1_3b,
    "janus-pro-1b": janus.janus_pro_1b,
    "janus-pro-7b": janus.janus_pro_7b,
    "showo-512-clip": showo.showo_512_clip,
    "showo-256-clip": showo.showo_256_clip,
    "showo-vq-256": showo.showo_vq_256,
    "showo-vq-blur8": showo.showo_vq_blur8,
    "harmon-0.5b": harmon.harmon_0_5b,
    "harmon-1.5b": harmon.harmon_1_5b,
    "harmon-1.5b-plus": harmon.harmon_1_5b_plus,
    "openuni-b": openuni.openuni_b,
    "openuni-l": openuni.openuni_l,
    "bagel": bagel.bagel,
    "tiny-study": demo.tiny_study,
}
"""Name -> function."""
FLOWS_OF: Mapping[str, str] = {"tiny-study": "study"}
"""Recipe -> its flow, where that is another than ``DEFAULT_FLOW``."""
DEFAULT_FLOW = "train-then-evaluate"


def find(name: str) -> Settings:
    """The settings of a recipe. Raises BadInput with the closest name."""
    if name not in RECIPES:
        raise unknown("recipe", name, list(RECIPES))
    return RECIPES[name]()


def flow_of(name: str) -> str:
    """The flow that a recipe is meant for. Raises BadInput with the closest name."""
    find(name)
    return FLOWS_OF.get(name, DEFAULT_FLOW)


def card(name: str) -> str:
    """What a recipe's docstring says."""
    return inspect.getdoc(RECIPES[name]) or ""
