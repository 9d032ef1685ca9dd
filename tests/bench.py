"""Speed as ratios taken in one run, into reports/bench.json.

    make bench                              # everything; the pipeline alone takes its quarter of an hour
    python -m tests.bench training serving  # parts

Machines are noisy: both sides of a ratio are measured in turns, in the same run, and medians are compared.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
import psutil
import torch
import torch.nn.functional as F

from contracts import imaging
from contracts.latents import latents
from contracts.manifest import DETECTOR, GENERATOR, read_release
from serving.settings import available_cores
from tests.services import ROOT, serve
from training import device, params, tracking
from training.gans import dcgan, loop

REPORT = Path("reports/bench.json")
ROUNDS = 15
MODELS = ROOT / "models"


@dataclass(frozen=True)
class Result:
    """One figure beside the bound it must keep."""

    name: str
    value: float
    bound: str
    kept: bool


def at_least(name: str, value: float, bound: float) -> Result:
    return Result(name, round(value, 3), f">= {bound}", value >= bound)


def at_most(name: str, value: float, bound: float) -> Result:
    return Result(name, round(value, 3), f"<= {bound}", value <= bound)


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def in_turns(one: Callable[[], object], other: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median seconds of two actions measured in turns, after one warm-up each."""
    one(), other()
    pairs = [(seconds(one), seconds(other)) for _ in range(rounds)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def training() -> list[Result]:
    """Our loop, with tracking, averaging, stats, checkpoints and grids, against a bare loop of the same networks.

    Both run on the device that training chooses, in its precision.
    """
    target = device.choose()
    configuration = params.load()
    settings = configuration.gan("ihc", "dcgan")
    image = imaging.ImageSpec(64, 3)
    pixels = np.random.default_rng(0).integers(0, 256, (1368, 64, 64, 3), dtype=np.uint8)
    measured = settings.grid_every_images
    length = measured + settings.log_every_images

    def ours() -> float:
        marks: list[float] = []
        with tempfile.TemporaryDirectory() as folder:
            os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
            record = tracking.Record("bench", "bench", "bench", {}, {"content_hash": "0" * 64})
            task = loop.GanTraining("dcgan", image, settings, params.TrainGan(images=length), content_hash="bench")
            with tracking.run(record) as run:

                def log(numbers: dict[str, float], images: int) -> None:
                    run.metrics(numbers, images)
                    marks.append(time.perf_counter())

                loop.train(task, pixels, Path(folder) / "work", log, "our loop")
            del os.environ["MLFLOW_TRACKING_URI"]
        return measured / (marks[-1] - marks[0])

    def settle() -> None:
        if target.type == "cuda":
            torch.cuda.synchronize()

    def bare() -> float:
        gan = dcgan.build(image, settings, seed=0)
        gan.to(target)
        gan.to(memory_format=torch.channels_last)
        generator, discriminator = gan.generator, gan.discriminator
        adam = {"lr": settings.learning_rate, "betas": (settings.beta1, 0.999), "foreach": True}
        optimisers = [torch.optim.Adam(network.parameters(), **adam) for network in (generator, discriminator)]
        count = measured // settings.batch_size
        warm_up = settings.log_every_images // settings.batch_size
        images = torch.from_numpy(pixels).to(target)
        start = 0.0
        for iteration in range(warm_up + count):
            if iteration == warm_up:
                settle()
                start = time.perf_counter()
            rows = torch.randint(len(images), (settings.batch_size,), device=target)
            real = images[rows].permute(0, 3, 1, 2).float() / 127.5 - 1
            with device.precision(target):
                fake = generator(torch.randn(settings.batch_size, settings.latent_size, device=target))
                loss = F.softplus(-discriminator(real)).mean() + F.softplus(discriminator(fake.detach())).mean()
            optimisers[1].zero_grad()
            loss.backward()
            optimisers[1].step()
            with device.precision(target):
                loss = F.softplus(-discriminator(fake)).mean()
            optimisers[0].zero_grad()
            loss.backward()
            optimisers[0].step()
        settle()
        return count * settings.batch_size / (time.perf_counter() - start)

    pairs = [(ours(), bare()) for _ in range(3)]
    print("images/s, ours and bare:", [tuple(round(speed) for speed in pair) for pair in pairs])
    return [at_least("training loop / bare loop", statistics.median(a / b for a, b in pairs), 0.97)]


def serving() -> list[Result]:
    """Both endpoints against the same work in this process, on the release `ihc` and the provider of the service."""
    release = read_release(MODELS / "ihc")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cores()
    noise = latents(0, 0, 256, release.latent_size)

    with (
        tempfile.TemporaryDirectory() as home,
        serve(Path(home), MODELS) as service,
        closing(HTTPConnection(service.url.removeprefix("http://"), timeout=60)) as connection,
    ):
        provider = httpx.get(f"{service.url}/v1/models/ihc").json()["provider"]
        generator, detector = (
            onnxruntime.InferenceSession(release.folder / name, options, providers=[provider])
            for name in (GENERATOR, DETECTOR)
        )
        upload = imaging.encode_png(generator.run(["image"], {"latent": noise[:1]})[0][0])
        parts = {"image": ("image.png", upload, "image/png"), "model": (None, "ihc")}
        encoded = httpx.Request("POST", "http://localhost", files=parts)
        form, form_type = encoded.read(), encoded.headers["content-type"]

        def judge() -> None:
            tiles = imaging.fit(imaging.decode(upload).pixels, release.image)
            detector.run(None, {"image": tiles})

        # The plainest client there is: what a comfortable one costs is not the service's time.
        def post(path: str, body: bytes, content_type: str) -> None:
            connection.request("POST", path, body, {"Content-Type": content_type})
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status == 200, content

        def generate() -> None:
            post("/v1/generate", b'{"model": "ihc", "count": 256, "seed": 0}', "application/json")

        def check() -> None:
            post("/v1/authenticity", form, form_type)

        whole, over_http = in_turns(lambda: generator.run(["image"], {"latent": noise}), generate, ROUNDS)
        in_chunks, _ = in_turns(
            lambda: [generator.run(["image"], {"latent": noise[start : start + 64]}) for start in range(0, 256, 64)],
            lambda: None,
            ROUNDS,
        )
        direct, through_service = in_turns(judge, check, 10 * ROUNDS)
    bare = min(whole, in_chunks)
    print(f"256 images: bare session {bare * 1e3:.0f} ms, service {over_http * 1e3:.0f} ms")
    print(f"one check: in-process {direct * 1e3:.2f} ms, service {through_service * 1e3:.2f} ms")
    return [
        at_least("generate npz / bare session, images per second", bare / over_http, 0.85),
        at_most("authenticity call / in-process decode and inference", through_service / direct, 2.0),
    ]


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


PARTS: dict[str, Callable[[], list[Result]]] = {"training": training, "serving": serving, "pipeline": pipeline}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help=f"any of {', '.join(PARTS)}; all by default")
    chosen = parser.parse_args().parts or list(PARTS)
    if "serving" in chosen and not (MODELS / "ihc").is_dir():
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
