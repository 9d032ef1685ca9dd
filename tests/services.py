"""The service as a real `bentoml serve` process of its own, for tests."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[1]
START_DEADLINE_SECONDS = 60


@dataclass(frozen=True)
class Service:
    """A running service: its address, and the folder of its models."""

    url: str
    models: Path
    process: subprocess.Popen[bytes]

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30)


def service_environment(home: Path, models: Path, **settings: str) -> dict[str, str]:
    """An environment of its own: no settings of the person who runs the tests, no shared metrics folder."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("VERISYNTH_")}
    return inherited | {
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "True",
        "VERISYNTH_MODELS_FOLDER": str(models),
        **settings,
    }


@contextmanager
def serve(home: Path, models: Path, **settings: str) -> Iterator[Service]:
    """The service in processes of its own, from the moment it answers until the end of the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home.mkdir(parents=True, exist_ok=True)
    log = home / "service.log"
    command = [sys.executable, "-m", "bentoml", "serve", "serving.service:Verisynth", "--host", "127.0.0.1"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--timeout-graceful-shutdown", "5"],
            cwd=ROOT,
            env=service_environment(home, models, **settings),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        service = Service(f"http://127.0.0.1:{port}", models, process)
        _await_life(service, log)
        yield service
    finally:
        process.terminate()
        process.wait(timeout=30)


def _await_life(service: Service, log: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE_SECONDS
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{service.url}/livez", timeout=5).raise_for_status()
        except httpx.TransportError:
            if service.process.poll() is not None:
                break
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"the service did not start:\n{log.read_text()}")
