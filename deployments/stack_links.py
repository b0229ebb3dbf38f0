"""The three links of ``reca up`` and ``reca status``: the runs, where to start one, and where they are compared.

The last one opens MLflow on the list of all comparisons (tasks/tracking_views.py), as soon as there is one.
"""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from deployments.stack import Stack
from deployments.stack_health import ANSWER_SECONDS
from deployments.terminal import Terminal
from tasks.tracking import EXPERIMENT
from tasks.tracking_views import ALL_COMPARISONS, VIEW_TAG, view_address

COMPARE = "compare"


def links(stack: Stack) -> tuple[dict[str, str], str]:
    """Name -> address, and what to do first where nothing was compared yet; empty where something was.

    Raises what reading the stack's password raises.
    """
    compare = comparisons(stack)
    found = {
        "runs": f"{stack.prefect_ui}/",
        "start a run": f"{stack.prefect_ui}/v2/deployments",
        COMPARE: compare or f"{stack.mlflow}/",
    }
    return found, "" if compare else f"nothing to compare yet; first: reca run train-then-evaluate{to_stack(stack)}"


def tell_links(found: Mapping[str, str], first: str, terminal: Terminal) -> None:
    """One line each, and below them what to do first."""
    for name, link in found.items():
        terminal.line(f"{name:<12} {link}")
    if first:
        terminal.note(first)


def to_stack(stack: Stack) -> str:
    """The options that send a run of the terminal to this stack."""
    login = f" --auth {stack.auth}" if stack.auth else ""
    return f" --prefect-url {stack.api} --mlflow-uri {stack.mlflow}{login}"


def comparisons(stack: Stack) -> str:
    """Address of the list of all comparisons; empty where there is none, or MLflow does not say."""
    question = f"{stack.mlflow}/api/2.0/mlflow/experiments/get-by-name"
    try:
        reply = httpx.get(
            question,
            params={"experiment_name": EXPERIMENT},
            timeout=ANSWER_SECONDS,
            trust_env=False,
            auth=stack.login(),
        )
        reply.raise_for_status()
    except httpx.HTTPError:
        return ""
    experiment = reply.json()["experiment"]
    saved = {tag["key"] for tag in experiment.get("tags", [])}
    there = VIEW_TAG + ALL_COMPARISONS in saved
    return view_address(stack.mlflow, experiment["experiment_id"]) if there else ""
