"""Images per second of the training loop against bare loops."""

import os
import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from contracts import imaging
from tests.bench.results import Result, at_least
from training import params, tracking
from training.evaluation import fidelity
from training.gans import loop, recipes
from training.gans.fabric import launch


def training() -> list[Result]:
    """Our loop, with tracking, averaging, stats, checkpoints and looks, against bare loops of the same recipe.

    On a GPU also against one in single precision and plain memory format, as a tutorial would write it.
    """
    fabric = launch()
    configuration = params.load()
    recipe = configuration.run.recipes[0]
    settings = configuration.gan("ihc", recipe)
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
            task = loop.GanTraining(recipe, image, settings, length, recipes.UNLABELLED, content_hash="bench")
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
        gan = recipes.build(recipe, image, settings, seed=0).to(fabric.device)
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
