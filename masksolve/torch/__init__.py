"""Transposable n:m masks in PyTorch training: built on PyTorch alone, of which nothing is patched.

This package is the only place of masksolve that imports torch.
"""

from ..errors import MissingDependencyError as _MissingDependencyError

try:
    import torch as _torch  # noqa: F401
except ImportError as _error:
    raise _MissingDependencyError(
        f'masksolve.torch needs the package torch: pip install "masksolve[torch]" ({_error})'
    ) from _error

from .conversion import ConversionReport, LayerConversion, convert_unstructured
from .gated import GEGLU, SwiGLU, geglu, swiglu
from .layers import MaskedLayer, masked_layers
from .layout import Layout
from .masking import Masked
from .models import (
    LayerCheck,
    ParameterReport,
    SparsifyReport,
    check_same_masks,
    check_sparsity,
    desparsify,
    sparsify,
)
from .mvue import MVUELinear, mvue_2_4, mvue_2_4_outcomes, mvue_linear
from .on_device import DeviceSolution, find_masked_weight, solve_on_device
from .reconstruction import LayerReconstruction, ReconstructionReport, reconstruct
from .search import TensorSolution, find_mask, solve
from .semi_structured import LayerExecution, SparseLinear, execution_report
from .training import MaskUpdate, SparseTraining
from .tuning import DecayRun, DecaySearch, tune_decay

__all__ = [
    "GEGLU",
    "ConversionReport",
    "DecayRun",
    "DecaySearch",
    "DeviceSolution",
    "LayerCheck",
    "LayerConversion",
    "LayerExecution",
    "LayerReconstruction",
    "Layout",
    "MVUELinear",
    "MaskUpdate",
    "Masked",
    "MaskedLayer",
    "ParameterReport",
    "ReconstructionReport",
    "SparseLinear",
    "SparseTraining",
    "SparsifyReport",
    "SwiGLU",
    "TensorSolution",
    "check_same_masks",
    "check_sparsity",
    "convert_unstructured",
    "desparsify",
    "execution_report",
    "find_mask",
    "find_masked_weight",
    "geglu",
    "masked_layers",
    "mvue_2_4",
    "mvue_2_4_outcomes",
    "mvue_linear",
    "reconstruct",
    "solve",
    "solve_on_device",
    "sparsify",
    "swiglu",
    "tune_decay",
]
