"""The machine a training runs on, through Lightning Fabric: GPU where there is one, CPU elsewhere, or several of them.

`VERISYNTH_DEVICES=2` trains on two GPUs (or two CPU processes): each takes its share of every batch.
"""

import os

import torch
from lightning_fabric import Fabric

from contracts.errors import VerisynthError

DEVICES = "VERISYNTH_DEVICES"


def launch() -> Fabric:
    """Fabric on the machine's accelerator, its processes started. bfloat16 on a GPU that has it, else single precision.

    A GPU adds in the same order every time, so that a resumed training equals an unbroken one there too.

    Raises:
        VerisynthError: for a number of devices that is none.
    """
    text = os.environ.get(DEVICES, "1")
    if not text.isdecimal() or int(text) < 1:
        raise VerisynthError(f"{DEVICES} is {text!r}; give the number of devices to train on, 1 or more")
    gpus = torch.cuda.device_count()
    if gpus and int(text) > gpus:
        raise VerisynthError(f"{DEVICES} is {text}, and this machine has {gpus} GPUs; give that many at most")
    cuda = torch.cuda.is_available()
    if cuda:
        # Beside convolutions, repeated borders and bilinear enlargement: their gradients are added up in any order.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
    fabric = Fabric(
        accelerator="cuda" if cuda else "cpu",
        devices=int(text),
        strategy="ddp" if int(text) > 1 else "auto",
        precision="bf16-mixed" if cuda and torch.cuda.is_bf16_supported(including_emulation=False) else "32-true",
    )
    fabric.launch()
    return fabric
