"""The run form of every deployment, as a person sees it in Prefect's UI."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page, expect

from tests.browser.pages import RunForm, runs_of
from tests.end_to_end.test_servers import ENDED, Stack, state_of, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.servers, pytest.mark.timeout(900)]

RUN_SECONDS = 180.0
FLOWS = ("prepare", "post-train", "train-then-evaluate", "evaluate", "re-evaluate")
OWN_TABS = {"Now", "Later"}
"""Prefect's own choice of when to start."""


@pytest.mark.parametrize("flow", FLOWS)
def test_every_field_is_there_in_order_with_title_help_and_default(stack: Stack, page: Page, flow: str) -> None:
    form = RunForm(page, stack, flow)
    assert form.labels() == form.expected_labels()
    text = page.locator("body").inner_text()
    for fields in form.sections.values():
        for field in fields:
            assert field.help in text, field
            if isinstance(field.default, list):
                assert all(page.locator("textarea").filter(has_text=item).count() for item in field.default), field
                continue
            control = form.control(field.section, field.name)
            shown = control.inner_text() if control.get_attribute("type") == "button" else control.input_value()
            same = shown == field.default if isinstance(field.default, str) else float(shown) == field.default
            assert same, (field, shown)


@pytest.mark.parametrize("flow", FLOWS)
def test_no_part_of_a_form_is_behind_a_tab_or_a_constant_to_edit(stack: Stack, page: Page, flow: str) -> None:
    RunForm(page, stack, flow)
    assert set(page.get_by_role("tab").all_inner_texts()) <= OWN_TABS
    assert '"const":' not in json.dumps(stack.deployment(flow)["parameter_openapi_schema"])


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
