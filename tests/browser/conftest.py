"""One stack (``reca up``), one browser and one finished run serve every browser test.

``RECA_SCREENSHOTS=DIR`` writes a picture of every step there (``make screenshots`` makes those of docs/images): the run
is then a longer one, so that there is something to see.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.pages import CHROMIUM, SLOW_MILLISECONDS, RunForm
from tests.end_to_end.stacks import reca, up
from tests.end_to_end.test_servers import ENDED, Stack, free_port, state_of, wait_for

expect.set_options(timeout=SLOW_MILLISECONDS)
WIDTH, HEIGHT = 1280, 900
COLOURS = 256
"""Of a stored picture: pages are mostly flat, so that a palette quarters their size."""
RUN_SECONDS = 600.0
SHORT_RUN = {
    "images": {"scenes": 60},
    "training": {"steps": 4, "images_per_step": 8, "warmup_steps": 1},
    "evaluation": {"prompts_per_tag": 2, "pictures_per_prompt": 1},
}
SHOWN_RUN = {
    "images": {"scenes": 256},
    "training": {"steps": 40, "images_per_step": 32, "warmup_steps": 5},
    "evaluation": {"prompts_per_tag": 8, "pictures_per_prompt": 2},
}


@dataclass(frozen=True)
class Screenshots:
    """Keeps pictures of pages where a folder for them is named."""

    folder: str

    def take(self, page: Page, name: str) -> None:
        """A picture of what the window shows."""
        if not self.folder:
            return
        with Image.open(io.BytesIO(page.screenshot(timeout=SLOW_MILLISECONDS))) as picture:
            small = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
            small.save(Path(self.folder) / f"{name}.png", optimize=True)


@dataclass(frozen=True)
class FinishedRun:
    """A pipeline that was started by the form."""

    flow_run_id: str
    address: str
    """The page of the run."""


@pytest.fixture(scope="session")
def screenshots() -> Screenshots:
    return Screenshots(os.environ.get("RECA_SCREENSHOTS", ""))


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    started = Stack(tmp_path_factory.mktemp("browser"), free_port(), free_port())
    (started.root / "worker.log").symlink_to(started.root / "home/stack/worker.log")
    try:
        result = up(started)
        assert result.returncode == 0, result.stderr
        yield started
    finally:
        reca(started.root / "home", "down")


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Closed with the last test of this folder: open, its event loop refuses ``asyncio.run`` to every other test."""
    with sync_playwright() as playwright:
        # Both UIs ask for pages elsewhere; here no name resolves, so that nothing waits for them.
        nowhere = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", nowhere])
        yield started
        started.close()


def open_page(browser: Browser) -> Page:
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
    context.set_default_timeout(SLOW_MILLISECONDS)
    # MLflow opens its assistant beside the page once per browser; this is not its first visit.
    context.add_init_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
    return context.new_page()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    opened = open_page(browser)
    yield opened
    opened.context.close()


@pytest.fixture(scope="package")
def finished(stack: Stack, browser: Browser, screenshots: Screenshots) -> FinishedRun:
    """The tiny pipeline, started by filling in its form and followed to its end."""
    opened = open_page(browser)
    form = RunForm(opened, stack, "train-then-evaluate")
    for section, fields in (SHOWN_RUN if screenshots.folder else SHORT_RUN).items():
        for field, value in fields.items():
            form.fill(section, field, str(value))
    opened.mouse.wheel(0, -100_000)
    screenshots.take(opened, "prefect-form")
    flow_run_id = form.begin()
    wait_for(stack, "worker", lambda: state_of(stack, flow_run_id) in ENDED, RUN_SECONDS)
    assert state_of(stack, flow_run_id) == "COMPLETED", stack.log("worker")
    opened.context.close()
    return FinishedRun(flow_run_id, form.run_page(flow_run_id))
