"""The one training loop of all GAN recipes.

A stopped run goes on from its checkpoint and arrives at the same weights as an unbroken one. Losses that are no longer
finite, and samples that no longer differ, end the run with the best generator seen until then.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from contracts import latents
from contracts.errors import VerisynthError
from contracts.imaging import ImageSpec
from training import checkpoints, interruption, progress
from training.gans import recipes
from training.gans.averaging import averaged, renormalise
from training.gans.batches import Batches
from training.gans.recipes import Labels, Trained
from training.gans.watch import LOOKS_FILE, Watch
from training.params import Recipe, TrainGan

Told = TypeVar("Told")

STATS_FILE = "stats.jsonl"
AS_PLANNED = "as planned"
ASKING_ITERATIONS = 20
"""Of several processes each asks the first one that often whether to stop: asking makes a GPU wait."""
NORMALISATION_BATCHES = 24
NORMALISATION_BATCH_SIZE = 64


class TrainingError(VerisynthError):
    """A training that cannot go on."""


@dataclass(frozen=True)
class GanTraining:
    """One training: what it learns from and by which settings."""

    recipe: str
    image: ImageSpec
    settings: Recipe
    dataset: TrainGan
    labels: Labels
    content_hash: str
    """Of the prepared dataset."""

    @property
    def iterations(self) -> int:
        return -(-self.dataset.images // self.settings.batch_size)

    @property
    def identity(self) -> str:
        return checkpoints.fingerprint(**asdict(self), torch=torch.__version__)


@dataclass(frozen=True)
class Outcome:
    """A finished training: the generator that is kept, and how it came to that."""

    trained: Trained
    images_seen: int
    kept_at_images: int
    """Training images that the kept generator had seen."""
    kid: float
    """Of the kept generator, against the validation split."""
    ended: str
    """`as planned`, or why the training ended before."""


@dataclass
class Interval:
    """Sums of the numbers since the last row of `stats.jsonl`."""

    iterations: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)

    def add(self, numbers: dict[str, Tensor]) -> None:
        """Add one iteration's scalars; they stay on their device, so no GPU is waited for."""
        self.iterations += 1
        for name, value in numbers.items():
            self.sums[name] = self.sums[name] + value.detach() if name in self.sums else value.detach().clone()

    def means(self) -> dict[str, float]:
        """The mean of each number, by name."""
        return {name: float(value) / self.iterations for name, value in sorted(self.sums.items())}


def train(
    training: GanTraining,
    images: np.ndarray,
    labels: np.ndarray | None,
    validate: Callable[[np.ndarray], float],
    work: Path,
    log: Callable[[dict[str, float], int], None],
    fabric: Fabric,
    progress_name: str,
) -> Outcome | None:
    """Train a GAN on uint8 images [N, H, W, C] and, where it is conditional, their labels int64 [N].

    Where the recipe draws masks, images have their distances as one more channel (`geometry.py`). `validate` maps
    generated images of the same form to their KID. `work` holds the checkpoint, `stats.jsonl`, `looks.jsonl` and
    `grids/`; a training stopped earlier goes on from there. `log(numbers, images_seen)` is called at every interval.
    With several processes all of them train; the first one looks, logs, writes and returns, the others return None.

    Raises:
        TrainingError: when the training must end and there is no earlier generator to keep.
        KeyboardInterrupt: after the checkpoint is written.
    """
    settings, options = training.settings, training.dataset
    if settings.batch_size % fabric.world_size:
        raise TrainingError(f"batch_size {settings.batch_size} cannot be shared by {fabric.world_size} devices")

    # Construct
    gan = recipes.build(training.recipe, training.image, settings, options.seed, len(training.labels.names))
    gan.to(fabric.device)
    gan.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator_optimiser, discriminator_optimiser = (
        torch.optim.Adam(network.parameters(), settings.learning_rate, betas=(settings.beta1, 0.999), foreach=True)
        for network in (gan.generator, gan.discriminator)
    )
    average = None
    if settings.averaging_halflife_images is not None:
        average = averaged(gan.generator, settings.averaging_halflife_images, settings.batch_size)
    watch = Watch(work, images, training.image.channels, validate)
    stateful: dict[str, Any] = {
        "gan": gan,
        "generator_optimiser": generator_optimiser,
        "discriminator_optimiser": discriminator_optimiser,
        "watch": watch,
    }
    if average is not None:
        stateful["average"] = average

    # Resume
    start, interval = 0, Interval()
    if fabric.is_global_zero:
        checkpoints.claim(work, training.identity)
    fabric.barrier()
    stored = checkpoints.load(work)
    if stored is not None:
        start, interval = stored["iteration"], Interval(**stored["interval"])
        for name, part in stateful.items():
            part.load_state_dict(stored[name])
    if fabric.is_global_zero:
        for name in (STATS_FILE, LOOKS_FILE):
            _keep_rows(work / name, images_seen=start * settings.batch_size)

    batches = Batches(
        images,
        labels,
        settings.batch_size,
        settings.latent_size,
        options.flips,
        options.seed,
        fabric.device,
        fabric.global_rank,
        fabric.world_size,
    )
    noise = _normalisation_inputs(training, fabric.device) if average is not None else []

    def current() -> Trained:
        module = gan.generator.eval() if average is None else renormalise(average.module, noise)
        return Trained(module, training.recipe, training.image, settings, training.labels)

    def kept(ended: str, images_seen: int) -> Outcome:
        if watch.best is None:
            raise TrainingError(
                f"{ended}; there is no look before that whose generator could be kept: lower `learning_rate`"
                + (", or set `conditional` to false: labels had not their full weight" if training.labels.names else "")
            )
        trained, look = current(), watch.latest
        if settings.keep == "best" or ended != AS_PLANNED:
            trained.generator.load_state_dict(watch.best.weights)
            look = watch.best.look
        return Outcome(trained, images_seen, look.images, look.kid, ended)

    saved_at = logged_at = time.monotonic()
    logged_iteration, images_seen = start, start * settings.batch_size
    ended: str | None = None
    gan.train()
    total = training.iterations * settings.batch_size
    with (
        progress.bar(total, progress_name, "images", images_seen, shown=fabric.is_global_zero) as bar,
        interruption.deferred() as stop,
    ):
        for iteration in range(start, training.iterations):
            batch = batches(iteration)
            complete = gan.advance(iteration / training.iterations) or iteration + 1 == training.iterations

            # Discriminator, then generator, on the same fakes
            with fabric.autocast():
                fake = gan.drawn(batch.real, batch.latent, batch.label, batch.stream)
                discriminator_loss, numbers = gan.discriminator_loss(batch.real, fake, batch.label, batch.stream)
            discriminator_optimiser.zero_grad()
            discriminator_loss.backward()  # type: ignore[no-untyped-call]
            _share_gradients(fabric, gan.discriminator)
            discriminator_optimiser.step()
            numbers = _shared_means(fabric, numbers)
            gan.adapt(numbers, settings.batch_size)

            gan.discriminator.requires_grad_(False)
            with fabric.autocast():
                generator_loss = gan.generator_loss(batch.real, fake, batch.label, batch.stream)
            generator_optimiser.zero_grad()
            generator_loss.backward()  # type: ignore[no-untyped-call]
            gan.discriminator.requires_grad_(True)
            _share_gradients(fabric, gan.generator)
            generator_optimiser.step()
            if average is not None:
                average.update_parameters(gan.generator)

            interval.add(numbers | {"discriminator_loss": discriminator_loss, "generator_loss": generator_loss})
            bar.update(settings.batch_size)
            images_seen = (iteration + 1) * settings.batch_size
            last = images_seen == total
            logs = last or _crosses(images_seen, settings.log_every_images, settings.batch_size)
            looks = last or _crosses(images_seen, settings.look_every_images, settings.batch_size)
            trouble = None

            # Log
            if fabric.is_global_zero and (logs or looks):
                means = interval.means()
                trouble = _not_finite(means, images_seen)
            if fabric.is_global_zero and logs and not trouble:
                with (work / STATS_FILE).open("a", encoding="utf-8") as stats:
                    stats.write(json.dumps({"images": images_seen} | means) + "\n")
                now = time.monotonic()
                speed = (iteration + 1 - logged_iteration) * settings.batch_size / (now - logged_at)
                log(means | {"images_per_second": speed}, images_seen)
                shown = {name: f"{means[name]:.2f}" for name in ("discriminator_loss", "generator_loss")}
                bar.set_postfix(shown, refresh=False)
                interval, logged_at, logged_iteration = Interval(), now, iteration + 1

            # Look
            if fabric.is_global_zero and looks and not trouble:
                trouble = watch.look(current(), images_seen, complete)
                log({"kid": watch.latest.kid, "diversity": watch.latest.diversity}, images_seen)
                gan.train()
            if logs or looks:
                ended = _told(fabric, trouble)
            if ended:
                break

            # Keep
            asks = fabric.world_size == 1 or logs or iteration % ASKING_ITERATIONS == 0
            stops = asks and _told(fabric, stop.requested)
            due = stops or time.monotonic() - saved_at >= settings.checkpoint_every_seconds
            if fabric.is_global_zero and due and not _not_finite(interval.means(), images_seen):
                state = {name: part.state_dict() for name, part in stateful.items()}
                state |= {"iteration": iteration + 1, "interval": asdict(interval)}
                checkpoints.save(work, state)
                saved_at = time.monotonic()
            if stops and not fabric.is_global_zero:
                return None  # quietly: the first process is killed with what it saves when another one fails
            if stops:
                raise KeyboardInterrupt(f"stopped after {images_seen} of {total} images, all kept in {work}")
    return kept(ended or AS_PLANNED, images_seen) if fabric.is_global_zero else None


def _crosses(images_seen: int, interval: int, batch_size: int) -> bool:
    return images_seen // interval != (images_seen - batch_size) // interval


def _normalisation_inputs(training: GanTraining, device: torch.device) -> list[tuple[Tensor, ...]]:
    """Fixed latents, and labels as often as in training."""
    stream = torch.Generator().manual_seed(0)
    inputs: list[tuple[Tensor, ...]] = []
    for batch in range(NORMALISATION_BATCHES):
        latent = torch.randn(NORMALISATION_BATCH_SIZE, training.settings.latent_size, generator=stream).to(device)
        if training.labels.names:
            start = batch * NORMALISATION_BATCH_SIZE
            label = latents.labels(0, start, NORMALISATION_BATCH_SIZE, training.labels.shares)
            inputs.append((latent, torch.from_numpy(label).to(device)))
        else:
            inputs.append((latent,))
    return inputs


def _share_gradients(fabric: Fabric, network: nn.Module) -> None:
    """The mean over all processes, in one message."""
    if fabric.world_size == 1:
        return
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    mean = fabric.all_reduce(torch.cat([gradient.flatten() for gradient in gradients]), reduce_op="mean")
    assert isinstance(mean, Tensor)
    parts = torch.split(mean, [gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def _shared_means(fabric: Fabric, numbers: dict[str, Tensor]) -> dict[str, Tensor]:
    if fabric.world_size == 1:
        return numbers
    mean = fabric.all_reduce(torch.stack(list(numbers.values())), reduce_op="mean")
    assert isinstance(mean, Tensor)
    return dict(zip(numbers, mean.unbind(), strict=True))


def _told(fabric: Fabric, what: Told) -> Told:
    """What the first process says, in all of them."""
    return what if fabric.world_size == 1 else fabric.broadcast(what)


def _keep_rows(path: Path, images_seen: int) -> None:
    """Drop the rows that a stopped run wrote after its last checkpoint."""
    if path.is_file():
        rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(row for row in rows if _images(row) <= images_seen), encoding="utf-8")


def _images(row: str) -> float:
    try:
        return float(json.loads(row)["images"])
    except ValueError:
        return float("inf")


def _not_finite(means: dict[str, float], images_seen: int) -> str | None:
    for name, value in means.items():
        if not np.isfinite(value):
            return f"{name} is {value} after {images_seen} images"
    return None
