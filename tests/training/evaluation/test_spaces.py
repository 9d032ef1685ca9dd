import importlib
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from skimage.feature import graycomatrix, graycoprops

from contracts.errors import VerisynthError
from tests.training.detectors.traces import smooth_images, upsampled
from training.evaluation import fidelity, spaces

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(("size", "channels"), [(32, 1), (64, 3), (256, 1)])
def test_coordinates_have_their_natural_scale_and_are_finite_for_constant_images(size: int, channels: int) -> None:
    train = smooth_images(40, size, channels, seed=0)
    constant = np.stack([np.full((size, size, channels), level, np.uint8) for level in (0, 128, 255)])
    found = spaces.weight_free(train)
    assert [space.name for space in found] == ["radiomics", "random_network"]
    for space in found:
        coordinates = space.coordinates(train)
        assert coordinates.shape == (40, 32)
        assert (coordinates**2).sum(1).mean() == pytest.approx(32)
        np.testing.assert_allclose(coordinates.mean(0), 0, atol=1e-9)
        assert np.isfinite(space.coordinates(constant)).all()


def test_a_projection_is_the_principal_components_of_compressed_standardised_features() -> None:
    """Against the singular value decomposition of a known feature matrix; a feature that never varies is left out."""
    matrix = np.concatenate([RANDOM.normal(3, 2, (50, 5)) @ RANDOM.normal(0, 1, (5, 5)), np.full((50, 1), 7.0)], axis=1)

    def features(images: np.ndarray) -> np.ndarray:
        return matrix[images[:, 0, 0, 0]]

    space = spaces.fitted("known", features, np.arange(50, dtype=np.uint8).reshape(50, 1, 1, 1))
    compressed = np.arcsinh((matrix[:, :5] - matrix[:, :5].mean(0)) / matrix[:, :5].std(0))
    left, values, _ = np.linalg.svd(compressed - compressed.mean(0), full_matrices=False)
    expected = left * values
    expected *= np.sqrt(5 / (expected**2).sum(1).mean())
    found = space.coordinates(np.arange(50, dtype=np.uint8).reshape(50, 1, 1, 1))
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-9)


def test_twenty_images_span_nineteen_dimensions_and_equal_ones_none() -> None:
    train = smooth_images(20, 32, 1, seed=0)
    assert all(space.coordinates(train).shape == (20, 19) for space in spaces.weight_free(train))
    with pytest.raises(VerisynthError, match="20 training images do not differ in radiomics"):
        spaces.weight_free(train[:1].repeat(20, axis=0))


def test_coordinates_do_not_depend_on_the_batch() -> None:
    images = smooth_images(spaces.BATCH + 2, 32, 3, seed=1)
    for space in spaces.weight_free(images):
        np.testing.assert_allclose(space.coordinates(images[-2:]), space.coordinates(images)[-2:], atol=1e-3)


def test_evenly_spread_rows_reach_from_end_to_end() -> None:
    assert spaces.evenly_spread(3, 10).tolist() == [0, 1, 2]
    assert spaces.evenly_spread(101, 5).tolist() == [0, 25, 50, 75, 100]


def test_first_order_statistics_equal_scipys() -> None:
    images = smooth_images(4, 32, 3, seed=2)
    found = spaces.first_order(images).reshape(4, 3, 14)
    for index in np.ndindex(4, 3):
        levels = images[index[0], ..., index[1]].ravel().astype(float)
        expected = [
            levels.mean(),
            levels.std(),
            scipy.stats.skew(levels),
            scipy.stats.kurtosis(levels, fisher=False),
            scipy.stats.entropy(np.bincount(levels.astype(int)), base=2),
            *np.quantile(levels, np.arange(1, 10) / 10, method="inverted_cdf"),
        ]
        np.testing.assert_allclose(found[index], expected, rtol=1e-9)


def test_deciles_of_whole_tenths_are_not_decided_by_rounding() -> None:
    tenths = np.arange(10, dtype=np.uint8).repeat(40).reshape(1, 20, 20, 1)
    assert spaces.first_order(tenths)[0, 5:].tolist() == list(range(9))


def test_co_occurrence_equals_scikit_images() -> None:
    grey = RANDOM.integers(0, 256, (3, 24, 24)).astype(np.uint8)
    grey[2] = np.arange(24, dtype=np.uint8)[:, None] * 10
    found = spaces.co_occurrence(grey).reshape(3, 3, 5)
    for image in range(3):
        matrices = graycomatrix(grey[image] // 16, spaces.DISTANCES, (0, np.pi / 2), levels=16, symmetric=True)
        together = matrices.sum(axis=3, keepdims=True) / matrices.sum(axis=(0, 1, 3), keepdims=True)[..., 0, None]
        properties = [
            graycoprops(together, name)[:, 0]
            for name in ("contrast", "homogeneity", "energy", "correlation", "entropy")
        ]
        properties[4] = scipy.stats.entropy(together.reshape(256, -1), base=2)
        np.testing.assert_allclose(found[image], np.stack(properties, 1), rtol=1e-6)


def test_co_occurrence_of_a_constant_image() -> None:
    found = spaces.co_occurrence(np.full((1, 16, 16), 200, np.uint8)).reshape(3, 5)
    np.testing.assert_allclose(found, np.tile([0, 1, 1, 0, 0], (3, 1)), atol=1e-9)


def test_grey_equals_its_own_colour_to_the_random_network() -> None:
    grey = smooth_images(3, 32, 1, seed=3)
    features = partial(spaces.network_features, spaces.RandomNetwork())
    np.testing.assert_allclose(features(grey.repeat(3, axis=3)), features(grey), rtol=1e-4, atol=1e-5)


def test_the_random_network_sees_large_images_shrunk() -> None:
    small = smooth_images(3, 64, 1, seed=11)
    features = partial(spaces.network_features, spaces.RandomNetwork())
    np.testing.assert_allclose(
        features(small.repeat(4, axis=1).repeat(4, axis=2)), features(small), rtol=1e-4, atol=1e-5
    )


def test_radiomics_reads_the_grain_of_large_images_in_their_central_square_and_their_grey_levels_everywhere() -> None:
    large = smooth_images(2, 256, 1, seed=12)
    changed = large.copy()
    changed[:, :64] = 0
    one, other = spaces.radiomics(large), spaces.radiomics(changed)
    np.testing.assert_array_equal(one[:, 14:], other[:, 14:])
    assert (np.abs(one[:, 0] - other[:, 0]) > 10).all()


def test_a_space_is_fitted_on_evenly_spread_images(monkeypatch: pytest.MonkeyPatch) -> None:
    train = smooth_images(40, 32, 1, seed=13)
    monkeypatch.setattr(spaces, "MOST_FITTED", 10)
    few = spaces.fitted("radiomics", spaces.radiomics, train)
    chosen = spaces.fitted("radiomics", spaces.radiomics, train[spaces.evenly_spread(40, 10)])
    np.testing.assert_array_equal(few.coordinates(train), chosen.coordinates(train))


def test_every_weight_free_space_sees_collapse_and_radiomics_sees_the_grain_that_upsampling_destroys() -> None:
    train, held_out = smooth_images(150, 32, 1, seed=4), smooth_images(100, 32, 1, seed=5)
    fakes = upsampled(smooth_images(100, 32, 1, seed=6))
    for space in spaces.weight_free(train):
        real = space.coordinates(held_out)
        floor, coarse, collapsed = (
            fidelity.squared_discrepancy(space.coordinates(images), real)
            for images in (train, fakes, held_out[:1].repeat(100, axis=0))
        )
        assert abs(floor) < 0.5
        assert collapsed > floor + 1
        if space.name == "radiomics":
            assert coarse > floor + 10


@pytest.mark.parametrize(("size", "channels"), [(32, 1), (64, 3), (128, 1)])
def test_the_encoder_is_the_same_for_the_same_seed_and_leaves_the_random_state_alone(size: int, channels: int) -> None:
    train = smooth_images(40, size, channels, seed=7)
    state = torch.random.get_rng_state()
    one, same, other = (spaces.encoder(train, 128, seed).coordinates(train) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert one.shape == (40, 32)
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)


def test_the_autoencoder_learns() -> None:
    """It must restore unseen images better than their own mean does; an untrained one restores nothing."""
    train, unseen = smooth_images(200, 32, 1, seed=8), smooth_images(50, 32, 1, seed=9)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = spaces._trained_autoencoder(train, 4800)
    images = torch.from_numpy(unseen).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        error = ((network(images) - images) ** 2).mean()
    assert error < 0.8 * images.var(dim=(2, 3)).mean()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A torchvision whose Inception is one small layer, and an empty folder for torch.hub's checkpoints."""
    package = tmp_path / "packages" / "torchvision"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "models.py").write_text(
        "from torch import nn\n"
        "class Inception(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Conv2d(3, 6, 75, stride=75)\n"
        "        self.fc = nn.Linear(6, 2)\n"
        "    def forward(self, images):\n"
        "        assert images.shape[1:] == (3, 299, 299)\n"
        "        assert -1 <= images.min() and images.max() <= 1\n"
        "        features = self.layer(images).mean((2, 3))\n"
        "        return self.fc(nn.functional.dropout(features, 0.5, self.training))\n"
        "def inception_v3(weights, init_weights):\n"
        "    return Inception()\n"
    )
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    checkpoints = tmp_path / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    yield checkpoints
    for name in ("torchvision", "torchvision.models"):
        sys.modules.pop(name, None)


def test_inception_is_used_where_its_weights_lie_and_never_downloaded(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = smooth_images(12, 32, 1, seed=10)
    assert spaces.inception(train) is None
    model = importlib.import_module("torchvision.models").Inception()
    torch.save(model.state_dict(), hub / spaces.INCEPTION_WEIGHTS)
    space = spaces.inception(train)
    assert space is not None
    assert space.name == "inception"
    assert space.coordinates(train).shape == (12, 6)
    model.fc = torch.nn.Identity()
    model.eval()
    enlarged = torch.nn.functional.interpolate(
        (torch.from_numpy(train).permute(0, 3, 1, 2) / 127.5 - 1).expand(-1, 3, -1, -1), (299, 299), mode="bilinear"
    )
    np.testing.assert_allclose(space.features(train), model(enlarged).detach().numpy(), atol=1e-5)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert spaces.inception(train) is None
