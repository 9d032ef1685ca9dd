import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

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
