import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from contracts.imaging import ImageSpec
from tests.services import ROOT
from tests.training.gans.small import DCGAN, DCGAN_ADA, changed
from training.gans import geometry, loop, recipes, watch
from training.gans.dual import NOISE_SIZE
from training.gans.fabric import DEVICES, launch
from training.gans.loop import Outcome
from training.gans.recipes import Labels, Trained
from training.params import TrainGan

IMAGES = np.random.default_rng(0).integers(0, 256, (21, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(21) % 2
TRAINING = loop.GanTraining(
    "dcgan_ada",
    ImageSpec(32, 3),
    DCGAN_ADA,
    TrainGan(images=160, flips=["horizontal", "vertical"]),
    Labels(["even", "odd"], [0.5, 0.5]),
    content_hash="a",
)


def mean_error(images: np.ndarray) -> float:
    """A quality that any generator improves or not: stands in for KID."""
    return abs(float(images.mean()) - 127)


def train(work: Path, log: Callable[[dict[str, float], int], None], training: loop.GanTraining = TRAINING) -> Outcome:
    labels = LABELS if training.labels.names else None
    return loop.train(training, IMAGES, labels, mean_error, work, log, launch(), "test")


def ignore(numbers: dict[str, float], images: int) -> None:
    pass


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    work = tmp_path_factory.mktemp("unbroken")
    return train(work, ignore), work


def weights(outcome: Outcome) -> dict[str, torch.Tensor]:
    return outcome.trained.generator.state_dict()


def assert_same(outcome: Outcome, work: Path, unbroken: tuple[Outcome, Path]) -> None:
    expected, expected_work = unbroken
    for name, value in weights(expected).items():
        assert torch.equal(weights(outcome)[name], value), name
    assert dataclasses.replace(outcome, trained=expected.trained) == expected
    for file in (loop.STATS_FILE, watch.LOOKS_FILE):
        assert (work / file).read_text() == (expected_work / file).read_text()
    grids = [sorted(folder.joinpath(watch.GRIDS_FOLDER).iterdir()) for folder in (work, expected_work)]
    assert [path.name for path in grids[0]] == [path.name for path in grids[1]]
    assert grids[0][-1].read_bytes() == grids[1][-1].read_bytes()


def test_training_changes_the_generator_and_leaves_stats_looks_and_grids(unbroken: tuple[Outcome, Path]) -> None:
    outcome, work = unbroken
    fresh = recipes.build("dcgan_ada", TRAINING.image, DCGAN_ADA, seed=0, classes=2).generator
    assert not torch.equal(outcome.trained.generator.layers[0].weight, fresh.layers[0].weight)
    rows = [json.loads(line) for line in (work / loop.STATS_FILE).read_text().splitlines()]
    assert [row["images"] for row in rows] == [40, 80, 120, 160]
    assert set(rows[0]) == {
        *("images", "discriminator_loss", "generator_loss", "augmentation_probability"),
        *("real_probability", "fake_probability", "real_sign", "label_loss", "real_difference", "real_pairs"),
    }
    assert rows[-1]["augmentation_probability"] > 0
    looks = [json.loads(line) for line in (work / watch.LOOKS_FILE).read_text().splitlines()]
    assert [look["images"] for look in looks] == [64, 128, 160]
    assert (outcome.images_seen, outcome.ended) == (160, loop.AS_PLANNED)
    assert [path.name for path in sorted((work / watch.GRIDS_FOLDER).iterdir())] == [
        "00000064.png",
        "00000128.png",
        "00000160.png",
    ]


@pytest.mark.parametrize("best_look", [64, 128, 160])
def test_the_generator_of_the_best_look_is_kept(best_look: int, tmp_path: Path) -> None:
    looks = iter((64, 128, 160))
    seen: dict[int, np.ndarray] = {}

    def validate(images: np.ndarray) -> float:
        images_seen = next(looks)
        seen[images_seen] = images
        return 0.0 if images_seen == best_look else 1.0

    training = dataclasses.replace(TRAINING, labels=recipes.UNLABELLED)
    outcome = loop.train(training, IMAGES, None, validate, tmp_path, ignore, launch(), "test")
    assert (outcome.kept_at_images, outcome.kid) == (best_look, 0.0)
    samples = outcome.trained.generate(watch.SEED, 0, watch.SAMPLES)
    assert np.array_equal(samples, seen[best_look])


def test_the_last_generator_is_kept_where_the_recipe_says_so(tmp_path: Path) -> None:
    kids = iter((0.0, 1.0, 2.0))
    plain = dataclasses.replace(TRAINING, recipe="dcgan", settings=DCGAN)
    outcome = loop.train(plain, IMAGES, LABELS, lambda _: next(kids), tmp_path, ignore, launch(), "test")
    assert (outcome.kept_at_images, outcome.kid) == (160, 2.0)


def test_a_collapse_ends_the_training_with_the_best_generator_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Collapsing(recipes.RECIPES["dcgan"]):
        steps = 0

        def generator_loss(self, *arguments: object) -> torch.Tensor:
            self.steps += 1
            if self.steps > 20:
                self.generator.layers[-2].weight.data.zero_()
                self.generator.layers[-2].requires_grad_(False)
            return super().generator_loss(*arguments)

    monkeypatch.setitem(recipes.RECIPES, "dcgan", Collapsing)
    grey = np.full((32, 32, 32, 3), 120, dtype=np.uint8) + np.arange(32, dtype=np.uint8)[:, None, None, None] // 16
    settings = changed(DCGAN, learning_rate=2e-3)
    training = dataclasses.replace(
        TRAINING, recipe="dcgan", settings=settings, dataset=TrainGan(images=800), labels=recipes.UNLABELLED
    )
    outcome = loop.train(training, grey, None, mean_error, tmp_path, ignore, launch(), "test")
    assert outcome.ended.startswith("collapsed: ")
    looks = [json.loads(line) for line in (tmp_path / watch.LOOKS_FILE).read_text().splitlines()]
    assert outcome.images_seen == looks[-1]["images"] < 800
    assert max(look["diversity"] for look in looks[-2:]) < watch.COLLAPSED_DIVERSITY
    assert outcome.kept_at_images == min(looks, key=lambda look: look["kid"])["images"]


@pytest.mark.parametrize("stopped_at", [40, 80, 120])
def test_a_run_stopped_by_ctrl_c_goes_on_to_the_same_result(
    stopped_at: int, tmp_path: Path, unbroken: tuple[Outcome, Path]
) -> None:
    def interrupt(numbers: dict[str, float], images: int) -> None:
        if images == stopped_at:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=f"stopped after {stopped_at} of 160 images"):
        train(tmp_path, interrupt)
    assert_same(train(tmp_path, ignore), tmp_path, unbroken)


DUAL = loop.GanTraining(
    "dual",
    ImageSpec(32, 3),
    changed(DCGAN_ADA, latent_size=NOISE_SIZE + 8),
    TrainGan(images=80, flips=["horizontal"]),
    recipes.UNLABELLED,
    content_hash="pairs",
)


def train_dual(work: Path, log: Callable[[dict[str, float], int], None]) -> Outcome:
    masks = np.random.default_rng(1).integers(0, 2, (21, 32, 32), dtype=np.uint8) * np.uint8(255)
    images = np.concatenate([IMAGES, geometry.distances(masks)[..., None]], axis=3)
    return loop.train(DUAL, images, None, mean_error, work, log, launch(), "dual")


def test_the_dual_gan_stopped_by_ctrl_c_goes_on_to_the_same_result(tmp_path: Path) -> None:
    def interrupt(numbers: dict[str, float], images: int) -> None:
        if images == 40:
            os.kill(os.getpid(), signal.SIGINT)

    unbroken = train_dual(tmp_path / "unbroken", ignore), tmp_path / "unbroken"
    with pytest.raises(KeyboardInterrupt, match="stopped after 40 of 80 images"):
        train_dual(tmp_path / "stopped", interrupt)
    assert_same(train_dual(tmp_path / "stopped", ignore), tmp_path / "stopped", unbroken)


def test_a_killed_run_goes_on_from_its_last_checkpoint_to_the_same_result(
    tmp_path: Path, unbroken: tuple[Outcome, Path]
) -> None:
    class KilledError(Exception):
        pass

    def die(numbers: dict[str, float], images: int) -> None:
        if images == 120:
            raise KilledError

    often = changed(DCGAN_ADA, checkpoint_every_seconds=0)
    training = dataclasses.replace(TRAINING, settings=often)
    with pytest.raises(KilledError):
        train(tmp_path, die, training)
    for name in (loop.STATS_FILE, watch.LOOKS_FILE):
        (tmp_path / name).open("a").write('{"images": 12')
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["iteration"] == 14
    assert_same(train(tmp_path, ignore, training), tmp_path, unbroken)


def test_a_checkpoint_of_other_settings_is_not_taken_up(tmp_path: Path, unbroken: tuple[Outcome, Path]) -> None:
    def interrupt(numbers: dict[str, float], images: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    other = dataclasses.replace(TRAINING, content_hash="other data")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, interrupt, other)
    assert_same(train(tmp_path, ignore), tmp_path, unbroken)


def test_a_loss_that_is_not_finite_stops_the_run_by_name(tmp_path: Path) -> None:
    wild = dataclasses.replace(TRAINING, settings=changed(DCGAN_ADA, learning_rate=1e30))
    with pytest.raises(
        loop.TrainingError, match=r"is (nan|inf) after 40 images; there is no look .* lower `learning_rate`"
    ):
        train(tmp_path, ignore, wild)
    assert not (tmp_path / loop.STATS_FILE).exists()


def test_a_loss_that_is_not_finite_later_ends_the_run_with_the_best_generator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = recipes.RECIPES["dcgan_ada"]

    class Breaking(original):
        steps = 0

        def generator_loss(self, *arguments: object) -> torch.Tensor:
            self.steps += 1
            loss = super().generator_loss(*arguments)
            return loss * float("nan") if self.steps > 17 else loss

    monkeypatch.setitem(recipes.RECIPES, "dcgan_ada", Breaking)
    outcome = train(tmp_path, ignore)
    assert outcome.ended == "discriminator_loss is nan after 160 images"
    assert outcome.kept_at_images in (64, 128)
    assert all(torch.isfinite(value).all() for value in weights(outcome).values())
    assert len((tmp_path / loop.STATS_FILE).read_text().splitlines()) == 3


def test_the_learned_distribution_moves_towards_the_data(tmp_path: Path) -> None:
    """A generator shown dark images only must come to make dark images."""
    dark = np.random.default_rng(0).integers(0, 40, (32, 1, 1, 1), dtype=np.uint8).repeat(32, 1).repeat(32, 2)
    settings = changed(DCGAN_ADA, keep="last", look_every_images=100_000)
    training = loop.GanTraining(
        "dcgan_ada", ImageSpec(32, 1), settings, TrainGan(images=1600), recipes.UNLABELLED, content_hash="dark"
    )
    fresh = recipes.build("dcgan", training.image, settings, 0).generator.eval()
    before = Trained(fresh, "dcgan", training.image, settings, recipes.UNLABELLED).generate(0, 0, 16)
    outcome = loop.train(training, dark, None, mean_error, tmp_path, ignore, launch(), "dark")
    assert before.mean() > 100
    assert outcome.trained.generate(0, 0, 16).mean() < 60


def test_a_conditional_generator_learns_what_belongs_to_each_label(tmp_path: Path) -> None:
    """Dark images of one label, bright ones of the other."""
    levels = np.where(np.arange(64) % 2, 220, 30).astype(np.uint8)
    images = np.broadcast_to(levels[:, None, None, None], (64, 32, 32, 1)).copy()
    settings = changed(
        DCGAN_ADA, learning_rate=1e-3, keep="last", look_every_images=100_000, averaging_halflife_images=200
    )
    labels = Labels(["dark", "bright"], [0.5, 0.5])
    training = loop.GanTraining(
        "dcgan_ada", ImageSpec(32, 1), settings, TrainGan(images=8000), labels, content_hash="two"
    )
    outcome = loop.train(training, images, np.arange(64) % 2, mean_error, tmp_path, ignore, launch(), "two")
    samples, drawn = outcome.trained.generate(3, 0, 64), outcome.trained.labels_of(3, 0, 64)
    assert samples[drawn == 0].mean() < 80
    assert samples[drawn == 1].mean() > 170


PROGRAM = """
import os, signal, sys
from pathlib import Path
import torch
from tests.training.gans import test_loop
from training.border import border
work, interrupted_at = Path(sys.argv[1]), int(sys.argv[2])
def log(numbers, images):
    if images == interrupted_at and "generator_loss" in numbers:
        os.kill(os.getpid(), signal.SIGINT)
def kept(gan):
    torch.save(gan.generator.embedding.weight, work / f"embedding_{os.environ.get('LOCAL_RANK', 0)}.pt")
with border("train_gan", "test"):
    build = test_loop.recipes.build
    built = []
    test_loop.recipes.build = lambda *arguments: built.append(build(*arguments)) or built[-1]
    outcome = test_loop.train(work, log)
    kept(built[0])
    if outcome is not None:
        torch.save(outcome.trained.generator.state_dict(), work / "weights.pt")
"""


def test_two_processes_train_one_generator_and_go_on_where_they_stopped(tmp_path: Path) -> None:
    program, work = tmp_path / "program.py", tmp_path / "work"
    program.write_text(PROGRAM, encoding="utf-8")
    environment = os.environ | {DEVICES: "2", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def run(interrupted_at: int, status: int) -> str:
        command = [sys.executable, str(program), str(work), str(interrupted_at)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == status, done.stderr
        return done.stderr

    assert "stopped after 80 of 160 images, all kept in" in run(80, status=130)
    run(0, status=0)
    found = torch.load(work / "weights.pt", weights_only=True)
    assert all(torch.isfinite(value).all() for value in found.values())
    first, second = (torch.load(work / f"embedding_{process}.pt", weights_only=True) for process in range(2))
    assert torch.equal(first, second)
    rows = [json.loads(line) for line in (work / loop.STATS_FILE).read_text().splitlines()]
    assert [row["images"] for row in rows] == [40, 80, 120, 160]
    assert len(list((work / watch.GRIDS_FOLDER).iterdir())) == 3
