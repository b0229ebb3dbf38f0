"""The door to MLflow, part five: lineage, told where people look for it and in both directions.

A registered version's page says data -> training -> checkpoint -> scores -> schedule, with the link of each; the page
of the registered model says the same of the version behind the alias that was moved last. The other way round, the
training run and the base model's page name the version that came of them. All of it is made from tags and metrics that
are there already, so it may be written again at any time, and is after every judging, promotion, refusal and rollback.
What somebody else wrote on a page stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from reca_core.contracts.records import VersionRef
from tasks.report_scores import number
from tasks.tracking import DESCRIPTION_TAG, client, experiment_id, store_address, without_credentials
from tasks.tracking_models import ABSENT, VERSIONS_TAG, find_version, model_id_of

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Metric
    from mlflow.entities.model_registry import ModelVersion

REGISTERED_TAG = "registered_version"
"""On the training run."""
DESCENDANTS_TAG = "post_trained_into"
"""On the base model: the versions that were trained from it."""
MEASURED_TAG = "measured."
"""On a version, in front of a benchmark's id (tasks/version_notes.py)."""
OURS = ("**Data**", "`")
"""How a description of this module begins."""
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
        text = _describe(version, model)
        client().set_logged_model_tags(model_id, {DESCRIPTION_TAG: text})


def describe_decision(name: str, alias: str, versions: Iterable[str]) -> None:
    """Write it anew once something was decided: on the pages of these versions, by number, and where the alias is now.

    Versions that were registered elsewhere are described as far as anything is known of them.
    """
    for decided in versions:
        version = find_version(f"models:/{name}/{decided}")
        _describe(version, _model_of(version))
    registered = client().get_registered_model(name)
    if alias in registered.aliases and _may_write(registered.description):
        version = find_version(f"models:/{name}@{alias}")
        text = f"`{alias}` is version {version.version}.\n\n{lineage(version, _model_of(version))}"
        client().update_registered_model(name, text)


def _describe(version: ModelVersion, model: LoggedModel | None) -> str:
    text = lineage(version, model)
    if _may_write(version.description):
        client().update_model_version(version.name, version.version, text)
    return text


def _may_write(description: str | None) -> bool:
    return not description or description.startswith(OURS)


def _model_of(version: ModelVersion) -> LoggedModel | None:
    """The LoggedModel behind a version; None where its weights were registered without one, or it is gone."""
    from mlflow.exceptions import MlflowException

    try:
        return client().get_logged_model(model_id_of(version))
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        return None


def lineage(version: ModelVersion, model: LoggedModel | None) -> str:
    """The whole story of a version as Markdown."""
    measured = _scores((model.metrics if model else None) or [])
    parts = {
        "Data": _data(version.tags),
        "Training": _training(version) if version.tags.get("request_hash") else "not by this pipeline",
        "Checkpoint": _checkpoint(version),
        "Scores": measured or _measured(version.tags) or "not measured yet",
        "Schedule": _schedule(version),
    }
    return "\n\n".join(f"**{name}**\n\n{text}" for name, text in parts.items())


def _data(tags: dict[str, str]) -> str:
    if not tags.get("data_digest"):
        return "not known"
    return f"digest `{tags['data_digest']}`; its manifest lies in `data/` below the home"


def _training(version: ModelVersion) -> str:
    tags = version.tags
    run = _linked("training run", f"experiments/{experiment_id()}/runs/{version.run_id}")
    flow = f"; [flow run]({tags['prefect_url']})" if tags.get("prefect_url") else ""
    base = f"from `{_plain(tags.get('base_model', ''))}` (SHA-256 `{tags.get('base_sha256', '')}`)"
    return f"{base}, request `{tags.get('request_hash', '')}`, commit `{tags.get('git_commit', '')}`; {run}{flow}"


def _checkpoint(version: ModelVersion) -> str:
    tags = version.tags
    if not tags.get("checkpoint_sha256"):
        return f"as it was registered: `{_plain(version.source or '')}`"
    step = f"step {tags['step']}, " if "step" in tags else ""
    return f"{step}SHA-256 `{tags['checkpoint_sha256']}`, at `{_plain(tags.get('checkpoint_path', ''))}`"


def _scores(metrics: list[Metric]) -> str:
    newest = {metric.key: metric for metric in sorted(metrics, key=lambda metric: metric.timestamp)}
    lines = [f"- {line}" for key in headlines(newest) for line in _score(newest, key)]
    return "\n".join(lines)


def _measured(tags: dict[str, str]) -> str:
    """Of a version whose LoggedModel knows nothing: what its own tags say was measured."""
    found = {key.removeprefix(MEASURED_TAG): text for key, text in tags.items() if key.startswith(MEASURED_TAG)}
    return "\n".join(f"- `{_plain(name)}` {_plain(found[name])}" for name in sorted(found))


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
