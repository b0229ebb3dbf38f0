"""The run form of every deployment, as a person sees it in Prefect's UI."""

from __future__ import annotations

import json

import pytest
import yaml
from playwright.sync_api import Locator, Page, expect

from deployments.stack_setup import DEPLOYMENTS
from tests.browser.pages import RunForm, runs_of
from tests.end_to_end.test_servers import ENDED, Stack, state_of, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.servers, pytest.mark.timeout(900)]

RUN_SECONDS = 180.0
ENTRIES = yaml.safe_load(DEPLOYMENTS.read_text())["deployments"]
EVERY = [(entry["entrypoint"].rpartition(".")[2].replace("_", "-"), entry["name"]) for entry in ENTRIES]
"""Flow and deployment."""
OWN_TABS = {"Now", "Later"}
"""Prefect's own choice of when to start."""


def shows(control: Locator, value: object) -> bool:
    """Whether a box, a choice or a switch stands at a value."""
    if isinstance(value, bool):
        return control.get_attribute("data-state") == ("checked" if value else "unchecked")
    text = control.inner_text() if control.get_attribute("type") == "button" else control.input_value()
    return text == value if isinstance(value, str) else float(text) == value


@pytest.mark.parametrize(("flow", "name"), EVERY)
def test_every_field_is_there_in_order_with_title_help_and_default_and_nothing_behind_tabs(
    stack: Stack, page: Page, flow: str, name: str
) -> None:
    form = RunForm(page, stack, flow, name)
    assert form.labels() == form.expected_labels()
    assert set(page.get_by_role("tab").all_inner_texts()) <= OWN_TABS
    assert '"const":' not in json.dumps(form.deployment["parameter_openapi_schema"])
    text = page.locator("body").inner_text()
    for fields in form.sections.values():
        for field in fields:
            assert field.help in text, field
            if isinstance(field.default, list):
                assert form.items(field.section, field.name) == [str(item) for item in field.default], field
                continue
            assert shows(form.control(field.section, field.name), field.default), field


def test_a_number_out_of_bounds_is_refused_at_its_field(stack: Stack, page: Page) -> None:
    before, form = len(runs_of(stack, "prepare")), RunForm(page, stack, "prepare")
    form.fill("images", "scenes", "-5")
    form.submit()
    refused = form.control("images", "scenes")
    expect(refused).to_be_focused()
    assert "1" in refused.evaluate("field => field.validationMessage")
    assert page.url.endswith("/run")
    assert len(runs_of(stack, "prepare")) == before


def test_a_text_of_the_wrong_form_is_refused_by_name(stack: Stack, page: Page) -> None:
    before, form = len(runs_of(stack, "evaluate")), RunForm(page, stack, "evaluate")
    form.fill("judge", "date", "tomorrow")
    form.submit()
    expect(page.get_by_text("Validation failed for field 'judge.date'").first).to_be_visible()
    assert len(runs_of(stack, "evaluate")) == before


def test_what_only_the_flow_can_know_to_be_wrong_fails_the_run_with_the_fields_name(stack: Stack, page: Page) -> None:
    form = RunForm(page, stack, "prepare")
    form.fill("images", "source", "./holiday")
    flow_run_id = form.begin()
    wait_for(stack, "worker", lambda: state_of(stack, flow_run_id) in ENDED, RUN_SECONDS)
    page.goto(form.run_page(flow_run_id), wait_until="domcontentloaded")
    expect(page.get_by_text("Failed").first).to_be_visible()
    expect(page.get_by_text("images.source").first).to_be_visible()
