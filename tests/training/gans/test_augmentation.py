import numpy as np
import pytest
import torch
from torch import Tensor

from training.gans import augmentation
from training.gans.augmentation import AdaptiveAugmentation, shifted


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def at(probability: float) -> AdaptiveAugmentation:
    module = AdaptiveAugmentation(ramp_images=1000, limit=1.0)
    module.probability.fill_(probability)
    return module


def images(count: int = 16, side: int = 32) -> Tensor:
    return torch.rand(count, 3, side, side, generator=stream(1)) * 2 - 1


def test_at_probability_zero_images_are_moved_by_two_pixels_at_most_and_else_stay_as_they_are() -> None:
    moved, seen = at(0)(images(64), stream()), set()
    for before, after in zip(images(64), moved, strict=True):
        fitting = [
            (down, across)
            for down in range(-2, 3)
            for across in range(-2, 3)
            if torch.allclose(after, shifted(before[None], torch.tensor([down]), torch.tensor([across]))[0], atol=1e-5)
        ]
        assert len(fitting) == 1
        seen.add(fitting[0])
    assert {down for down, _ in seen} == {across for _, across in seen} == {-2, -1, 0, 1, 2}


def test_a_shift_moves_pixels_and_mirrors_at_the_border() -> None:
    one = images(3, 32)
    moved = shifted(one, torch.tensor([4, 0, -2]), torch.tensor([0, 3, 0]))
    expected = np.stack(
        [
            np.pad(one[0].numpy(), ((0, 0), (4, 0), (0, 0)), "reflect")[:, :32],
            np.pad(one[1].numpy(), ((0, 0), (0, 0), (3, 0)), "reflect")[:, :, :32],
            np.pad(one[2].numpy(), ((0, 0), (0, 2), (0, 0)), "reflect")[:, 2:],
        ]
    )
    np.testing.assert_array_equal(moved.numpy(), expected)


def test_at_probability_one_every_image_is_changed_another_way() -> None:
    same = images(1).expand(16, -1, -1, -1)
    changed = at(1)(same, stream())
    assert all(not torch.allclose(one, same[0]) for one in changed)
    assert len({round(float(one.mean()), 5) for one in changed}) == 16
    cut = (changed == 0).all(dim=1).float().mean(dim=(1, 2))
    assert cut.min() >= augmentation.CUTOUT_SIDE**2


def test_the_share_of_changed_images_follows_the_probability() -> None:
    flat = torch.rand(600, 1, 1, 1, generator=stream(1)).expand(-1, 1, 16, 16)
    changed = (at(0.1)(flat, stream()) - flat).abs().amax(dim=(1, 2, 3)) > 1e-6
    # A shift and a change of contrast leave a flat image as it is.
    assert float(changed.float().mean()) == pytest.approx(1 - 0.9**2, abs=0.05)


def test_the_same_stream_gives_the_same_changes_and_gradients_flow() -> None:
    one = images().requires_grad_()
    first, second = at(0.8)(one, stream(3)), at(0.8)(one, stream(3))
    assert torch.equal(first, second)
    first.sum().backward()
    assert one.grad is not None
    assert torch.isfinite(one.grad).all()
    assert one.grad.abs().sum() > 0


def test_the_probability_rises_while_real_images_are_too_surely_real_and_falls_when_not() -> None:
    module = AdaptiveAugmentation(ramp_images=1000, limit=0.3)
    for _ in range(20):
        module.adapt(torch.tensor(1.0), images=10)
    assert float(module.probability) == pytest.approx(0.2, abs=0.011)
    for _ in range(100):
        module.adapt(torch.tensor(1.0), images=10)
    assert float(module.probability) == pytest.approx(0.3)
    for _ in range(100):
        module.adapt(torch.tensor(0.0), images=10)
    assert float(module.probability) == 0.0
