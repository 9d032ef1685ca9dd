"""The one training loop of all GAN recipes.

Everything random in iteration i is drawn from streams keyed by (seed, i), so a checkpoint needs no
random state: a run that was stopped and goes on arrives at the same weights as an unbroken one.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from contracts.errors import VerisynthError
from contracts.imaging import ImageSpec, grid
from training import checkpoints, device, interruption, progress
from training.gans import recipes
from training.gans.averaging import averaged, renormalise
from training.params import Recipe, TrainGan
from training.pixels import to_signed_unit

GRID_SEED = 0
GRID_COUNT = 64
GRID_COLUMNS = 8
STATS_FILE = "stats.jsonl"
GRIDS_FOLDER = "grids"


class TrainingError(VerisynthError):
    """A training that cannot go on."""


@dataclass(frozen=True)
class GanTraining:
    """One training: what it learns from and by which settings."""

    recipe: str
    image: ImageSpec
    settings: Recipe
    dataset: TrainGan
    content_hash: str
    """Of the prepared dataset."""

    @property
    def iterations(self) -> int:
        return -(-self.dataset.images // self.settings.batch_size)

    @property
    def identity(self) -> str:
        return checkpoints.fingerprint(**asdict(self), torch=torch.__version__)


class BatchOrder:
    """Which training images iteration i shows: every epoch a fresh permutation, all of it a function of (seed, i)."""

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self._epoch, self._permutation = -1, np.empty(0, dtype=np.int64)

    def __call__(self, iteration: int) -> np.ndarray:
        """Row numbers int64 [batch_size]."""
        positions = np.arange(iteration * self.batch_size, (iteration + 1) * self.batch_size)
        rows = np.empty(self.batch_size, dtype=np.int64)
        for epoch in np.unique(positions // self.count):
            of_epoch = positions // self.count == epoch
            rows[of_epoch] = self._of(int(epoch))[positions[of_epoch] % self.count]
        return rows

    def _of(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            self._epoch = epoch
            self._permutation = np.random.default_rng((self.seed, epoch)).permutation(self.count)
        return self._permutation


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
    work: Path,
    log: Callable[[dict[str, float], int], None],
    progress_name: str,
) -> nn.Module:
    """Train a GAN on uint8 images [N, H, W, C]; returns the averaged generator in evaluation mode.

    `work` holds the checkpoint, `stats.jsonl` and `grids/`; a training stopped earlier goes on from
    there. `log(numbers, images_seen)` is called at every log interval.

    Raises:
        TrainingError: when a loss is no longer finite.
        KeyboardInterrupt: after the checkpoint is written.
    """
    settings, options = training.settings, training.dataset
    target = device.choose()
    device.make_deterministic()

    # Construct
    gan = recipes.build(training.recipe, training.image, settings, options.seed)
    gan.to(target)
    gan.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = averaged(gan.generator, settings.averaging_halflife_images, settings.batch_size)
    generator_optimiser, discriminator_optimiser = (
        torch.optim.Adam(network.parameters(), settings.learning_rate, betas=(settings.beta1, 0.999), foreach=True)
        for network in (gan.generator, gan.discriminator)
    )
    stateful: dict[str, Any] = {
        "gan": gan,
        "average": average,
        "generator_optimiser": generator_optimiser,
        "discriminator_optimiser": discriminator_optimiser,
    }

    # Resume
    start, interval = 0, Interval()
    checkpoints.claim(work, training.identity)
    stored = checkpoints.load(work)
    if stored is not None:
        start, interval = stored["iteration"], Interval(**stored["interval"])
        for name, part in stateful.items():
            part.load_state_dict(stored[name])
    _keep_stats(work / STATS_FILE, images_seen=start * settings.batch_size)

    pixels = _on_device(images, target)
    order = BatchOrder(len(images), settings.batch_size, options.seed)
    saved_at = logged_at = time.monotonic()
    logged_iteration = start
    gan.train()
    total = training.iterations * settings.batch_size
    with (
        progress.bar(total, progress_name, "images", initial=start * settings.batch_size) as bar,
        interruption.deferred() as stop,
    ):
        for iteration in range(start, training.iterations):
            stream = torch.Generator().manual_seed(_stream_seed(options.seed, iteration))
            real = _batch(pixels, order(iteration), options.flips, stream, target)
            latent = torch.randn(settings.batch_size, settings.latent_size, generator=stream).to(target)

            # Discriminator, then generator, on the same fakes
            with device.precision(target):
                fake = gan.generator(latent)
                discriminator_loss, numbers = gan.discriminator_loss(real, fake)
            discriminator_optimiser.zero_grad()
            discriminator_loss.backward()  # type: ignore[no-untyped-call]
            discriminator_optimiser.step()

            with device.precision(target):
                generator_loss = gan.generator_loss(fake)
            generator_optimiser.zero_grad()
            generator_loss.backward()  # type: ignore[no-untyped-call]
            generator_optimiser.step()
            average.update_parameters(gan.generator)

            interval.add(numbers | {"discriminator_loss": discriminator_loss, "generator_loss": generator_loss})
            bar.update(settings.batch_size)
            images_seen = (iteration + 1) * settings.batch_size
            last = images_seen == total

            # Log
            if last or _crosses(images_seen, settings.log_every_images, settings.batch_size):
                means = interval.means()
                _refuse_non_finite(means, images_seen, work)
                with (work / STATS_FILE).open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"images": images_seen} | means) + "\n")
                now = time.monotonic()
                speed = (iteration + 1 - logged_iteration) * settings.batch_size / (now - logged_at)
                log(means | {"images_per_second": speed}, images_seen)
                shown = {name: f"{means[name]:.2f}" for name in ("discriminator_loss", "generator_loss")}
                bar.set_postfix(shown, refresh=False)
                interval, logged_at, logged_iteration = Interval(), now, iteration + 1

            # Look
            if last or _crosses(images_seen, settings.grid_every_images, settings.batch_size):
                _save_grid(average, settings.latent_size, work / GRIDS_FOLDER / f"{images_seen:08d}.png")

            # Keep
            if stop.requested or time.monotonic() - saved_at >= settings.checkpoint_every_seconds:
                _refuse_non_finite(interval.means(), images_seen, work)
                state = {name: part.state_dict() for name, part in stateful.items()}
                state |= {"iteration": iteration + 1, "interval": asdict(interval)}
                checkpoints.save(work, state)
                saved_at = time.monotonic()
                if stop.requested:
                    raise KeyboardInterrupt(f"stopped after {images_seen} of {total} images, all kept in {work}")
    return renormalise(average, settings.latent_size)


def _crosses(images_seen: int, interval: int, batch_size: int) -> bool:
    return images_seen // interval != (images_seen - batch_size) // interval


def _stream_seed(seed: int, iteration: int) -> int:
    return int(np.random.SeedSequence((seed, iteration)).generate_state(1, np.uint64)[0])


def _on_device(images: np.ndarray, target: torch.device) -> np.ndarray | Tensor:
    """Images on the GPU where they fit, memory-mapped otherwise."""
    if target.type == "cuda" and images.nbytes < torch.cuda.mem_get_info(target)[0] // 4:
        return torch.from_numpy(np.array(images)).to(target)
    return images


def _batch(
    pixels: np.ndarray | Tensor, rows: np.ndarray, flips: list[str], stream: torch.Generator, target: torch.device
) -> Tensor:
    """Float images [batch, C, H, W] in [-1, 1], each flipped or not."""
    chosen = pixels[rows]
    levels = torch.from_numpy(chosen) if isinstance(chosen, np.ndarray) else chosen
    real = to_signed_unit(levels.to(target).permute(0, 3, 1, 2))
    for flip in flips:
        flipped = torch.rand(len(rows), generator=stream).to(target) < 0.5
        axis = 3 if flip == "horizontal" else 2
        real = torch.where(flipped[:, None, None, None], real.flip(axis), real)
    return real.contiguous(memory_format=torch.channels_last)


def _keep_stats(path: Path, images_seen: int) -> None:
    """Drop the rows that a stopped run wrote after its last checkpoint."""
    if path.is_file():
        rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(row for row in rows if _images(row) <= images_seen), encoding="utf-8")


def _images(row: str) -> float:
    try:
        return float(json.loads(row)["images"])
    except ValueError:
        return float("inf")


def _refuse_non_finite(means: dict[str, float], images_seen: int, work: Path) -> None:
    for name, value in means.items():
        if not np.isfinite(value):
            raise TrainingError(
                f"{name} is {value} after {images_seen} images; lower `learning_rate`. "
                f"The last good checkpoint is kept in {work}"
            )


def _save_grid(average: torch.optim.swa_utils.AveragedModel, latent_size: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = recipes.generate(renormalise(average, latent_size), latent_size, GRID_SEED, 0, GRID_COUNT)
    sheet = grid(samples, GRID_COLUMNS)
    Image.fromarray(sheet[..., 0] if sheet.shape[2] == 1 else sheet).save(path)
