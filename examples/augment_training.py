"""What are synthetic samples worth to a classifier beside the real images that there are?

    python examples/augment_training.py data/prepared/blood --model blood

Trains a small network on real images, then on the same with samples of a running service beside them, with as many
steps, and tests both on held-out real images. The same seeds, model version and software print the same numbers. About
a minute on two CPU cores.

The folder is a dataset that the pipeline prepared, the model a conditional one that was trained on it.
"""

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serving.client import Client

BATCH_SIZE = 64
SIZE = 32


@dataclass(frozen=True)
class Labelled:
    """Images float32 [N, C, SIZE, SIZE] in [-1, 1] and labels int64 [N]."""

    images: Tensor
    labels: Tensor


def prepared(folder: Path, split: str, labels: list[str]) -> Labelled:
    """One split of a prepared dataset; labels are numbered as the model numbers them."""
    with (folder / split / "index.csv").open(encoding="utf-8", newline="") as file:
        names = [row["label"] for row in csv.DictReader(file)]
    strange = sorted(set(names) - set(labels))
    if strange:
        raise SystemExit(f"{folder} has the labels {', '.join(strange)}, which the model does not draw")
    images = np.load(folder / split / "images.npy")
    return Labelled(pixels(images), torch.tensor([labels.index(name) for name in names]))


def pixels(images: np.ndarray) -> Tensor:
    """uint8 [N, H, W, C] as the network takes them, which sees them small to be done in a minute."""
    return F.adaptive_avg_pool2d(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1, SIZE)


def some_of_each(data: Labelled, count: int, random: np.random.Generator) -> Labelled:
    """At most `count` images of every label."""
    rows = [random.permutation(np.flatnonzero(data.labels == label))[:count] for label in data.labels.unique()]
    chosen = torch.from_numpy(np.concatenate(rows))
    return Labelled(data.images[chosen], data.labels[chosen])


def trained(sources: list[Labelled], classes: int, steps: int, seed: int) -> nn.Module:
    """A small network, trained on batches that the sources share evenly."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for narrow, wide in ((sources[0].images.shape[1], 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1), nn.BatchNorm2d(wide), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        rows = [torch.randint(len(source.labels), (BATCH_SIZE // len(sources),)) for source in sources]
        images = torch.cat([source.images[chosen] for source, chosen in zip(sources, rows, strict=True)])
        labels = torch.cat([source.labels[chosen] for source, chosen in zip(sources, rows, strict=True)])
        images = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(3), images)
        optimiser.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimiser.step()
        schedule.step()
    return network.eval()


@torch.inference_mode()
def balanced_accuracy(network: nn.Module, test: Labelled) -> float:
    """Mean over the labels of the share of their images that is recognised."""
    right = network(test.images).argmax(1) == test.labels
    return float(np.mean([right[test.labels == label].float().mean() for label in test.labels.unique()]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a prepared dataset with labels")
    parser.add_argument("--model", required=True, help="a model that draws these labels")
    parser.add_argument("--url", default="http://localhost:3000")
    parser.add_argument("--real", type=int, help="real images of each label to train on; left out: all")
    parser.add_argument("--synthetic", type=int, default=200, help="synthetic images of each label")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()

    with Client(options.url) as client:
        model = client.model(options.model)
        if not model.labels:
            parser.error(f"{model.name} draws no labels; train one with `conditional: true`")
        drawn = client.generate(options.synthetic * len(model.labels), model.name, seed=0)
    assert drawn.labels is not None
    synthetic = Labelled(pixels(drawn.images), torch.from_numpy(drawn.labels))
    train, test = (prepared(options.folder, split, model.labels) for split in ("train", "test"))

    print(f"{model.name} {model.version}: balanced accuracy on {len(test.labels)} real test images, trained on")
    print(f"{options.real or 'all'} real images of each label, without and with {options.synthetic} synthetic ones")
    print(f"{'seed':<6}  {'real':>6}  {'real and synthetic':>18}")
    rows = []
    for seed in range(options.seeds):
        real = some_of_each(train, options.real or len(train.labels), np.random.default_rng(seed))
        mixtures = ([real], [real, synthetic])
        networks = [trained(sources, len(model.labels), options.steps, seed) for sources in mixtures]
        rows.append([balanced_accuracy(network, test) for network in networks])
        print(f"{seed:<6}  {rows[-1][0]:>6.3f}  {rows[-1][1]:>18.3f}", flush=True)
    alone, beside = np.mean(rows, axis=0)
    gains = [with_synthetic - without for without, with_synthetic in rows]
    print(f"{'mean':<6}  {alone:>6.3f}  {beside:>18.3f}")
    print(f"gain {np.mean(gains):+.3f}, from {min(gains):+.3f} to {max(gains):+.3f} over {len(gains)} seeds.")
    print("Few seeds and one test split show a large gain or loss, and nothing about a small one.")
    if options.real is not None:
        print("The generator learned from more real images than the classifier: part of a gain is what those taught.")


if __name__ == "__main__":
    main()
