"""The service as a real `bentoml serve` process of its own, for tests."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

ROOT = Path(__file__).parents[1]
START_DEADLINE_SECONDS = 60
PORT = "{port}"


@dataclass(frozen=True)
class Service:
    """A running service: its address, the folder of its models, its log."""

    url: str
    models: Path
    process: subprocess.Popen[bytes]
    log: Path

    def client(self, key: str | None = None) -> httpx.Client:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)

    def workers(self) -> list[psutil.Process]:
        """The worker processes: those that import the service, not the supervisor."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if any("worker.service" in part for part in process.cmdline()):
                    found.append(process)
            except psutil.Error:  # it has just ended
                continue
        return found


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
def serve(home: Path, models: Path, host: str = "127.0.0.1", **settings: str) -> Iterator[Service]:
    """The service in processes of its own, from the moment it answers until the end of the block."""
    command = ["-m", "bentoml", "serve", "serving.service:Verisynth", "--host", host, "--port", PORT]
    with run([*command, "--timeout-graceful-shutdown", "5"], home, models, **settings) as service:
        yield service


@contextmanager
def run(arguments: Sequence[str], home: Path, models: Path, life: str = "/livez", **settings: str) -> Iterator[Service]:
    """The service as `python ARGUMENTS` starts it; of the arguments, `PORT` becomes the port.

    Another server than ours tells by the path `life` that it is there.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    home.mkdir(parents=True, exist_ok=True)
    log = home / "service.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *(port if argument == PORT else argument for argument in arguments)],
            cwd=ROOT,
            env=service_environment(home, models, **settings),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        service = Service(f"http://127.0.0.1:{port}", models, process, log)
        _await_life(service, life)
        yield service
    finally:
        process.terminate()
        process.wait(timeout=30)


def _await_life(service: Service, path: str) -> None:
    deadline = time.monotonic() + START_DEADLINE_SECONDS
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{service.url}{path}", timeout=5).raise_for_status()
        except httpx.TransportError:
            if service.process.poll() is not None:
                break
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"the service did not start:\n{service.log.read_text()}")
