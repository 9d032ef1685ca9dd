import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Networks this small are slower on several threads, and far slower beside another busy process."""
    torch.set_num_threads(1)
