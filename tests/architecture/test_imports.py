"""The control plane loads no model library, and the installed packages are this repository's."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("deployments", "evaluation", "flows", "reca_core", "tasks")
CONTROL_PLANE = (
    "deployments",
    "flows",
    "tasks",
    "reca_core/contracts",
    "evaluation/benchmarks",
    "evaluation/understanding",
)
CONTROL_PLANE_FILES = ("records", "benchmark", "registry", "aggregate", "compare", "score")
HEAVY = ("torch", "transformers", "diffusers")

PROBE = """
import importlib, json, sys
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
print(json.dumps([name for name in json.loads(sys.argv[2]) if name in sys.modules]))
"""


def control_plane_modules() -> list[str]:
    files = [path for folder in CONTROL_PLANE for path in (ROOT / folder).rglob("*.py")]
    files += [ROOT / "evaluation" / f"{name}.py" for name in CONTROL_PLANE_FILES]
    dotted = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    return sorted(name.removesuffix(".__init__") for name in dotted if not name.endswith("__main__"))


def test_no_control_plane_module_imports_a_model_library(tmp_path: Path) -> None:
    modules = control_plane_modules()
    assert len(modules) > len(PACKAGES)
    command = [sys.executable, "-c", PROBE, json.dumps(modules), json.dumps(HEAVY)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_resolves_to_this_repository(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__file__ is not None
    assert Path(module.__file__).resolve().parent == ROOT / package
