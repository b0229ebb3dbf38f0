"""Pictures of the documents: ``python -m deployments.figures [readme|families] [--home DIR] [--output docs/images]``.

``families``: the sequence of every family with its attention mask, for docs/families.md. ``readme``, the default:

``photographs.png``: photographs from scikit-image's wheel (public domain or CC0) through the bundled tiny model.
``report.png``: the first screen of the newest report of the home, by Debian's chromium; run ``reca demo`` before.
Needs the packages of ``make test``.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from deployments import cli
from deployments.figures_families import families
from reca_core.contracts.errors import EXIT_DONE, PrerequisiteMissing, RecaError
from reca_core.contracts.home import DEFAULT_HOME

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
MODEL = "tiny-janus"
WIDTH, HEIGHT = 1100, 1180
"""Of the browser window, in pixels: the verdict, the table and the first pictures."""


def photographs(home: Path, output: Path) -> Path:
    """Photograph, what the encoder saw, tokenizer ceiling, reconstruction. Raises PrerequisiteMissing."""
    source = _package_folder("skimage") / "data"
    with tempfile.TemporaryDirectory() as folder:
        chosen, made = Path(folder) / "photographs", Path(folder) / "made"
        chosen.mkdir()
        for name in PHOTOGRAPHS:
            shutil.copy(source / name, chosen / name)
        words = ["reconstruct", "--home", str(home), "--model", MODEL, "--images", str(chosen), "--output", str(made)]
        if cli.main(words) != EXIT_DONE:
            raise PrerequisiteMissing("the pictures could not be made", field="reca reconstruct", remedy="see above")
        return Path(shutil.copy(made / "sheet.png", output / "photographs.png"))


def report(home: Path, output: Path) -> Path:
    """The first screen of the newest report. Raises PrerequisiteMissing where there is none."""
    page_file = home / "reports" / "latest" / "report.html"
    if not page_file.is_file():
        raise PrerequisiteMissing("there is no report yet", field=str(page_file), remedy=f"reca demo --home {home}")
    _package_folder("playwright")
    chromium = shutil.which("chromium")
    if chromium is None:
        raise PrerequisiteMissing("chromium is not installed", remedy="apt-get install chromium")
    from playwright.sync_api import sync_playwright

    target = output / "report.png"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(page_file.as_uri())
        page.screenshot(path=str(target))
        browser.close()
    return target


def _package_folder(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise PrerequisiteMissing(f"the package {name} is not installed", remedy="pip install -r requirements-dev.lock")
    return Path(found.origin).parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the pictures of a document; the exit status of the first that cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m deployments.figures", description=__doc__)
    parser.add_argument("document", nargs="?", choices=("readme", "families"), default="readme")
    parser.add_argument("--home", type=Path, default=Path(DEFAULT_HOME))
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    options = parser.parse_args(arguments)
    home, output = options.home.absolute(), options.output.absolute()
    try:
        made = families(output) if options.document == "families" else (f(home, output) for f in (photographs, report))
        for path in made:
            sys.stdout.write(f"{path}\n")
    except RecaError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
