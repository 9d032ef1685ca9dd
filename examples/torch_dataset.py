"""Synthetic samples in a PyTorch loop: python examples/torch_dataset.py http://localhost:3000 ihc"""

import sys

from torch.utils.data import DataLoader

from serving.client.dataset import SyntheticDataset

url, model = sys.argv[1:]
dataset = SyntheticDataset(url, "data/synthetic", count=256, model=model, target="none")
for images in DataLoader(dataset, batch_size=64, shuffle=True):
    print(tuple(images.shape), f"{images.mean():.3f}")
