import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.services import ROOT


@pytest.mark.skipif(
    not (shutil.which("uv") or find_spec("uv")), reason="BentoML installs uv from the network where it is missing"
)
def test_a_bento_is_built_without_a_network(tmp_path: Path) -> None:
    # A proxy where nobody listens: any look outside fails.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    environment = os.environ | nowhere | {"BENTOML_HOME": str(tmp_path), "BENTOML_DO_NOT_TRACK": "True"}
    command = [sys.executable, "-m", "bentoml", "build", "--version", "test"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    source = tmp_path / "bentos" / "verisynth" / "test" / "src"
    carried = {path.relative_to(source).parts[0] for path in source.rglob("*") if path.is_file()}
    assert {"contracts", "monitoring", "serving"} <= carried
    assert carried <= {"contracts", "monitoring", "serving", "models", "LICENSE", "bentofile.yaml"}
    assert (source / "serving" / "web" / "index.html").is_file()
    assert (source / "contracts" / "manifest.schema.json").is_file()


def test_a_bento_installs_what_the_environment_was_tested_with() -> None:
    packages = re.findall(r"^    - ([\w-]+==[\w.]+)", (ROOT / "bentofile.yaml").read_text(), re.MULTILINE)
    assert set(packages) <= set((ROOT / "constraints.txt").read_text().replace("_", "-").split())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = project["dependencies"] + project["optional-dependencies"]["serve"]
    assert {package.split("==")[0] for package in packages} == {need.split(";")[0].strip() for need in needed}


def test_the_command_starts_with_what_a_bento_installs() -> None:
    """In a process that finds no package which `serve` does not bring."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    brought = _closure(project["dependencies"] + project["optional-dependencies"]["serve"]) | {project["name"]}
    missing = sorted(
        module
        for module, distributions in metadata.packages_distributions().items()
        if brought.isdisjoint(map(canonicalize_name, distributions))
    )
    program = f"import sys; sys.modules |= dict.fromkeys({missing!r}); import serving.command.main, serving.routes"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def _closure(wanted: list[str]) -> set[str]:
    """The names of all distributions that these requirements bring, themselves included."""
    found, ahead = set[str](), [Requirement(need) for need in wanted]
    while ahead:
        requirement = ahead.pop()
        name = canonicalize_name(requirement.name)
        environments = [{"extra": extra} for extra in requirement.extras or [""]]
        if name in found or not any(requirement.marker is None or requirement.marker.evaluate(e) for e in environments):
            continue
        found.add(name)
        needs = [Requirement(need) for need in metadata.requires(name) or []]
        ahead += [need for need in needs if need.marker is None or any(need.marker.evaluate(e) for e in environments)]
    return found
