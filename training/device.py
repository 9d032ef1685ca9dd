"""The device that networks are run and small ones are trained on: the GPU where there is one."""

import torch


def choose() -> torch.device:
    """CUDA where a GPU is present, else CPU. Convolutions there keep all digits, as the exported graphs' do."""
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
