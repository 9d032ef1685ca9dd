"""The running service against its own OpenAPI document: requests that Schemathesis makes of the document, none of which
may be answered with a status, a header or a body that the document does not tell of."""

import subprocess
import sys
from pathlib import Path

from serving.access.keys import SCOPES, create_key
from tests.releases import write_small_release
from tests.services import serve

# No schema can say which models and what before them there are, how large a body may be, or that bytes are an image.
CONFIGURATION = """
[parameters]
name = "waves"

[checks]
positive_data_acceptance.expected-statuses = ["2xx", "404", "409", "413", "422"]
negative_data_rejection.expected-statuses = ["4xx"]

[[operations]]
include-name = "POST /v1/authenticity/batch"
# A number among the files is bytes like any other, and told of in its line of the answer.
checks.negative_data_rejection.enabled = false
"""
EXAMPLES = 15


def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    write_small_release(tmp_path / "models" / "waves", masks=True)
    configuration = tmp_path / "schemathesis.toml"
    configuration.write_text(CONFIGURATION)
    key = create_key(tmp_path / "keys.json", SCOPES)
    keys = {"VERISYNTH_KEYS_FILE": str(tmp_path / "keys.json")}
    with serve(tmp_path / "bentoml", tmp_path / "models", **keys) as service:
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", configuration]
        options = ["--checks", "all", "--max-examples", str(EXAMPLES), "--continue-on-failure", "--no-color"]
        done = subprocess.run(
            [*command, "run", f"{service.url}/openapi.json", "--header", f"Authorization: Bearer {key}", *options],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
