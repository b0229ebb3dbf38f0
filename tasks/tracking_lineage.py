"""The door to MLflow, part five: lineage, told where people look for it and in both directions.

A registered version's page says data -> training -> checkpoint -> scores -> schedule, with the link of each. The other
way round, the training run and the base model's page name the version that came of them. All of it is made from tags
and metrics that are there already, so it may be written again at any time, and is after every judging.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from reca_core.contracts.records import VersionRef
from tasks.report_scores import number
from tasks.tracking import DESCRIPTION_TAG, client, experiment_id, store_address, without_credentials

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Metric
    from mlflow.entities.model_registry import ModelVersion

VERSIONS_TAG = "mlflow.modelVersions"
"""MLflow's own: which versions a LoggedModel is behind."""
REGISTERED_TAG = "registered_version"
"""On the training run."""
DESCENDANTS_TAG = "post_trained_into"
"""On the base model: the versions that were trained from it."""
DETAILS = ("/low", "/high", "/n_scored", "/n_expected")
DIGITS = 3


def link_forward(version: VersionRef, training_run_id: str, base_model_id: str) -> None:
    """From the training run and the base model to the version that came of them."""
    label = f"{version.name}/{version.version}"
    client().set_tag(training_run_id, REGISTERED_TAG, label)
    known = client().get_logged_model(base_model_id).tags.get(DESCENDANTS_TAG, "")
    names = dict.fromkeys([*known.split(", "), label] if known else [label])
    client().set_logged_model_tags(base_model_id, {DESCENDANTS_TAG: ", ".join(names)})


def describe_lineage(model_id: str) -> None:
    """Write the lineage on the pages of a model's versions and of the model itself; a model without one is left."""
    model = client().get_logged_model(model_id)
    for link in json.loads(model.tags.get(VERSIONS_TAG, "[]")):
        version = client().get_model_version(link["name"], str(link["version"]))
        text = lineage(version, model)
        client().update_model_version(version.name, version.version, text)
        client().set_logged_model_tags(model_id, {DESCRIPTION_TAG: text})


def lineage(version: ModelVersion, model: LoggedModel) -> str:
    """The whole story of a version as Markdown."""
    parts = {
        "Data": _data(version.tags),
        "Training": _training(version),
        "Checkpoint": _checkpoint(version.tags),
        "Scores": _scores(model.metrics or []),
        "Schedule": _schedule(version),
    }
    return "\n\n".join(f"**{name}**\n\n{text}" for name, text in parts.items())


def _data(tags: dict[str, str]) -> str:
    return f"digest `{tags.get('data_digest', 'unknown')}`; its manifest lies in `data/` below the home"


def _training(version: ModelVersion) -> str:
    tags = version.tags
    run = _linked("training run", f"experiments/{experiment_id()}/runs/{version.run_id}")
    flow = f"; [flow run]({tags['prefect_url']})" if tags.get("prefect_url") else ""
    base = f"from `{_plain(tags.get('base_model', ''))}` (SHA-256 `{tags.get('base_sha256', '')}`)"
    return f"{base}, request `{tags.get('request_hash', '')}`, commit `{tags.get('git_commit', '')}`; {run}{flow}"


def _checkpoint(tags: dict[str, str]) -> str:
    step = f"step {tags['step']}, " if "step" in tags else ""
    return f"{step}SHA-256 `{tags.get('checkpoint_sha256', '')}`, at `{_plain(tags.get('checkpoint_path', ''))}`"


def _scores(metrics: list[Metric]) -> str:
    newest = {metric.key: metric for metric in sorted(metrics, key=lambda metric: metric.timestamp)}
    lines = [f"- {line}" for key in headlines(newest) for line in _score(newest, key)]
    return "\n".join(lines) or "not measured yet"


def headlines(metrics: dict[str, Metric]) -> list[str]:
    """The first row of every benchmark: ``overall`` where there is one."""
    found: dict[str, str] = {}
    for key in sorted(metrics):
        benchmark, _, row = key.partition("/")
        if row and not key.endswith(DETAILS) and (benchmark not in found or row == "overall"):
            found[benchmark] = key
    return list(found.values())


def _score(metrics: dict[str, Metric], key: str) -> Iterator[str]:
    metric = metrics[key]
    ends = [metrics.get(key + end) for end in ("/low", "/high")]
    interval = "".join(
        f" ({number(low.value, DIGITS)} to {number(high.value, DIGITS)})" for low, high in [ends] if low and high
    )
    run = _linked("run", f"experiments/{experiment_id()}/runs/{metric.run_id}")
    yield f"`{key}` {number(metric.value, DIGITS)}{interval}; {run}"


def _schedule(version: ModelVersion) -> str:
    aliases = ", ".join(f"`{alias}`" for alias in version.aliases or []) or "none"
    decision = f" Last decision: {_plain(version.tags['decision'])}." if version.tags.get("decision") else ""
    return f"aliases: {aliases}. The deployment re-evaluate/reca measures the versions behind its aliases.{decision}"


def _linked(words: str, page: str) -> str:
    address = without_credentials(store_address())
    return f"[{words}]({address.rstrip('/')}/#/{page})" if address.startswith("http") else f"{words} `{page}`"


def _plain(text: str) -> str:
    """A name from outside inside backticks: it can end them only by having one."""
    return " ".join(text.replace("`", "'").split())
