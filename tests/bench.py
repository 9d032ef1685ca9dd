"""Speed as ratios taken in one run, into reports/bench.json.

    make bench                              # everything; the pipeline alone takes its quarter of an hour
    python -m tests.bench training serving  # parts; detecting and pipeline are the others

Machines are noisy: both sides of a ratio are measured in turns, in the same run, and medians are compared.
"""

import argparse
import functools
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
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
import psutil
import torch

from contracts import imaging
from contracts.latents import latents
from contracts.manifest import DETECTOR, GENERATOR, read_release
from serving.settings import available_cores
from tests.services import ROOT, serve
from training import params, tracking
from training.evaluation import fidelity
from training.gans import loop, recipes
from training.gans.fabric import launch

REPORT = Path("reports/bench.json")
ROUNDS = 15
MODELS = ROOT / "models"
RECIPE = "dcgan_grain"


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
    """Our loop, with tracking, averaging, stats, checkpoints and looks, against bare loops of the same recipe.

    On a GPU also against one in single precision and plain memory format, as a tutorial would write it.
    """
    fabric = launch()
    settings = params.load().gan("ihc", RECIPE)
    image = imaging.ImageSpec(64, 3)
    pixels = np.random.default_rng(0).integers(0, 256, (1368, 64, 64, 3), dtype=np.uint8)
    validate = fidelity.validator(pixels, pixels[:200])
    measured = settings.look_every_images
    warm_up = settings.log_every_images

    def ours() -> float:
        marks: dict[int, float] = {}
        with tempfile.TemporaryDirectory() as folder:
            os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
            record = tracking.Record("bench", "bench", "bench", {}, {"content_hash": "0" * 64})
            length = params.TrainGan(images=measured + warm_up)
            task = loop.GanTraining(RECIPE, image, settings, length, recipes.UNLABELLED, content_hash="bench")
            with tracking.run(record) as run:

                def log(numbers: dict[str, float], images: int) -> None:
                    run.metrics(numbers, images)
                    marks.setdefault(images, time.perf_counter())

                loop.train(task, pixels, None, validate, Path(folder) / "work", log, fabric, "our loop")
            del os.environ["MLFLOW_TRACKING_URI"]
        return measured / (marks[measured + warm_up] - marks[warm_up])

    def settle() -> None:
        if fabric.device.type == "cuda":
            torch.cuda.synchronize()

    def bare(plain: bool) -> float:
        precision = nullcontext if plain else fabric.autocast
        memory_format = torch.contiguous_format if plain else torch.channels_last
        gan = recipes.build(RECIPE, image, settings, seed=0).to(fabric.device)
        gan.to(memory_format=memory_format)
        optimisers = [
            torch.optim.Adam(network.parameters(), settings.learning_rate, (settings.beta1, 0.999))
            for network in (gan.discriminator, gan.generator)
        ]
        images = torch.from_numpy(pixels).to(fabric.device)
        stream = torch.Generator(fabric.device)
        start = 0.0
        for iteration in range((warm_up + measured) // settings.batch_size):
            if iteration == warm_up // settings.batch_size:
                settle()
                start = time.perf_counter()
            rows = torch.randint(len(images), (settings.batch_size,), device=fabric.device)
            real = (images[rows].permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=memory_format)
            with precision():
                fake = gan.generator(torch.randn(settings.batch_size, settings.latent_size, device=fabric.device))
                loss, numbers = gan.discriminator_loss(real, fake, None, stream)
            optimisers[0].zero_grad()
            loss.backward()
            optimisers[0].step()
            gan.adapt(numbers, settings.batch_size)
            with precision():
                loss = gan.generator_loss(real, fake, None, stream)
            optimisers[1].zero_grad()
            loss.backward()
            optimisers[1].step()
        settle()
        return measured / (time.perf_counter() - start)

    pairs = [(ours(), bare(plain=False)) for _ in range(3)]
    print("images/s, ours and bare:", [tuple(round(speed) for speed in pair) for pair in pairs])
    results = [at_least("training loop / bare loop", statistics.median(a / b for a, b in pairs), 0.97)]
    if fabric.device.type == "cuda":
        plain = bare(plain=True)
        print(f"images/s of the plain eager loop in single precision: {plain:.0f}")
        ratio = statistics.median(a for a, _ in pairs) / plain
        results.append(at_least("training loop / plain eager single precision on this GPU", ratio, 4))
    return results


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
        def post(path: str, body: bytes, content_type: str) -> float:
            """Seconds until the first byte of the answer."""
            start = time.perf_counter()
            connection.request("POST", path, body, {"Content-Type": content_type})
            answer = connection.getresponse()
            first = time.perf_counter() - start
            content = answer.read()
            assert answer.status == 200, content
            return first

        def generate(form: str) -> float:
            body = json.dumps({"model": "ihc", "count": 256, "seed": 0, "format": form}).encode()
            return post("/v1/generate", body, "application/json")

        def check() -> None:
            post("/v1/authenticity", form, form_type)

        def session(batch: int) -> None:
            for start in range(0, 256, batch):
                generator.run(["image"], {"latent": noise[start : start + batch]})

        # What one batch of the service takes while all of its threads are at work.
        options.intra_op_num_threads = 1
        single = onnxruntime.InferenceSession(release.folder / GENERATOR, options, providers=[provider])

        def chunks() -> None:
            with ThreadPoolExecutor(available_cores()) as pool:
                chunk = functools.partial(single.run, ["image"], {"latent": noise[:64]})
                for future in [pool.submit(chunk) for _ in range(available_cores())]:
                    future.result()

        in_chunks, chunk = in_turns(lambda: session(64), chunks, ROUNDS)

        def streamed(form: str) -> tuple[float, float]:
            """The rate beside the bare session's, and the median seconds to the first byte."""
            firsts: list[float] = []
            whole, over_http = in_turns(lambda: session(256), lambda: firsts.append(generate(form)), ROUNDS)
            bare = min(whole, in_chunks)
            print(f"256 images: bare session {bare * 1e3:.0f} ms, {form} {over_http * 1e3:.0f} ms")
            return bare / over_http, statistics.median(firsts)

        measured = {form: streamed(form) for form in ("npz", "zip")}
        direct, through_service = in_turns(judge, check, 10 * ROUNDS)
    late = {form: 1e3 * (first - chunk) for form, (_, first) in measured.items()}
    print(f"one chunk: {chunk * 1e3:.0f} ms; first byte later by", {form: f"{ms:.0f} ms" for form, ms in late.items()})
    print(f"one check: in-process {direct * 1e3:.2f} ms, service {through_service * 1e3:.2f} ms")
    return [
        at_least("generate npz / bare session, images per second", measured["npz"][0], 0.9),
        at_least("generate zip / bare session, images per second", measured["zip"][0], 0.7),
        *(at_most(f"first byte of {form} after one chunk's inference, milliseconds", late[form], 100) for form in late),
        at_most(
            "authenticity call less 2 ms / in-process decode and inference", (through_service - 0.002) / direct, 1.5
        ),
    ]


def detecting() -> list[Result]:
    """A call of every released detector on one image, on one core, and the size of its file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    results = []
    for folder in sorted(path.parent for path in MODELS.glob("*/manifest.json")):
        release = read_release(folder)
        session = onnxruntime.InferenceSession(folder / DETECTOR, options, providers=["CPUExecutionProvider"])
        shape = (1, release.image.size, release.image.size, release.image.channels)
        image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        judge = functools.partial(session.run, None, {"image": image})
        judge()
        took = statistics.median(seconds(judge) for _ in range(10 * ROUNDS))
        what = f"detector of {release.name} ({release.manifest['detector']['kind']}, {release.image.size} px)"
        results.append(at_most(f"{what}, milliseconds a call", 1e3 * took, 10))
        results.append(at_most(f"{what}, MB", (folder / DETECTOR).stat().st_size / 1e6, 10))
    return results


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


PARTS: dict[str, Callable[[], list[Result]]] = {
    "training": training,
    "serving": serving,
    "detecting": detecting,
    "pipeline": pipeline,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help=f"any of {', '.join(PARTS)}; all by default")
    chosen = parser.parse_args().parts or list(PARTS)
    if {"serving", "detecting"} & {*chosen} and not (MODELS / "ihc").is_dir():
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
