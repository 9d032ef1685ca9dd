import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from contracts.errors import VerisynthError
from serving.settings import PREFIX, Settings
from tests.services import ROOT, service_environment


def test_defaults_share_the_cores() -> None:
    assert (Settings().resolved(cores=2).workers, Settings().resolved(cores=2).threads) == (1, 2)
    assert (Settings().resolved(cores=16).workers, Settings().resolved(cores=16).threads) == (4, 4)


def test_every_setting_is_read() -> None:
    settings = Settings.from_environment(
        {
            "VERISYNTH_MODELS_FOLDER": "/models",
            "VERISYNTH_WORKERS": "3",
            "VERISYNTH_THREADS": "2",
            "VERISYNTH_REQUIRE_GPU": "true",
            "VERISYNTH_MAXIMUM_PIXELS": "1000",
            "VERISYNTH_SIGNING_KEY_FILE": "/keys/signing.pem",
            "VERISYNTH_FINGERPRINTS_URL": "postgresql://me:secret@host/database",
            "VERISYNTH_KEYS_FILE": "/keys.json",
            "VERISYNTH_REQUESTS_PER_MINUTE": "0",
            "VERISYNTH_AUDIT_REQUIRED": "false",
            "PATH": "/bin",
        }
    )
    assert (settings.signing_key_file, settings.trusted_keys_folder) == (Path("/keys/signing.pem"), None)
    assert settings.fingerprints_url == "postgresql://me:secret@host/database"
    assert settings.models_folder == Path("/models")
    assert (settings.workers, settings.threads, settings.require_gpu) == (3, 2, True)
    assert settings.decode_limits.maximum_pixels == 1000
    assert (settings.keys_file, settings.audit_file) == (Path("/keys.json"), None)
    assert (settings.requests_per_minute, settings.audit_required) == (0, False)
    assert settings.maximum_buffered_bytes == 8 * settings.maximum_upload_bytes


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VERISYNTH_WORKERS", "two"),
        ("VERISYNTH_WORKERS", "-1"),
        ("VERISYNTH_TIMEOUT_SECONDS", "0"),
        ("VERISYNTH_REQUIRE_GPU", "yes"),
        ("VERISYNTH_MODELS_FOLDER", ""),
        ("VERISYNTH_SIGNING_KEY_FILE", ""),
        ("VERISYNTH_FINGERPRINTS_MAXIMUM", "0"),
        ("VERISYNTH_KEYS_FILE", ""),
        ("VERISYNTH_REQUESTS_PER_MINUTE", "-1"),
        ("VERISYNTH_BODY_TIMEOUT_SECONDS", "0"),
        ("VERISYNTH_MAXIMUM_BUFFERED_BYTES", "1000"),
        ("VERISYNTH_MODELS_FOLDERS", "models"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(VerisynthError, match=name):
        Settings.from_environment({name: value})


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(VerisynthError, match=r"VERISYNTH_KEYS_FILE .* VERISYNTH_ALLOW_ANONYMOUS=true"):
        Settings.from_environment({"VERISYNTH_KEYS_FILE": "keys.json", "VERISYNTH_ALLOW_ANONYMOUS": "true"})


def test_service_links_of_kubernetes_are_passed_over() -> None:
    address = "tcp://10.0.0.11:3000"
    links = {
        "VERISYNTH_SERVICE_HOST": "10.0.0.11",
        "VERISYNTH_SERVICE_PORT": "3000",
        "VERISYNTH_SERVICE_PORT_HTTP": "3000",
        "VERISYNTH_PORT": address,
        "VERISYNTH_PORT_3000_TCP": address,
        "VERISYNTH_PORT_3000_TCP_PROTO": "tcp",
        "VERISYNTH_PORT_3000_TCP_PORT": "3000",
        "VERISYNTH_PORT_3000_TCP_ADDR": "10.0.0.11",
    }
    assert Settings.from_environment(links) == Settings.from_environment({})


def test_settings_of_the_client_are_passed_over() -> None:
    client = {"VERISYNTH_CLIENT_URL": "http://localhost:3000", "VERISYNTH_CLIENT_KEY": "vs_public_secret"}
    assert Settings.from_environment(client) == Settings.from_environment({})
    with pytest.raises(VerisynthError, match="unknown setting VERISYNTH_CLIENTS;"):
        Settings.from_environment({"VERISYNTH_CLIENTS": "2"})


@pytest.mark.parametrize(
    "name", ["VERISYNTH_PORT", "VERISYNTH_SERVICE_NAME", "VERISYNTH_PORT_HTTP_TCP", "VERISYNTH_PORT_3000_TCP_HOST"]
)
def test_what_only_looks_like_a_service_link_is_refused(name: str) -> None:
    with pytest.raises(VerisynthError, match=f"unknown setting {name};"):
        Settings.from_environment({name: "3000"})


def test_the_valid_names_are_listed() -> None:
    with pytest.raises(VerisynthError, match=r"VERISYNTH_WORKERS, VERISYNTH_THREADS"):
        Settings.from_environment({"VERISYNTH_WORKER": "2"})


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    for field in fields(Settings):
        assert f"`{PREFIX}{field.name.upper()}`" in page


def test_the_service_does_not_start_with_an_unknown_setting(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bentoml", "serve", "serving.service:Verisynth", "--port", "0"]
    environment = service_environment(tmp_path, tmp_path, VERISYNTH_WORKER="2")
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    assert "unknown setting VERISYNTH_WORKER;" in ended.stderr
    assert "Traceback" not in ended.stderr
