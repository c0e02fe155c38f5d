"""Gated activations, GEGLU and SwiGLU: one kernel each way on CUDA, PyTorch's operators elsewhere.

To autograd and ``torch.compile`` the kernels are two opaque operators, not ``triton_op``: what tile
they take and how they lay out what they write depends on strides, which an operator decides from the
tensors that it gets, and there is nothing to fuse them with between two matrix products.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual
from torch.nn import functional

from ..errors import DtypeError, OptionError, ShapeError
from .transforms import is_transformed

__all__ = ["GEGLU", "Approximate", "SwiGLU", "geglu", "swiglu"]

#: GELU itself, or its approximation by tanh; as in `torch.nn.functional.gelu`.
Approximate = Literal["none", "tanh"]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "silu": functional.silu,
}
#: What comes out times the derivative of an activation, of that and of what went in.
_DERIVATIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gelu": torch.ops.aten.gelu_backward,
    "gelu_tanh": partial(torch.ops.aten.gelu_backward, approximate="tanh"),
    "silu": torch.ops.aten.silu_backward,
}
_KERNEL_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_KERNEL_DEVICES = ("cuda",)
_HAS_TRITON = find_spec("triton") is not None
#: Devices and dtypes for which Triton could not compile the kernels.
_WITHOUT_KERNELS: set[tuple[torch.device, torch.dtype]] = set()


def geglu(x: Tensor, value: Tensor | None = None, *, approximate: Approximate = "none") -> Tensor:
    r"""Multiply values by the GELU of their gates.

    .. math:: y = \operatorname{GELU}(g) \odot v \qquad \operatorname{GELU}(g) =
        \frac g2 \left(1 + \operatorname{erf} \frac g{\sqrt2}\right) \approx
        \frac g2 \left(1 + \tanh\!\left(\sqrt{2/\pi}\,(g + 0.044715\,g^3)\right)\right)

    Parameters
    ----------
    x : (..., 2d) Tensor, floating point
        The gates g in the first half of the last dimension, the values v in the second; or, if
        `value` is given, the gates alone, (..., d).
    value : (..., d) Tensor, optional
        The values v, of the shape and dtype of `x`.
    approximate : {"none", "tanh"}
        GELU itself, or its approximation.

    Returns
    -------
    (..., d) Tensor
        Of the dtype of `x`, under autocast too, as of `torch.nn.functional.gelu`. Gradients of
        gradients and the transforms of ``torch.func`` are those of PyTorch's operators.

    Raises
    ------
    ShapeError
        The last dimension of `x` is odd, or gates and values differ in shape.
    DtypeError
        The tensors are not of one floating-point dtype.
    OptionError
        There is no such approximation.

    Notes
    -----
    *Halves.* Shazeer writes the activated factor first, and so do ONNX, vLLM and FlashInfer;
    `torch.nn.functional.glu` and Diffusers activate the second half. For weights trained so:
    ``v, g = x.chunk(2, -1)`` and ``geglu(g, v)``.

    *On CUDA*, with Triton, in float16, bfloat16, float32 and float64, forward and backward are one
    pass over memory each: 2d entries read and d written, 3d read and 2d written. Arithmetic is in
    float32 (float64 for float64), rounded once at the end, where PyTorch rounds the activation as
    well. The kernels walk whichever dimension is contiguous, the first of a transposed matrix such as
    a 2:4 sparse product returns, and the output has the layout of `x`, gradients that of what they
    are the gradients of. Only leading dimensions that cannot be viewed as one are copied. Where Triton
    cannot compile them (it finds no C compiler, or does not know the GPU), one warning for each
    device and dtype says why, and PyTorch's operators compute the same.

    References
    ----------
    Shazeer, *GLU Variants Improve Transformer*, arXiv 2002.05202. Hendrycks and Gimpel, *Gaussian
    Error Linear Units*, arXiv 1606.08415. Hu et al., *Accelerating Transformer Pre-training with 2:4
    Sparsity*, ICML 2024, arXiv 2404.01847: why the layout matters.

    Examples
    --------
    >>> x = torch.tensor([[0.0, 1.0, -1.0, 5.0, 2.0, 10.0]])
    >>> geglu(x)
    tensor([[ 0.0000,  1.6827, -1.5866]])
    >>> gate, value = x.chunk(2, -1)
    >>> geglu(gate, value, approximate="tanh")
    tensor([[ 0.0000,  1.6824, -1.5881]])
    """
    _check_approximate(approximate)
    return _gated(x, value, "gelu" if approximate == "none" else "gelu_tanh")


def swiglu(x: Tensor, value: Tensor | None = None) -> Tensor:
    r"""Multiply values by the SiLU of their gates.

    .. math:: y = \operatorname{SiLU}(g) \odot v \qquad
        \operatorname{SiLU}(g) = \frac g{1 + e^{-g}}

    Parameters
    ----------
    x, value
        As in `geglu`, whose notes hold here as well.

    Returns
    -------
    (..., d) Tensor
        As of `geglu`.

    Raises
    ------
    ShapeError, DtypeError
        As of `geglu`.

    References
    ----------
    Shazeer, *GLU Variants Improve Transformer*, arXiv 2002.05202, with β = 1.

    Examples
    --------
    >>> swiglu(torch.tensor([[0.0, 1.0, -1.0, 5.0, 2.0, 10.0]]))
    tensor([[ 0.0000,  1.4621, -2.6894]])
    """
    return _gated(x, value, "silu")


class GEGLU(nn.Module):
    """`geglu` as a module, between the two linear layers of a feed-forward block.

    Parameters
    ----------
    approximate : {"none", "tanh"}
        As in `geglu`.

    Raises
    ------
    OptionError
        There is no such approximation.

    Examples
    --------
    >>> nn.Sequential(nn.Linear(8, 2 * 16), GEGLU(), nn.Linear(16, 8))(torch.randn(3, 8)).shape
    torch.Size([3, 8])
    """

    def __init__(self, approximate: Approximate = "none") -> None:
        super().__init__()
        _check_approximate(approximate)
        self.approximate: Approximate = approximate

    def forward(self, x: Tensor, value: Tensor | None = None) -> Tensor:
        """Return what `geglu` returns."""
        return geglu(x, value, approximate=self.approximate)

    def extra_repr(self) -> str:
        """Return what `repr` shows of this layer."""
        return f"approximate={self.approximate!r}"


class SwiGLU(nn.Module):
    """`swiglu` as a module, between the two linear layers of a feed-forward block.

    Examples
    --------
    >>> nn.Sequential(nn.Linear(8, 2 * 16), SwiGLU(), nn.Linear(16, 8))(torch.randn(3, 8)).shape
    torch.Size([3, 8])
    """

    def forward(self, x: Tensor, value: Tensor | None = None) -> Tensor:
        """Return what `swiglu` returns."""
        return swiglu(x, value)


def _check_approximate(approximate: str) -> None:
    if approximate not in get_args(Approximate):
        raise OptionError(
            f"approximate must be one of {', '.join(get_args(Approximate))}, got {approximate!r}"
        )


def _gated(x: Tensor, value: Tensor | None, activation: str) -> Tensor:
    _check(x, value)
    if not _has_kernel(x, value):
        return _eager(x, value, activation=activation)
    gates = x.shape if value is not None else (*x.shape[:-1], x.shape[-1] // 2)
    output: Tensor = _Gated.apply(  # type: ignore[no-untyped-call]
        _matrix(x), None if value is None else _matrix(value), activation
    )
    return output.view(gates)


def _check(x: Tensor, value: Tensor | None) -> None:
    if not x.is_floating_point() or (value is not None and value.dtype != x.dtype):
        given = x.dtype if value is None else f"{x.dtype} and {value.dtype}"
        raise DtypeError(
            f"gates and values must be of one floating-point dtype, got {given}; convert them,"
            " for instance with .float()"
        )
    if value is None and (x.ndim == 0 or x.shape[-1] % 2):
        raise ShapeError(
            "the last dimension of x must hold gates and as many values, got shape"
            f" {tuple(x.shape)}; give the values as a second tensor, or an even number of entries"
        )
    if value is not None and value.shape != x.shape:
        raise ShapeError(
            "gates and values must have the same shape, got"
            f" {tuple(x.shape)} and {tuple(value.shape)}; expand the smaller"
        )


def _has_kernel(x: Tensor, value: Tensor | None) -> bool:
    """Whether the kernels take the tensors: plain ones, and under none of PyTorch's transforms."""
    # Asked as PyTorch's own FSDP does, for want of a public way.
    if not _HAS_TRITON or is_transformed():
        return False
    return all(
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.device.type in _KERNEL_DEVICES
        and tensor.device == x.device
        and tensor.dtype in _KERNEL_DTYPES
        and unpack_dual(tensor).tangent is None  # type: ignore[no-untyped-call]
        for tensor in ((x,) if value is None else (x, value))
    )


def _eager(x: Tensor, value: Tensor | None = None, *, activation: str) -> Tensor:
    gate, value = _halves(x, value)
    return _ACTIVATIONS[activation](gate) * value


def _halves(x: Tensor, value: Tensor | None = None) -> Sequence[Tensor]:
    """Gates and values."""
    return x.chunk(2, -1) if value is None else (x, value)


def _matrix(tensor: Tensor) -> Tensor:
    """All leading dimensions as one: a view if their strides allow it."""
    return tensor.reshape(math.prod(tensor.shape[:-1]), tensor.shape[-1])


class _Gated(torch.autograd.Function):
    """The kernels, on matrices; PyTorch's operators where gradients are differentiated again."""

    @staticmethod
    def forward(x: Tensor, value: Tensor | None, activation: str) -> Tensor:
        output: Tensor = _forward(x, value, activation)
        return output

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        *tensors, ctx.activation = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, value = ctx.saved_tensors
        if torch.is_grad_enabled():
            formula = partial(_eager, activation=ctx.activation)
            inputs = (x,) if value is None else (x, value)
            gradients = torch.func.vjp(formula, *inputs)[1](gradient)
        else:
            gradients = _backward(gradient, x, value, ctx.activation)
        return *gradients, *[None] * (3 - len(gradients))


@torch.library.custom_op("masksolve::gated", mutates_args=())
def _forward(x: Tensor, value: Tensor | None, activation: str) -> Tensor:
    gate, value = _halves(x, value)
    output = _empty_like(gate)
    if not _launched("forward", gate, value, output, activation=activation):
        output.copy_(_ACTIVATIONS[activation](gate) * value)
    return output


@_forward.register_fake
def _(x: Tensor, value: Tensor | None, activation: str) -> Tensor:  # noqa: ARG001
    return _empty_like(_halves(x, value)[0])


@torch.library.custom_op(
    "masksolve::gated_backward",
    mutates_args=(),
    schema="(Tensor gradient, Tensor x, Tensor? value, str activation) -> Tensor[]",
)
def _backward(gradient: Tensor, x: Tensor, value: Tensor | None, activation: str) -> list[Tensor]:
    gradients = [_empty_like(tensor) for tensor in (x, value) if tensor is not None]
    gate, value = _halves(x, value)
    of_gate, of_value = _halves(*gradients)
    if not _launched("backward", gradient, gate, value, of_gate, of_value, activation=activation):
        of_gate.copy_(_DERIVATIVES[activation](gradient * value, gate))
        of_value.copy_(gradient * _ACTIVATIONS[activation](gate))
    return gradients


@_backward.register_fake
def _(gradient: Tensor, x: Tensor, value: Tensor | None, activation: str) -> list[Tensor]:  # noqa: ARG001
    return [_empty_like(tensor) for tensor in (x, value) if tensor is not None]


def _launched(kernel: str, *tensors: Tensor, activation: str) -> bool:
    """Whether a kernel writes what it is to write: not if Triton could not compile it before."""
    place = tensors[0].device, tensors[0].dtype
    if place in _WITHOUT_KERNELS:
        return False
    try:
        # Imported here: a Triton that is there, but broken, fails at that.
        launchers = import_module(".gpu.gated", __package__)
        getattr(launchers, kernel)(*tensors, activation=activation)
    except (TypeError, ValueError):  # wrong arguments
        raise
    except Exception as error:  # of a compiler there are all kinds
        # Not for good: memory that is short, or a graph in whose capture nothing can be compiled.
        if any(words in str(error) for words in ("out of memory", "captur")):
            raise
        warnings.warn(
            f"geglu and swiglu are computed by PyTorch's operators, in more passes over memory, in "
            f"{place[1]} on {str(place[0])!r}, where Triton fails (said once): "
            f"{type(error).__name__}: {error}",
            UserWarning,
            stacklevel=2,
        )
        _WITHOUT_KERNELS.add(place)
        return False
    return True


def _empty_like(matrix: Tensor) -> Tensor:
    """Dense and of the same layout; ``torch.empty_like`` is row-major unless that of halves is dense."""
    if matrix.stride(0) == 1 != matrix.stride(1):
        return matrix.new_empty(matrix.shape[::-1]).T
    return matrix.new_empty(matrix.shape)
