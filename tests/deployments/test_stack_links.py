"""Where `reca up` and `reca status` point: to the comparisons where there are some, else to what makes one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from deployments.stack import Stack
from deployments.stack_links import COMPARE, links
from tasks.tracking_views import ALL_COMPARISONS, VIEW_TAG

VIEW = VIEW_TAG + ALL_COMPARISONS


@contextmanager
def mlflow_that_says(status: int, answer: dict[str, Any], home: Path) -> Iterator[Stack]:
    """A stack whose MLflow is a small server with one answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path.endswith("get-by-name?experiment_name=reca")
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Silent."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield Stack(home=str(home), host="127.0.0.1", prefect_port=4200, mlflow_port=server.server_port)
        server.shutdown()
        thread.join()


def experiment(*tags: str) -> dict[str, Any]:
    return {"experiment": {"experiment_id": "7", "tags": [{"key": key, "value": "x"} for key in tags]}}


def test_where_something_was_compared_the_link_opens_the_list_of_all_comparisons(tmp_path: Path) -> None:
    with mlflow_that_says(200, experiment("other", VIEW), tmp_path) as stack:
        found, first = links(stack)
    assert first == ""
    assert found[COMPARE].startswith(f"{stack.mlflow}/#/experiments/7/runs?")
    assert found[COMPARE].endswith(f"viewStateShareKey={ALL_COMPARISONS}")
    assert list(found) == ["runs", "start a run", COMPARE]


@pytest.mark.parametrize(
    ("status", "answer"),
    [(404, {"error_code": "RESOURCE_DOES_NOT_EXIST"}), (200, experiment()), (200, experiment(f"{VIEW}-old"))],
)
def test_where_nothing_was_compared_it_is_said_what_to_run_first(
    tmp_path: Path, status: int, answer: dict[str, Any]
) -> None:
    with mlflow_that_says(status, answer, tmp_path) as stack:
        found, first = links(stack)
    assert found[COMPARE] == f"{stack.mlflow}/"
    assert f"reca run train-then-evaluate --prefect-url {stack.api} --mlflow-uri {stack.mlflow}" in first
