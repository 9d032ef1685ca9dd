"""The dataset against the real service: items, the cache that workers share, what is fetched and what is not."""

import json
import multiprocessing
import pickle
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from contracts.errors import VerisynthError
from contracts.manifest import read_release
from serving.client.connection import ServiceError
from serving.client.dataset import IMAGES_PER_PART, SyntheticDataset
from serving.runtime import Model
from tests.flaky import Flaky, altered, busy, cut_off
from tests.services import ROOT, Service

COUNT = 2 * IMAGES_PER_PART + 10


def generated(network: Flaky) -> list[int]:
    """The starts of the parts that were asked for."""
    bodies = [json.loads(request["body"]) for request in network.requests if request["path"] == "/v1/generate"]
    return [body.get("start", 0) for body in bodies]


def dataset(network: Flaky, folder: Path, **options: Any) -> SyntheticDataset:
    return SyntheticDataset(network.url, folder, **{"count": COUNT, "model": "labelled", "retries": 0} | options)


def test_items_are_tensors_and_labels(network: Flaky, service: Service, tmp_path: Path) -> None:
    samples = dataset(network, tmp_path, seed=5)
    assert generated(network) == []
    expected = Model.load(service.models / "labelled").generate(5, 0, COUNT)
    assert expected.labels is not None
    assert (len(samples), samples.labels, samples.target) == (COUNT, ["benign", "malignant"], "label")
    for index in (0, IMAGES_PER_PART - 1, IMAGES_PER_PART, COUNT - 1):
        image, label = samples[index]
        assert (image.dtype, image.shape) == (torch.float32, (1, 32, 32))
        assert np.array_equal(np.rint(image.numpy() * 255), expected.images[index].transpose(2, 0, 1))
        assert type(label) is int
        assert label == expected.labels[index]
    assert torch.equal(samples[-1][0], samples[COUNT - 1][0])
    assert generated(network) == [0, IMAGES_PER_PART, 2 * IMAGES_PER_PART]
    for index in (COUNT, -COUNT - 1):
        with pytest.raises(IndexError):
            samples[index]
    assert sum(1 for _ in samples) == COUNT  # type: ignore[attr-defined]


def test_masks_or_images_alone(network: Flaky, service: Service, tmp_path: Path) -> None:
    expected = Model.load(service.models / "labelled").generate(0, 0, 1)
    assert expected.masks is not None
    _, mask = dataset(network, tmp_path, target="mask")[0]
    assert (mask.dtype, mask.shape) == (torch.float32, (1, 32, 32))
    assert np.array_equal(mask[0].numpy() * 255, expected.masks[0])
    assert dataset(network, tmp_path, target="none")[0].shape == (1, 32, 32)
    assert dataset(network, tmp_path, model="waves", count=1)[0].shape == (3, 32, 32)
    with pytest.raises(VerisynthError, match="of waves it can be none"):
        dataset(network, tmp_path, model="waves", target="label")
    assert dataset(network, tmp_path, transform=torch.flatten)[0][0].shape == (32 * 32,)


def test_the_cache_outlives_the_dataset_and_the_service(network: Flaky, tmp_path: Path) -> None:
    first = dataset(network, tmp_path, seed=1)
    first.fill()
    network.requests.clear()
    again = dataset(network, tmp_path, seed=1, count=100)
    assert torch.equal(again[99][0], first[99][0])
    assert generated(network) == []
    offline = SyntheticDataset(
        "http://127.0.0.1:9", tmp_path, COUNT, "labelled", seed=1, version=first.version, retries=0
    )
    assert (offline.labels, torch.equal(offline[COUNT - 1][0], first[COUNT - 1][0])) == (first.labels, True)
    with pytest.raises(ServiceError):
        SyntheticDataset("http://127.0.0.1:9", tmp_path, COUNT, "labelled", seed=1, retries=0)


@pytest.mark.parametrize("options", [{"seed": 2}, {"truncation": 0.5}, {"label": "malignant"}, {"balance": "training"}])
def test_other_settings_are_other_images(network: Flaky, tmp_path: Path, options: dict[str, Any]) -> None:
    plain, other = dataset(network, tmp_path), dataset(network, tmp_path, **options)
    assert plain.folder != other.folder
    differences = [not torch.equal(plain[row][0], other[row][0]) or plain[row][1] != other[row][1] for row in range(20)]
    assert any(differences)


def test_the_folder_says_what_it_is(network: Flaky, service: Service, tmp_path: Path) -> None:
    samples = dataset(network, tmp_path, seed=7, truncation=0.5)
    version = read_release(service.models / "labelled").version
    assert samples.version == version
    assert samples.folder.relative_to(tmp_path).parts[:2] == ("labelled", version)
    contents = json.loads((samples.folder / "sequence.json").read_text())
    assert contents["synthetic"] is True
    assert (contents["seed"], contents["truncation"], contents["version"]) == (7, 0.5, version)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_share_the_cache(network: Flaky, tmp_path: Path, method: str) -> None:
    samples = dataset(network, tmp_path)
    # The parent has its own connection before the workers are made.
    samples[0]
    loader = DataLoader(samples, batch_size=7, num_workers=2, multiprocessing_context=method)  # type: ignore[arg-type]
    images = torch.cat([batch for batch, _ in loader])
    assert sorted(generated(network)) == [0, IMAGES_PER_PART, 2 * IMAGES_PER_PART]
    assert all(torch.equal(images[index], samples[index][0]) for index in range(COUNT))


def test_a_forked_worker_has_a_connection_of_its_own(network: Flaky, tmp_path: Path) -> None:
    samples = dataset(network, tmp_path)
    samples[0]
    worker = multiprocessing.get_context("fork").Process(target=samples.__getitem__, args=(IMAGES_PER_PART,))
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0
    samples[2 * IMAGES_PER_PART]
    before, forked, after = (request["connection"] for request in network.requests if request["path"] == "/v1/generate")
    assert before == after != forked


def test_a_part_is_fetched_once_by_many(network: Flaky, tmp_path: Path) -> None:
    many = [dataset(network, tmp_path) for _ in range(6)]
    barrier = threading.Barrier(len(many))

    def first(samples: SyntheticDataset) -> torch.Tensor:
        barrier.wait()
        image: torch.Tensor = samples[3][0]
        return image

    with ThreadPoolExecutor(len(many)) as pool:
        images = list(pool.map(first, many))
    assert all(torch.equal(image, images[0]) for image in images)
    assert generated(network) == [0]


def test_filling_in_the_background(network: Flaky, tmp_path: Path) -> None:
    samples = dataset(network, tmp_path)
    filling = samples.fill_in_background()
    assert not filling.cancel()  # else its end could not be told
    filling.result(timeout=60)
    assert generated(network) == [0, IMAGES_PER_PART, 2 * IMAGES_PER_PART]
    samples[COUNT - 1]
    assert len(generated(network)) == 3
    shutil.rmtree(samples.folder)
    network.faults = [busy(422, "unknown_label")]
    failed = dataset_without_asking(samples).fill_in_background()
    assert isinstance(failed.exception(timeout=60), ServiceError)


def dataset_without_asking(samples: SyntheticDataset) -> SyntheticDataset:
    """As a worker that is spawned has it."""
    copied = pickle.loads(pickle.dumps(samples))
    assert isinstance(copied, SyntheticDataset)
    return copied


def test_what_was_fetched_stays_when_filling_fails(network: Flaky, tmp_path: Path) -> None:
    samples = dataset(network, tmp_path)
    network.faults = [altered(), cut_off]
    done: list[int] = []
    with pytest.raises(ServiceError):
        samples.fill(done.append)
    assert done == [IMAGES_PER_PART]
    assert not list(samples.folder.glob("*incomplete*"))
    samples.fill(done.append)
    assert generated(network) == [0, IMAGES_PER_PART, IMAGES_PER_PART, 2 * IMAGES_PER_PART]
    assert done[1:] == [IMAGES_PER_PART, IMAGES_PER_PART, 10]


def test_another_version_in_the_middle_is_refused(network: Flaky, tmp_path: Path) -> None:
    samples = dataset(network, tmp_path)
    samples[0]
    network.faults = [altered(x_verisynth_version="0" * 12)]
    with pytest.raises(VerisynthError, match=r"now draws with labelled 0{12}"):
        samples[IMAGES_PER_PART]
    with pytest.raises(VerisynthError, match=r"so far are of labelled 0{12}"):
        dataset(network, tmp_path, version="0" * 12)


def test_a_damaged_part_is_named(network: Flaky, tmp_path: Path) -> None:
    samples = dataset(network, tmp_path)
    samples[0]
    path = samples.folder / "000000" / "images.npy"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(VerisynthError, match="000000 is damaged"):
        dataset(network, tmp_path)[0]
    shutil.rmtree(path.parent)
    assert dataset(network, tmp_path)[0][0].shape == (1, 32, 32)


def test_counts_that_cannot_be(network: Flaky, tmp_path: Path) -> None:
    with pytest.raises(VerisynthError, match="the count is 0"):
        dataset(network, tmp_path, count=0)


def test_without_pytorch_items_are_arrays(service: Service, tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from serving.client.dataset import SyntheticDataset\n"
        f"image, label = SyntheticDataset({service.url!r}, {str(tmp_path)!r}, 3, 'labelled')[2]\n"
        "print(type(image).__name__, image.dtype, image.shape, float(image.max()) <= 1, label)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "ndarray float32 (1, 32, 32) True 0"
