"""A PostgreSQL server of its own, for tests; skipped where its programs or the driver are not installed."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

START_DEADLINE_SECONDS = 60
# The server refuses to run as root.
UNPRIVILEGED = {"user": "nobody"} if hasattr(os, "geteuid") and os.geteuid() == 0 else {}


@contextmanager
def postgresql() -> Iterator[str]:
    """The URL of an empty database, from the moment the server answers until the end of the block."""
    psycopg = pytest.importorskip("psycopg", reason="the driver comes with the extra `fingerprints`")
    if not (shutil.which("initdb") and shutil.which("postgres")):
        pytest.skip("PostgreSQL is not installed")
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        if UNPRIVILEGED:
            shutil.chown(folder, UNPRIVILEGED["user"])
        data = Path(folder) / "data"
        authentication = ["--auth=trust", "--username=verisynth", "--no-sync"]
        made = ["initdb", *authentication, "--encoding=UTF8", "--locale=C", "-D", str(data)]
        subprocess.run(made, check=True, capture_output=True, cwd=folder, **UNPRIVILEGED)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        process = subprocess.Popen(
            ["postgres", "-D", str(data), "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-k", folder, "-F"],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **UNPRIVILEGED,
        )
        url = f"postgresql://verisynth:SECRET@127.0.0.1:{port}/postgres"
        try:
            deadline = time.monotonic() + START_DEADLINE_SECONDS
            while True:
                try:
                    psycopg.connect(url).close()
                    break
                except psycopg.OperationalError:
                    assert process.poll() is None, "the server ended"
                    assert time.monotonic() < deadline, "the server does not answer"
                    time.sleep(0.1)
            yield url
        finally:
            process.terminate()
            process.wait(timeout=30)
