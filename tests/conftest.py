"""What all tests share: the same examples every time, kernels of the GPU in the interpreter."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from safetensors.numpy import load_file

os.environ["HF_HUB_OFFLINE"] = "1"
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported
settings.register_profile("masksolve", deadline=None, derandomize=True)
settings.load_profile("masksolve")


@pytest.fixture(scope="session")
def real_weights():
    """Four weight matrices of a sentence-embedding model, float16: see notebooks/data."""
    path = Path(__file__).parents[1] / "notebooks" / "data" / "minilm_sample.safetensors"
    return load_file(path)
