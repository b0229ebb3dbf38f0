"""The door to MLflow, part two: one LoggedModel per checkpoint, one registered version per request.

MLflow's registry has no uniqueness: six processes that register one checkpoint make six versions (measured). So a
version carries its request hash from its first moment, registering looks for it first, processes on one home take
turns, and where two machines were too quick for that, every version but the first is taken back by whoever made it.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from reca_core.contracts.errors import BadInput, CheckpointRefused, PrerequisiteMissing
from reca_core.contracts.files import write_json
from reca_core.contracts.hashing import sha256_tree
from reca_core.contracts.records import ResolvedModel, VersionRef
from tasks.home import current_home
from tasks.tracking import client, experiment_id, quoted

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

COPY_LIMIT_BYTES = 1 << 30
"""``weights: auto`` copies smaller checkpoints into the registry."""
VERSIONS_TAG = "mlflow.modelVersions"
"""MLflow's own: which versions a LoggedModel is behind."""
POINTER_FILE = "checkpoint.json"
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
VERSION_ADDRESS = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


def logged_model(model: ResolvedModel, run_id: str, tags: Mapping[str, str], *, copy: bool) -> str:
    """The id of the LoggedModel of these weights: where metrics of the model gather. Made if there is none.

    Args:
        copy: store the weights; otherwise only where they lie and what they hash to.
    """
    with FileLock(_lock_file(f"model-{model.sha256}")):
        for found in _logged_models(model.sha256):
            if found.status == "READY":
                return str(found.model_id)
            client().finalize_logged_model(found.model_id, "FAILED")
        return _make_logged_model(model, run_id, tags, copy=copy)


def weights_tags(model: ResolvedModel) -> dict[str, str]:
    """Which weights a LoggedModel or a version stands for."""
    return {"family": model.family, "checkpoint_sha256": model.sha256, "checkpoint_path": model.path}


def _logged_models(checkpoint_sha256: str) -> list[LoggedModel]:
    condition = f"tags.checkpoint_sha256 = {quoted(checkpoint_sha256)}"
    found = client().search_logged_models([experiment_id()], condition, order_by=[{"field_name": "creation_timestamp"}])
    return [model for model in found if model.status != "FAILED"]


def _make_logged_model(model: ResolvedModel, run_id: str, tags: Mapping[str, str], *, copy: bool) -> str:
    weights = weights_tags(model)
    made = client().create_logged_model(
        experiment_id(), safe_name(model.name), run_id, tags={**tags, **weights}, model_type="reca"
    )
    if copy:
        client().log_model_artifacts(made.model_id, model.path)
    else:
        with tempfile.TemporaryDirectory() as folder:
            write_json(Path(folder) / POINTER_FILE, weights)
            client().log_model_artifacts(made.model_id, folder)
    client().finalize_logged_model(made.model_id, "READY")
    return str(made.model_id)


def copies(directory: Path, weights: str) -> bool:
    """Whether ``weights: auto|copy|reference`` means copying this checkpoint."""
    size = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
    return weights == "copy" or (weights == "auto" and size < COPY_LIMIT_BYTES)


def link_models(run_id: str, reads: str = "", makes: str = "", step: int = 0) -> None:
    """Say which model a run started from and which one it made: lineage both ways on MLflow's pages."""
    from mlflow.entities import LoggedModelInput, LoggedModelOutput

    known = client().get_run(run_id)
    read = [item.model_id for item in known.inputs.model_inputs or []] if known.inputs else []
    made = [item.model_id for item in known.outputs.model_outputs or []] if known.outputs else []
    if reads and reads not in read:
        client().log_inputs(run_id, models=[LoggedModelInput(reads)])
    if makes and makes not in made:
        client().log_outputs(run_id, [LoggedModelOutput(makes, step)])


def register(
    name: str, model: ResolvedModel, run_id: str, tags: Mapping[str, str], *, copy: bool
) -> tuple[VersionRef, bool]:
    """The one version of ``name`` for ``tags["request_hash"]``, and whether it was there already."""
    tags = {**tags, **weights_tags(model)}
    with FileLock(_lock_file(f"register-{name}")):
        found = _versions(name, tags["request_hash"])
        if found:
            _link_from_model(model_id_of(found[0]), found[0])  # it may have been made by a run that was killed here
            return reference(found[0]), True
        model_id = logged_model(model, run_id, tags, copy=copy)
        made = _create_version(name, model_id, run_id, tags)
    first = _versions(name, tags["request_hash"])[0]
    if str(first.version) != str(made.version):
        client().delete_model_version(name, made.version)
        return reference(first), True
    _link_from_model(model_id, made)
    return reference(made), False


def _create_version(name: str, model_id: str, run_id: str, tags: Mapping[str, str]) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    try:
        client().create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return client().create_model_version(name, f"models:/{model_id}", run_id, tags=dict(tags), model_id=model_id)


def _versions(name: str, request_hash: str) -> list[ModelVersion]:
    condition = f"name = {quoted(name)} and tags.request_hash = {quoted(request_hash)}"
    return sorted(client().search_model_versions(condition), key=lambda version: int(version.version))


def _link_from_model(model_id: str, version: ModelVersion) -> None:
    """What MLflow's own registering writes, so that the model's page names its versions."""
    known = json.loads(client().get_logged_model(model_id).tags.get(VERSIONS_TAG, "[]"))
    if not any((link["name"], str(link["version"])) == (version.name, str(version.version)) for link in known):
        links = [*known, {"name": version.name, "version": str(version.version)}]
        client().set_logged_model_tags(model_id, {VERSIONS_TAG: json.dumps(links)})


def reference(version: ModelVersion) -> VersionRef:
    """A version as our records name it."""
    return VersionRef(
        name=version.name, version=str(version.version), model_id=model_id_of(version), run_id=version.run_id or ""
    )


def model_id_of(version: ModelVersion) -> str:
    """The LoggedModel behind a version, as its source names it; the SQL store leaves ``model_id`` empty."""
    return str(version.model_id or str(version.source).removeprefix("models:/"))


def set_alias(version: VersionRef, alias: str) -> None:
    """Point an alias at a version. Always the last step: whoever follows the alias finds everything there."""
    client().set_registered_model_alias(version.name, alias, version.version)


def move_alias_forward(version: VersionRef, alias: str) -> None:
    """Point an alias at a version unless it is at a newer one: an old request that is repeated moves nothing back."""
    aliases = client().get_registered_model(version.name).aliases
    if int(aliases.get(alias, 0)) <= int(version.version):
        set_alias(version, alias)


def tag_version(version: VersionRef, tags: Mapping[str, str]) -> None:
    """Tags on a version; later ones win."""
    for key, value in tags.items():
        client().set_model_version_tag(version.name, version.version, key, value)


def version_tags(version: VersionRef) -> dict[str, str]:
    """The tags of a version as they are now."""
    return dict(client().get_model_version(version.name, version.version).tags)


def untag_version(version: VersionRef, key: str) -> None:
    """Take a tag off a version, if it has it."""
    if key in version_tags(version):
        client().delete_model_version_tag(version.name, version.version, key)


def find_version(address: str) -> ModelVersion:
    """The version behind ``models:/NAME@ALIAS`` or ``models:/NAME/3``.

    Raises BadInput for another form, PrerequisiteMissing for a name, alias or version that does not exist.
    """
    from mlflow.exceptions import MlflowException

    match = VERSION_ADDRESS.fullmatch(address)
    if match is None:
        raise BadInput(
            f"{address!r} names no version", field="model.source", remedy="models:/NAME@ALIAS, models:/NAME/3"
        )
    try:
        if match["alias"]:
            return client().get_model_version_by_alias(match["name"], match["alias"])
        return client().get_model_version(match["name"], match["version"])
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        raise PrerequisiteMissing(
            f"{address} is not registered", field="model.source", choices=known_addresses(match["name"])
        ) from error


def version_at(address: str) -> VersionRef:
    """As ``find_version``, as a record."""
    return reference(find_version(address))


def known_addresses(name: str) -> list[str]:
    """What could have been meant: aliases and newest version of a name, or all names."""
    named = [model for model in client().search_registered_models() if model.name == name]
    if not named:
        return [f"models:/{model.name}" for model in client().search_registered_models()]
    aliases = [f"models:/{name}@{alias}" for alias in named[0].aliases]
    return aliases + [f"models:/{name}/{version.version}" for version in named[0].latest_versions or []]


def resolve_version(address: str) -> ResolvedModel:
    """The model behind ``models:/NAME@ALIAS`` or ``models:/NAME/3``, its weights on this disk and verified.

    Raises CheckpointRefused where no copy of the weights has the hash that was registered.
    """
    version = find_version(address)
    expected = version.tags.get("checkpoint_sha256", "")
    path = _weights(version, expected)
    return ResolvedModel(
        name=f"{version.name}/{version.version}",
        family=version.tags.get("family", ""),
        path=str(path),
        sha256=expected or sha256_tree(path),
        source=address,
    )


def _weights(version: ModelVersion, expected: str) -> Path:
    """The first intact copy: where training left it, then MLflow's own, downloaded if it lies elsewhere."""
    trained = Path(version.tags.get("checkpoint_path", ""))
    if expected and trained.is_absolute() and trained.is_dir() and sha256_tree(trained) == expected:
        return trained
    stored = _download(version)
    if (stored / POINTER_FILE).exists() or (expected and sha256_tree(stored) != expected):
        raise CheckpointRefused(
            f"neither {trained} nor the registry's own copy holds weights with SHA-256 {expected}",
            field=f"models:/{version.name}/{version.version}",
            remedy="bring the directory back, or train again and register with registration.weights=copy",
        )
    return stored


def _download(version: ModelVersion) -> Path:
    """MLflow's copy of a version as a local directory: in place where the store is on this disk, else fetched once."""
    import mlflow.artifacts

    address = client().get_model_version_download_uri(version.name, version.version)
    if address.startswith("file:"):
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=address))
    target = current_home().cache / "models" / safe_name(model_id_of(version))
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(_lock_file(f"download-{target.name}")):
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=target.parent) as folder:
                fetched = mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=folder)
                Path(fetched).rename(target)
    return target


def _lock_file(name: str) -> Path:
    folder = current_home().mlflow / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / (safe_name(name) + ".lock")


def safe_name(text: str) -> str:
    """``text`` as a file or model name. MLflow refuses a dot in the name of a LoggedModel: Janus-1.3B has one."""
    return re.sub(r"[^\w-]+", "-", text)
