"""What a run leaves to look at: its artifacts in Prefect, the comparison in MLflow, the model's page, the report."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import FinishedRun, Screenshots
from tests.browser.pages import SLOW_MILLISECONDS, rows_of
from tests.end_to_end.stacks import status
from tests.end_to_end.test_servers import Stack, tracked

pytestmark = [pytest.mark.browser, pytest.mark.servers, pytest.mark.timeout(900)]

BENCHMARK = "geneval.shapeworld"
FEWEST_GRID_ROWS = 4
"""Of the picture grid; more come into view by scrolling."""


def open_artifact(page: Page, finished: FinishedRun, key: str) -> None:
    """From the page of the run by its tab of artifacts and the page of the key, which lists every run's."""
    page.goto(finished.address, wait_until="domcontentloaded")
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_role("link", name=key).first.click()
    page.wait_for_url(f"**/artifacts/key/{key}")
    page.locator('a[href*="/artifacts/artifact/"]').first.click()
    page.wait_for_url("**/artifacts/artifact/*")


def follow(page: Page, finished: FinishedRun, link: str) -> None:
    """Open the comparison's artifact and go where a link in it leads."""
    open_artifact(page, finished, "comparison")
    address = page.get_by_role("link", name=link).first.get_attribute("href")
    assert address is not None
    page.goto(address, wait_until="domcontentloaded")


def test_the_run_can_be_followed_to_its_end(page: Page, finished: FinishedRun, screenshots: Screenshots) -> None:
    page.goto(finished.address, wait_until="domcontentloaded")
    expect(page.get_by_text("Completed").first).to_be_visible()
    page.get_by_role("tab", name="Artifacts").click()
    for key in ("comparison", "mlflow"):
        expect(page.get_by_text(key, exact=True).first).to_be_visible()
    page.wait_for_timeout(3000 if screenshots.folder else 0)  # the graph of tasks is drawn late
    screenshots.take(page, "prefect-run")


def test_the_comparison_is_a_table_with_its_links(page: Page, finished: FinishedRun, screenshots: Screenshots) -> None:
    open_artifact(page, finished, "comparison")
    table = page.get_by_role("table").first
    expect(table).to_contain_text("difference")
    expect(table).to_contain_text("overall")
    for name in ("table", "charts", "pictures"):
        expect(page.get_by_role("link", name=f"{BENCHMARK} {name}")).to_be_visible()
    screenshots.take(page, "prefect-comparison")


def test_the_table_says_which_is_better_and_by_how_much_without_scrolling(
    page: Page, finished: FinishedRun, screenshots: Screenshots
) -> None:
    follow(page, finished, f"{BENCHMARK} table")
    expect(page.get_by_text("2 matching runs").first).to_be_visible()
    for heading in ("verdict", "score", "difference"):
        expect(page.get_by_role("columnheader", name=heading).first).to_be_in_viewport(ratio=1)
    rows = " ".join(rows_of(page))
    assert "base" in rows
    assert any(word in rows for word in ("better", "worse", "unclear"))
    expect(page.get_by_text("tiny-janus geneval").first).to_be_visible()
    screenshots.take(page, "mlflow-table")


def test_the_link_of_reca_status_opens_the_list_of_all_comparisons(
    page: Page, stack: Stack, finished: FinishedRun
) -> None:
    page.goto(status(stack)["links"]["compare"], wait_until="domcontentloaded")
    expect(page.get_by_role("columnheader", name=BENCHMARK).first).to_be_in_viewport(ratio=1)
    assert any("→" in row for row in rows_of(page))


def test_the_charts_show_both_models(page: Page, finished: FinishedRun, screenshots: Screenshots) -> None:
    follow(page, finished, f"{BENCHMARK} charts")
    expect(page.get_by_text("Which is better, and by how much").first).to_be_visible()
    expect(page.get_by_text(f"{BENCHMARK}/overall", exact=True).first).to_be_visible()
    bars = page.locator(".plotly .bars .point path")
    expect(bars.nth(1)).to_be_attached()
    legend = page.locator("body")
    expect(legend).to_contain_text("reca-tiny-janus/1 geneval")
    screenshots.take(page, "mlflow-charts")


def test_the_picture_grid_has_what_both_drew(page: Page, finished: FinishedRun, screenshots: Screenshots) -> None:
    follow(page, finished, f"{BENCHMARK} pictures")
    expect(page.get_by_text("The same prompts, drawn by both").first).to_be_visible()
    drawn = "[...document.images].filter(image => image.src.startsWith('blob:') || image.src.includes('artifact'))"
    seen = f"() => {drawn}.filter(image => image.naturalWidth > 0).length >= {2 * FEWEST_GRID_ROWS}"
    page.wait_for_function(seen, timeout=SLOW_MILLISECONDS)
    screenshots.take(page, "mlflow-pictures")


def test_every_run_says_how_it_is_repeated_and_what_it_read(page: Page, stack: Stack, finished: FinishedRun) -> None:
    parent = tracked(stack, finished.flow_run_id)
    below = f"tags.`mlflow.parentRunId` = '{parent['info']['run_id']}'"
    children = stack.tracking("POST", "runs/search", {"experiment_ids": ["1"], "filter": below})["runs"]
    assert len(children) == 3
    for run in (parent, *children):
        tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
        assert tags["rerun"].endswith(f"rerun {run['info']['run_id']}")
        assert tags["rerun"] in tags["mlflow.note.content"]
    for run in children:
        (data,) = run["inputs"]["dataset_inputs"]
        assert len(data["dataset"]["digest"]) == 36
    page.goto(f"{stack.mlflow}/#/experiments/1/runs/{parent['info']['run_id']}", wait_until="domcontentloaded")
    expect(page.get_by_text("Repeat:").first).to_be_visible()


def test_the_models_page_tells_its_whole_lineage(page: Page, stack: Stack, finished: FinishedRun) -> None:
    page.goto(f"{stack.mlflow}/#/models/reca-tiny-janus/versions/1", wait_until="domcontentloaded")
    for word in ("Data", "Training", "Checkpoint", "Scores", "Schedule"):
        expect(page.get_by_text(word, exact=True).first).to_be_visible()


def test_the_report_loads_nothing_from_elsewhere(
    stack: Stack, page: Page, finished: FinishedRun, screenshots: Screenshots
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    report = (stack.root / "home/reports/latest/report.html").resolve()
    page.goto(report.as_uri())
    assert {address.partition(":")[0] for address in asked} <= {"file", "data"}
    expect(page.get_by_role("heading", level=1)).to_contain_text("reca-tiny-janus/1 against tiny-janus")
    broken = "() => [...document.images].filter(image => !image.naturalWidth).length"
    assert page.evaluate(broken) == 0
    assert page.evaluate("() => document.images.length") >= 2 * FEWEST_GRID_ROWS
    screenshots.take(page, "report")
