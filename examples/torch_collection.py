"""A collection in a PyTorch loop: python examples/torch_collection.py collections/retina/0123456789ab"""

import csv
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset


class CollectionDataset(Dataset):
    """Image float32 [C, H, W] in [0, 1]; where there are such, mask float32 [1, H, W] of 0 and 1, and label number."""

    def __init__(self, folder: Path) -> None:
        with (folder / "records.csv").open(encoding="utf-8", newline="") as lines:
            self.records = list(csv.DictReader(lines))
        self.labels = sorted({record["label"] for record in self.records} - {""})
        shards = sorted((folder / "shards").glob("*.zip"))
        self.shard_of = {name: shard for shard in shards for name in zipfile.ZipFile(shard).namelist()}

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, number: int) -> tuple:
        record = self.records[number]
        item = [self.pixels(record[kind]) for kind in ("file", "mask") if record[kind]]
        return (*item, self.labels.index(record["label"])) if record["label"] else tuple(item)

    def pixels(self, name: str) -> torch.Tensor:
        with zipfile.ZipFile(self.shard_of[name]) as shard, Image.open(io.BytesIO(shard.read(name))) as image:
            return torch.from_numpy(np.atleast_3d(np.array(image))).permute(2, 0, 1) / 255


for images, *others in DataLoader(CollectionDataset(Path(sys.argv[1])), batch_size=16):
    print(tuple(images.shape), *(other.tolist() if other.ndim == 1 else tuple(other.shape) for other in others))
