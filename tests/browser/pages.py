"""The pages of Prefect's and MLflow's UIs, by what a person reads on them: labels and roles, never class names."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Locator, Page, TimeoutError, expect

from tests.end_to_end.test_servers import Stack

CHROMIUM = "/usr/bin/chromium"
SLOW_MILLISECONDS = 120_000
PATIENCE = 3
ADD = "Add item"
OPTIONAL = " (Optional)"
"""Prefect marks every field that has a default so."""


@dataclass(frozen=True)
class Field:
    """What the deployment's schema says of one field."""

    section: str
    name: str
    title: str
    help: str
    default: Any


def fields_of(deployment: dict[str, Any]) -> dict[str, list[Field]]:
    """Title of each box -> its fields, in the order of the schema."""
    schema = deployment["parameter_openapi_schema"]
    found = {}
    for section, parameter in sorted(schema["properties"].items(), key=lambda item: item[1]["position"]):
        owner = schema["definitions"][parameter["$ref"].rpartition("/")[2]]
        chosen = deployment["parameters"].get(section, {})
        found[owner["title"]] = [
            Field(section, name, field["title"], field["description"], chosen.get(name, parameter["default"][name]))
            for name, field in owner["properties"].items()
        ]
    return found


class RunForm:
    """The page on which a run of a deployment is asked for."""

    def __init__(self, page: Page, stack: Stack, flow: str, name: str = "reca") -> None:
        self.page, self.stack, self.flow = page, stack, flow
        self.deployment: dict[str, Any] = stack.prefect("GET", f"/deployments/name/{flow}/{name}")
        self.sections = fields_of(self.deployment)
        address = f"http://127.0.0.1:{stack.prefect_port}/v2/deployments/deployment/{self.deployment['id']}/run"
        page.goto(address, wait_until="domcontentloaded")
        page.get_by_text("Enforce Parameter Schema").wait_for()
        drawn = f"() => document.querySelectorAll('label').length > {len(self.expected_labels())}"
        page.wait_for_function(drawn)

    def labels(self) -> list[str]:
        """Labels of the parameters from top to bottom, without Prefect's own above and below them."""
        texts = [text.removesuffix(OPTIONAL) for text in self.page.locator("label").all_inner_texts() if text]
        return texts[texts.index("Run Name") + 1 : texts.index("Enforce Parameter Schema")]

    def expected_labels(self) -> list[str]:
        return [
            label for title, fields in self.sections.items() for label in (title, *(field.title for field in fields))
        ]

    def label(self, section: str, name: str) -> Locator:
        """What stands above a field."""
        place = 1  # after "Run Name"
        for fields in self.sections.values():
            place += 1
            for field in fields:
                if (field.section, field.name) == (section, name):
                    label = self.page.locator("label").nth(place)
                    assert label.inner_text() == field.title + OPTIONAL
                    return label
                place += 1
        raise AssertionError(f"the form has no {section}.{name}")

    def control(self, section: str, name: str) -> Locator:
        """The box to type into, or the button of a choice."""
        return self.page.locator(f'[id="{self.label(section, name).get_attribute("for")}"]')

    def items(self, section: str, name: str) -> list[str]:
        """What a list holds: the text boxes below its label, or what stands behind the button of a choice."""
        button = self.control(section, name)
        if button.count():
            lines = [line for line in button.locator("xpath=ancestor::fieldset[1]").inner_text().splitlines() if line]
            return lines[lines.index(button.inner_text()) + 1 :]
        below = self.label(section, name).locator(f"xpath=ancestor::*[.//button[.='{ADD}']][1]")
        return [box.input_value() for box in below.locator("textarea, input[type=number]").all()]

    def fill(self, section: str, name: str, value: str) -> None:
        self.control(section, name).fill(value)

    def submit(self) -> None:
        self.page.get_by_role("button", name="Submit").click()

    def begin(self) -> str:
        """Submit what is right, again as a person would where the server was too busy; returns the id of the run."""
        known = set(runs_of(self.stack, self.flow))
        for _ in range(PATIENCE):
            self.submit()
            with suppress(TimeoutError):
                self.page.wait_for_url("**tab=Runs**", timeout=SLOW_MILLISECONDS / PATIENCE)
                break
        (new,) = set(runs_of(self.stack, self.flow)) - known
        return new

    def run_page(self, flow_run_id: str) -> str:
        """Address of a run's page."""
        return f"http://127.0.0.1:{self.stack.prefect_port}/v2/runs/flow-run/{flow_run_id}"


def runs_of(stack: Stack, flow: str) -> list[str]:
    """Ids of the runs of a deployment that a person asked for."""
    condition = {"deployments": {"id": {"any_": [stack.deployment(flow)["id"]]}}}
    runs = stack.prefect("POST", "/flow_runs/filter", condition)
    return [run["id"] for run in runs if not run["auto_scheduled"]]


def rows_of(page: Page) -> list[str]:
    """The lines of the runs table of MLflow."""
    expect(page.get_by_role("row").nth(1)).to_be_visible(timeout=SLOW_MILLISECONDS)
    return [text.replace("\n", " ") for text in page.get_by_role("row").all_inner_texts()]
