"""The Triton kernels run on a GPU if there is one, else in Triton's interpreter on the CPU."""

import pytest
import torch


@pytest.fixture
def device():
    return "cuda" if torch.cuda.is_available() else "cpu"
