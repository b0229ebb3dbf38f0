"""Pages and links on a flow run in the Prefect UI.

A server that is away costs the page, never the run: the same facts lie in the home and in MLflow, and the log says that
the page is missing.
"""

from __future__ import annotations

from collections.abc import Callable

from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.context import FlowRunContext

from tasks.progress import SERVER_TROUBLE, run_logger
from tasks.tracking import plain_key


def artifact_key(text: str) -> str:
    """What Prefect takes as a key: lower-case letters, digits and dashes. A key keeps the history of its pages."""
    return plain_key(text).replace("_", "-").strip("-")


def show_page(page: str, key: str, description: str) -> None:
    """A page in Markdown on the flow run of this process; nothing outside of one."""
    _stored(lambda: create_markdown_artifact(page, key=artifact_key(key), description=description), description)


def show_link(address: str, text: str, key: str, description: str) -> None:
    """A link on the flow run of this process; nothing outside of one."""
    _stored(lambda: create_link_artifact(address, text, key=artifact_key(key), description=description), description)


def _stored(create: Callable[[], object], description: str) -> None:
    if FlowRunContext.get() is None:
        return
    try:
        create()
    except SERVER_TROUBLE as error:
        run_logger().warning("not stored in Prefect: %s (%s)", description, error)
