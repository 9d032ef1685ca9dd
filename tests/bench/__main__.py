"""Speed as ratios taken in one run, into reports/bench.json.

    make bench                              # everything; the pipeline alone takes its half hour
    python -m tests.bench training serving  # parts; detecting, load and pipeline are the others

Machines are noisy: both sides of a ratio are measured in turns, in the same run, and medians are compared.
"""

import argparse
import json
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from serving.settings import available_cores
from tests.bench.detecting import detecting
from tests.bench.load import load
from tests.bench.pipeline import pipeline
from tests.bench.results import MODELS, Result
from tests.bench.serving import serving
from tests.bench.training import training

REPORT = Path("reports/bench.json")

PARTS: dict[str, Callable[[], list[Result]]] = {
    "training": training,
    "serving": serving,
    "load": load,
    "detecting": detecting,
    "pipeline": pipeline,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help=f"any of {', '.join(PARTS)}; all by default")
    chosen = parser.parse_args().parts or list(PARTS)
    if {"serving", "load", "detecting"} & {*chosen} and not (MODELS / "ihc").is_dir():
        sys.exit("bench: models/ihc is missing; make it with `make repro`")
    if shutil.which("git") is None and "pipeline" in chosen:
        sys.exit("bench: the pipeline part clones the repository and needs git")
    results: list[Result] = []
    for part in chosen:
        print(f"--- {part}")
        results += PARTS[part]()
    machine = {"cores": available_cores(), "processor": platform.machine(), "gpu": torch.cuda.is_available()}
    REPORT.parent.mkdir(exist_ok=True)
    document = {"machine": machine, "results": [asdict(result) for result in results]}
    REPORT.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    for result in results:
        print(f"{'kept  ' if result.kept else 'MISSED'} {result.name}: {result.value} (bound {result.bound})")


if __name__ == "__main__":
    main()
