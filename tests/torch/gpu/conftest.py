"""The Triton kernels run on a GPU if there is one, else in Triton's interpreter on the CPU."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is defined: before its import


@pytest.fixture
def device():
    return "cuda" if torch.cuda.is_available() else "cpu"
