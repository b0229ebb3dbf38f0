"""Dockerfile, Kubernetes pool and Slurm script: rendered and checked against what there is to check them against.

None of them was ever run: there is no registry, no Kubernetes and no Slurm where the tests run.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from prefect.utilities.templating import apply_values

from deployments.submit import SlurmJob, main, slurm_script

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "deployments/templates"
KUBERNETES = "1.31"
CHOSEN = {
    "home": "/shared/home",
    "environment": "/shared/venv",
    "prefect_url": "http://head:4200/api",
    "mlflow_uri": "http://head:5000",
}


def pool() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((TEMPLATES / "kubernetes-pool.json").read_text())
    return found


def job(**chosen: Any) -> dict[str, Any]:
    """The manifest as a worker makes it: variables filled in, then the three things the worker itself sets."""
    document = pool()
    defaults = {
        name: entry["default"] for name, entry in document["variables"]["properties"].items() if "default" in entry
    }
    rendered = apply_values(document["job_configuration"], defaults | chosen)
    manifest: dict[str, Any] = rendered["job_manifest"]
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": name, "value": value} for name, value in container["env"].items()]
    container["args"] = ["prefect", "flow-run", "execute"]
    return manifest


def test_the_rendered_job_is_one_that_kubernetes_accepts() -> None:
    kubernetes_validate.validate(job(), KUBERNETES, strict=True)
    kubernetes_validate.validate(job(gpus=8, namespace="ml", secret="mine"), KUBERNETES, strict=True)


def test_the_check_would_notice_a_wrong_job() -> None:
    manifest = job()
    manifest["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_every_placeholder_is_a_variable_and_every_variable_is_used() -> None:
    document = pool()
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(document["job_configuration"])))
    assert used == set(document["variables"]["properties"])


def test_a_run_is_tried_again_by_prefect_alone_and_is_nobody_special() -> None:
    spec = job()["spec"]
    assert spec["backoffLimit"] == 0
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["containers"][0]["securityContext"]["allowPrivilegeEscalation"] is False
    assert "UNTESTED" in pool()["variables"]["description"]


def dockerfile() -> list[tuple[str, str]]:
    text = (TEMPLATES / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def test_the_image_copies_what_exists_and_every_package_of_the_wheel() -> None:
    copied = [word for name, rest in dockerfile() if name == "COPY" for word in rest.split()[:-1]]
    assert all((ROOT / word).exists() for word in copied)
    include = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name.rstrip("*") for name in include} <= set(copied)


def test_the_image_installs_the_lock_and_ends_as_nobody_special() -> None:
    steps = dockerfile()
    assert steps[0] == ("FROM", "python:3.11-slim")
    installs = [rest for name, rest in steps if name == "RUN" and "pip install" in rest]
    assert "-r requirements.lock" in installs[0]
    assert "--no-deps ." in installs[-1]
    names = [name for name, _ in steps]
    assert [rest for name, rest in steps if name == "USER"] == ["reca"]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert not any("PASSWORD" in rest or "TOKEN" in rest for _, rest in steps)
    extras = re.findall(r"requirements-dev\.lock ([\w -]+)", installs[0])[0].split()
    locked = (ROOT / "requirements-dev.lock").read_text()
    assert all(f"\n{name}==" in locked for name in extras)


def options_of(script: str) -> dict[str, str]:
    return dict(re.findall(r"^#SBATCH --([\w-]+)=?(\S*)$", script, re.MULTILINE))


@pytest.mark.parametrize("nodes", [1, 4])
def test_the_slurm_script_is_a_shell_script_with_the_options_that_were_chosen(nodes: int) -> None:
    script = slurm_script(SlurmJob(**CHOSEN, nodes=nodes, partition="gpu", auth="/shared/auth"))  # type: ignore[arg-type]
    shell = shutil.which("bash")
    assert shell is not None
    assert subprocess.run([shell, "-n"], input=script, text=True, check=False).returncode == 0
    found = options_of(script)
    assert (found["nodes"], found["partition"], found["time"]) == (str(nodes), "gpu", "24:00:00")
    assert "account" not in found
    assert ("RECA_RAY_ADDRESS" in script) == (nodes > 1)
    assert "{{" not in script
    assert "{%" not in script
    assert "UNTESTED" in script
    assert script.index("#SBATCH") < script.index("set -euo")
    last = max(script.rfind(f"#SBATCH --{name}") for name in found)
    assert not [line for line in script[:last].splitlines() if line and not line.startswith("#")]


def test_the_password_reaches_the_worker_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "auth"
    for text in ("anna:with:colons", "anna:with:colons\n"):
        file.write_text(text)
        script = slurm_script(SlurmJob(**CHOSEN, auth=str(file)))  # type: ignore[arg-type]
        login = script[script.index("IFS=") : script.index("BIN=")]
        command = f'set -euo pipefail\n{login}\necho "$PREFECT_API_AUTH_STRING"'
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "anna:with:colons"


@pytest.mark.parametrize(
    ("option", "value"),
    [("--home", "/shared/$(rm -rf x)"), ("--partition", "gpu\nrm"), ("--nodes", "0"), ("--mlflow-uri", "http://a;b")],
)
def test_nothing_that_a_shell_would_obey_gets_in(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = {f"--{name.replace('_', '-')}": text for name, text in CHOSEN.items()} | {option: value}
    assert main([word for pair in words.items() for word in pair]) == 2
    assert option in capsys.readouterr().err
