"""The default pipeline, from nothing and again: minutes and memory."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from tests.bench.results import Result, at_most, seconds
from tests.services import ROOT


def pipeline() -> list[Result]:
    """The default `dvc repro` from nothing, and a second one, in a clone of the committed state."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "verisynth"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        peak = 0
        done = threading.Event()

        def watch(process: psutil.Process) -> None:
            nonlocal peak
            while not done.wait(0.5):
                peak = max(peak, _memory_bytes(process))

        start = time.perf_counter()
        first = subprocess.Popen(["dvc", "repro"], cwd=clone, env=environment)
        watcher = threading.Thread(target=watch, args=(psutil.Process(first.pid),))
        watcher.start()
        status = first.wait()
        done.set()
        watcher.join()
        built = time.perf_counter() - start
        if status != 0:
            raise SystemExit(f"dvc repro failed with status {status}")
        again = seconds(lambda: subprocess.run(["dvc", "repro"], cwd=clone, env=environment, check=True))
    return [
        at_most("default dvc repro, minutes", built / 60, 15),
        at_most("default dvc repro, peak memory of all its processes, GiB", peak / 2**30, 4),
        at_most("second dvc repro, seconds", again, 15),
    ]


def _memory_bytes(process: psutil.Process) -> int:
    total = 0
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for member in family:
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total
