import dataclasses
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from contracts.imaging import ImageSpec
from training.gans import loop, recipes
from training.params import Recipe, TrainGan

SETTINGS = Recipe(
    latent_size=8,
    width=4,
    batch_size=8,
    learning_rate=2e-4,
    beta1=0.5,
    averaging_halflife_images=64,
    checkpoint_every_seconds=10_000,
    grid_every_images=64,
    log_every_images=40,
)
TRAINING = loop.GanTraining(
    "dcgan", ImageSpec(32, 3), SETTINGS, TrainGan(images=160, flips=["horizontal", "vertical"]), content_hash="a"
)
IMAGES = np.random.default_rng(0).integers(0, 256, (21, 32, 32, 3), dtype=np.uint8)


def train(work: Path, log: Callable[[dict[str, float], int], None], training: loop.GanTraining = TRAINING) -> nn.Module:
    return loop.train(training, IMAGES, work, log, "test")


def ignore(numbers: dict[str, float], images: int) -> None:
    pass


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    work = tmp_path_factory.mktemp("unbroken")
    return train(work, ignore), work


def assert_same(generator: nn.Module, work: Path, unbroken: tuple[nn.Module, Path]) -> None:
    expected, expected_work = unbroken
    for name, value in expected.state_dict().items():
        assert torch.equal(generator.state_dict()[name], value), name
    assert (work / loop.STATS_FILE).read_text() == (expected_work / loop.STATS_FILE).read_text()
    grids = [sorted(folder.joinpath(loop.GRIDS_FOLDER).iterdir()) for folder in (work, expected_work)]
    assert [path.name for path in grids[0]] == [path.name for path in grids[1]]
    assert grids[0][-1].read_bytes() == grids[1][-1].read_bytes()


def test_training_changes_the_generator_and_leaves_stats_and_grids(unbroken: tuple[nn.Module, Path]) -> None:
    generator, work = unbroken
    fresh = recipes.build("dcgan", TRAINING.image, SETTINGS, seed=0).generator
    assert not torch.equal(generator.layers[0].weight, fresh.layers[0].weight)
    rows = [json.loads(line) for line in (work / loop.STATS_FILE).read_text().splitlines()]
    assert [row["images"] for row in rows] == [40, 80, 120, 160]
    assert set(rows[0]) == {"images", "discriminator_loss", "generator_loss", "real_probability", "fake_probability"}
    assert [path.name for path in sorted((work / loop.GRIDS_FOLDER).iterdir())] == [
        "00000064.png",
        "00000128.png",
        "00000160.png",
    ]


@pytest.mark.parametrize("stopped_at", [40, 80, 120])
def test_a_run_stopped_by_ctrl_c_goes_on_to_the_same_result(
    stopped_at: int, tmp_path: Path, unbroken: tuple[nn.Module, Path]
) -> None:
    def interrupt(numbers: dict[str, float], images: int) -> None:
        if images == stopped_at:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=f"stopped after {stopped_at} of 160 images"):
        train(tmp_path, interrupt)
    assert_same(train(tmp_path, ignore), tmp_path, unbroken)


def test_a_killed_run_goes_on_from_its_last_checkpoint_to_the_same_result(
    tmp_path: Path, unbroken: tuple[nn.Module, Path]
) -> None:
    class KilledError(Exception):
        pass

    def die(numbers: dict[str, float], images: int) -> None:
        if images == 120:
            raise KilledError

    often = dataclasses.replace(SETTINGS, checkpoint_every_seconds=0)
    training = dataclasses.replace(TRAINING, settings=often)
    with pytest.raises(KilledError):
        train(tmp_path, die, training)
    (tmp_path / loop.STATS_FILE).open("a").write('{"images": 12')
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["iteration"] == 14
    assert_same(train(tmp_path, ignore, training), tmp_path, unbroken)


def test_a_checkpoint_of_other_settings_is_not_taken_up(tmp_path: Path, unbroken: tuple[nn.Module, Path]) -> None:
    def interrupt(numbers: dict[str, float], images: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    other = dataclasses.replace(TRAINING, content_hash="other data")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, interrupt, other)
    assert_same(train(tmp_path, ignore), tmp_path, unbroken)


def test_a_loss_that_is_not_finite_stops_the_run_by_name(tmp_path: Path) -> None:
    wild = dataclasses.replace(TRAINING, settings=dataclasses.replace(SETTINGS, learning_rate=1e30))
    with pytest.raises(loop.TrainingError, match=r"is (nan|inf) after 40 images; lower `learning_rate`"):
        train(tmp_path, ignore, wild)
    assert not (tmp_path / loop.STATS_FILE).exists()


def test_every_epoch_shows_every_image_once() -> None:
    order = loop.BatchOrder(count=21, batch_size=8, seed=0)
    shown = np.concatenate([order(iteration) for iteration in range(21)])
    epochs = shown.reshape(8, 21)
    assert all(sorted(epoch) == list(range(21)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])
    assert np.array_equal(loop.BatchOrder(21, 8, 0)(13), shown[13 * 8 : 14 * 8])


def test_the_learned_distribution_moves_towards_the_data(tmp_path: Path) -> None:
    """A generator shown dark images only must come to make dark images."""
    dark = np.random.default_rng(0).integers(0, 40, (32, 1, 1, 1), dtype=np.uint8).repeat(32, 1).repeat(32, 2)
    settings = dataclasses.replace(SETTINGS, learning_rate=2e-3)
    training = loop.GanTraining("dcgan", ImageSpec(32, 1), settings, TrainGan(images=1600), content_hash="dark")
    before = recipes.generate(recipes.build("dcgan", training.image, settings, 0).generator.eval(), 8, 0, 0, 16)
    after = recipes.generate(loop.train(training, dark, tmp_path, ignore, "dark"), 8, 0, 0, 16)
    assert abs(before.mean() - 127) < 10
    assert after.mean() < 60
