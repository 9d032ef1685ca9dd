import numpy as np
import torch

from training.gans.batches import Batches, BatchOrder, _stream_seed

IMAGES = np.random.default_rng(0).integers(0, 256, (21, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(21) % 3


def batches(process: int = 0, processes: int = 1, flips: tuple[str, ...] = ("horizontal", "vertical")) -> Batches:
    return Batches(IMAGES, LABELS, 8, 5, list(flips), 0, torch.device("cpu"), process, processes)


def test_every_epoch_shows_every_image_once() -> None:
    order = BatchOrder(count=21, batch_size=8, seed=0)
    shown = np.concatenate([order(iteration) for iteration in range(21)])
    epochs = shown.reshape(8, 21)
    assert all(sorted(epoch) == list(range(21)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])
    assert np.array_equal(BatchOrder(21, 8, 0)(13), shown[13 * 8 : 14 * 8])


def test_a_batch_is_a_function_of_its_iteration_alone() -> None:
    walked = batches()
    for iteration in range(7):
        expected = walked(iteration)
    found = batches()(6)
    assert torch.equal(found.real, expected.real)
    assert torch.equal(found.latent, expected.latent)
    assert torch.equal(torch.rand(3, generator=found.stream), torch.rand(3, generator=expected.stream))
    assert not torch.equal(found.latent, batches()(5).latent)


def test_images_stay_with_their_labels_and_are_flipped_or_not() -> None:
    plain = (torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float() / 127.5 - 1).numpy()
    seen = set()
    for iteration in range(6):
        batch = batches()(iteration)
        for image, label in zip(batch.real.numpy(), batch.label.tolist(), strict=True):
            axes = [
                axes for axes in ((), (2,), (1,), (1, 2)) for one in plain if np.array_equal(image, np.flip(one, axes))
            ]
            rows = [row for row, one in enumerate(plain) if np.array_equal(image, np.flip(one, axes[0]))]
            assert LABELS[rows[0]] == label
            seen.add(axes[0])
    assert len(seen) == 4
    assert all(any(np.array_equal(image, one) for one in plain) for image in batches(flips=())(0).real.numpy())


def test_processes_share_the_very_batch_that_one_would_take() -> None:
    whole, parts = batches()(4), [batches(process, 2)(4) for process in range(2)]
    for process, part in enumerate(parts):
        assert torch.equal(part.real, whole.real[process::2])
        assert torch.equal(part.label, whole.label[process::2])
        assert torch.equal(part.latent, whole.latent[process::2])
    drawn = [torch.rand(3, generator=part.stream).tolist() for part in parts]
    shared = torch.Generator().manual_seed(_stream_seed(0, 4))
    assert len({tuple(draws) for draws in [*drawn, torch.rand(3, generator=shared).tolist()]}) == 3
