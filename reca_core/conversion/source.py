"""Opening whatever a person calls a checkpoint: our directory, the authors', a run of ours, or bare trained weights.

Bare weights (one file, a DeepSpeed directory, a training checkpoint) hold what was trained; the rest comes from a base.
The moving average of a trained model is taken only when it is asked for (reference "reca_recipe", section 3.1, B1).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from torch import Tensor

from reca_core.contracts.errors import BadInput, CheckpointRefused, PrerequisiteMissing
from reca_core.contracts.registry import FAMILIES
from reca_core.conversion.checkpoint import Checkpoint, Names, from_published, full_state, network_of, remembered
from reca_core.models import directory as common
from reca_core.models.pickles import Weights
from reca_core.models.published import (
    AVERAGE_PREFIX,
    SMALL_SUFFIXES,
    WEIGHTS_SUFFIXES,
    Conversion,
    Published,
    WeightsFile,
    read_file,
)
from reca_core.models.state import SHARD_INDEXES, SINGLE_FILES, compare_keys, read_state, read_tensors
from reca_core.models.zero import is_zero

FINAL, AVERAGE, DONE = "final", "final-average", "DONE.json"
STEP_FACTS, STEP_WEIGHTS, STEP_AVERAGE = "state.json", "weights.safetensors", "average.safetensors"
NOT_COMPANIONS = (common.CONFIG, common.GENERATION, common.WEIGHTS_INDEX)


def open_checkpoint(
    conversion: Conversion, family: str, place: Path, asked: Weights | None, base: Checkpoint | None = None
) -> Checkpoint:
    """The checkpoint at a place, completed from ``base`` where one is given. Its report says what does not fit.

    Raises BadInput for a place that is no checkpoint, PrerequisiteMissing where a part of it is not there,
    CheckpointRefused for damaged files, another family, or a moving average that was not asked for.
    """
    try:
        return _opened(conversion, family, place, asked, base)
    except (StrictDataclassError, ArithmeticError) as error:
        said = " ".join(str(error).split())
        raise CheckpointRefused(
            f"a configuration says what no network has: {said}",
            field=str(place),
            remedy="take its config.json from where the weights come from",
        ) from error


def _opened(
    conversion: Conversion, family: str, place: Path, asked: Weights | None, base: Checkpoint | None
) -> Checkpoint:
    if not place.exists():
        raise BadInput("there is no such file or directory", field="--from", remedy=f"check {place}")
    place = _of_run(place, asked)
    if is_zero(place) or place.is_file():
        return _bare_file(conversion, place, asked, base)
    if (place / STEP_FACTS).is_file() and (place / STEP_WEIGHTS).is_file():
        return _step(conversion, place, asked, base)
    if conversion.is_published(place):
        return _published(conversion, place, asked, base)
    if (place / common.CONFIG).is_file():
        if asked == "ema" and place.name != AVERAGE:
            raise PrerequisiteMissing("holds no moving average", field=str(place), remedy="--weights model")
        return _ours(conversion, family, place, base)
    return _bare_file(conversion, _only_weights(place, asked), asked, base)


def _of_run(place: Path, asked: Weights | None) -> Path:
    """Of a run directory the finished model, or its average if that is asked for."""
    if (place / FINAL).is_dir():
        place = place / (AVERAGE if asked == "ema" else FINAL)
        if not place.is_dir():
            raise PrerequisiteMissing(
                "the run kept no moving average", field=str(place.parent), remedy="--weights model"
            )
    elif place.name == AVERAGE and asked != "ema":
        raise CheckpointRefused(
            "is the moving average of a run, nearly the base model after a short training",
            field=str(place),
            remedy=f"name {place.parent / FINAL}, or ask for it with --weights ema",
        )
    return place


# ---- the authors' layout ---------------------------------------------------------------------------------------


def _published(conversion: Conversion, place: Path, asked: Weights | None, base: Checkpoint | None) -> Checkpoint:
    _refuse_lonely_average(place, asked, base)
    try:
        found = conversion.published(place, asked, None)
    except PrerequisiteMissing:
        if base is None:
            raise
        return _bare_file(conversion, _only_weights(place, asked), asked, base)
    if base is None:
        return from_published(conversion, found)
    return _over(conversion, found.state, found, base)


def _refuse_lonely_average(place: Path, asked: Weights | None, base: Checkpoint | None) -> None:
    """A published base may have no other file than ``ema.safetensors``. Something trained from a base may not."""
    if base is None or asked is not None:
        return
    found = [path.name for path in place.iterdir() if path.suffix in WEIGHTS_SUFFIXES]
    averages = [name for name in found if name.startswith(AVERAGE_PREFIX)]
    if averages and not any(name.startswith("model") for name in found):
        raise CheckpointRefused(
            f"{averages[0]} is a moving average, nearly the base after a short training, and there is no other",
            field=str(place),
            remedy="--weights ema if it is meant",
        )


def _bare_file(conversion: Conversion, file: Path, asked: Weights | None, base: Checkpoint | None) -> Checkpoint:
    """One weights file: over a base if there is one, else beside the other files of its directory."""
    if base is None:
        if conversion.is_published(file.parent):
            return from_published(conversion, conversion.published(file.parent, asked, file))
        raise PrerequisiteMissing(
            "these weights alone are no model: nothing beside them says what it is",
            field=str(file),
            remedy="name the directory of the model that they were trained from with --base",
        )
    if file.name.startswith(AVERAGE_PREFIX) and asked != "ema":
        raise CheckpointRefused("is a moving average", field=str(file), remedy="--weights ema if it is meant")
    which = None if file.name.startswith(AVERAGE_PREFIX) else asked
    state = read_file(file, WeightsFile(file.name), which or "model")
    return _over(conversion, state, None, base)


def _over(conversion: Conversion, state: dict[str, Tensor], found: Published | None, base: Checkpoint) -> Checkpoint:
    """Upstream weights over a base: the base gives what they lack, and the base's files are the pattern."""
    whole = full_state(conversion, base) | state
    files, small = base.origin.files, base.origin.small
    if found is not None:
        files, small = found.files, {**base.origin.small, **found.small}
    files = files or conversion.default_files(base.configuration)
    report = Names(conversion, base.configuration).compare(whole)
    merged = from_published(conversion, Published(base.configuration, files, whole, dict(small)), report)
    origin = replace(merged.origin, absent=base.origin.absent)
    notes = found.notes if found else ()
    return replace(merged, companions=base.companions, origin=origin, notes=notes)


def _only_weights(place: Path, asked: Weights | None) -> Path:
    """The weights of a directory that says nothing else. Raises if there are none, or several that may be meant."""
    zero = [path for path in place.iterdir() if is_zero(path)]
    indexes = [place / name for name in SHARD_INDEXES if (place / name).is_file()]
    singles = [place / name for name in SINGLE_FILES if (place / name).is_file() and asked != "ema"]
    loose = sorted(path for path in place.iterdir() if path.is_file() and path.suffix in WEIGHTS_SUFFIXES)
    averages = [path for path in loose if path.name.startswith(AVERAGE_PREFIX)]
    found = averages if asked == "ema" else singles or indexes or zero or [p for p in loose if p not in averages]
    if len(found) == 1:
        return found[0]
    if not found:
        hint = "; it holds a moving average, for which --weights ema asks" if averages else ""
        raise PrerequisiteMissing(f"holds no weights{hint}", field=str(place), choices=WEIGHTS_SUFFIXES)
    names = tuple(path.name for path in found)
    raise CheckpointRefused("holds several weights", field=str(place), choices=names, remedy="name the file itself")


# ---- our layout ------------------------------------------------------------------------------------------------


def _ours(conversion: Conversion, family: str, place: Path, base: Checkpoint | None) -> Checkpoint:
    _refuse_other_family(family, place)
    configuration = conversion.configuration(place)
    state = read_state(place)
    if base is not None:
        state = {**{name: tensor for name, tensor in base.state.items() if name not in state}, **state}
    conversion.settle(configuration, state)
    network, derivable = network_of(conversion, configuration), conversion.derivable(configuration)
    report = compare_keys(network, state, may_miss=derivable)
    kept = {name: tensor for name, tensor in state.items() if name not in derivable}
    beside = (path for path in place.iterdir() if path.suffix in SMALL_SUFFIXES or path.name == common.CARD)
    names = {path.name: path for path in beside if path.is_file()}
    companions = {name: path.read_bytes() for name, path in sorted(names.items()) if name not in NOT_COMPANIONS}
    return Checkpoint(
        configuration, kept, companions, report, remembered(place), ours=True, idle=_idle(place), notes=_repeated(place)
    )


def _repeated(place: Path) -> tuple[str, ...]:
    """What the card of a trained checkpoint says was repeated of a published training: what leaves here may be that."""
    card, fact = place / common.CARD, f"- {common.PARITY}: {common.REPEATED}"
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines() if card.is_file() else []
    found = [line.removeprefix(fact) for line in lines if line.startswith(fact)]
    return tuple(f"trained with upstream_parity: {slips}" for slips in found)


def _refuse_other_family(family: str, place: Path) -> None:
    kind = common.read_json(place / common.CONFIG).get("model_type")
    if kind not in FAMILIES[family].model_types:
        others = [name for name, entry in FAMILIES.items() if kind in entry.model_types]
        raise CheckpointRefused(
            f"is of model_type {kind!r}" + (f": the family {others[0]}" if others else ", which no family claims"),
            field=str(place / common.CONFIG),
            choices=FAMILIES[family].model_types,
            remedy=f"--family {others[0]}" if others else "name a checkpoint of the family that you asked for",
        )


def _idle(place: Path) -> frozenset[str]:
    """What the run that made a ``final`` says about parameters that no active loss term reached."""
    done = place.parent / DONE
    if not done.is_file():
        return frozenset()
    try:
        facts = json.loads(done.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointRefused(f"is not JSON ({error})", field=str(done)) from error
    return frozenset(facts.get("idle_tensors", ()) if isinstance(facts, dict) else ())


def _step(conversion: Conversion, place: Path, asked: Weights | None, base: Checkpoint | None) -> Checkpoint:
    """A training checkpoint of ours, which holds the trained parameters alone."""
    if base is None:
        raise PrerequisiteMissing(
            "holds the trained parameters alone", field=str(place), remedy="name the model it started from with --base"
        )
    file = place / (STEP_AVERAGE if asked == "ema" else STEP_WEIGHTS)
    if not file.is_file():
        raise PrerequisiteMissing("the run kept no moving average", field=str(place), remedy="--weights model")
    state = {**base.state, **read_tensors(file)}
    network, derivable = network_of(conversion, base.configuration), conversion.derivable(base.configuration)
    report = compare_keys(network, state, may_miss=derivable)
    kept = {name: tensor for name, tensor in state.items() if name not in derivable}
    return replace(base, state=kept, report=report, ours=True, notes=())
