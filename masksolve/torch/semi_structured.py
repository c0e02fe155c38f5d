"""Sparse execution: 2:4 linear layers whose products run on sparse tensor cores.

PyTorch's operators for semi-structured matrices are called as they are, in `KERNELS` below and
nowhere else: not by the tensor subclass around them, which is a prototype, warns so, and copies what
comes out column-major. Which layer runs so is decided at every call by one function,
`_choose`, and `execution_report` asks the same one.
"""

from __future__ import annotations

import functools
import statistics
import warnings
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.optim.optimizer import register_optimizer_step_post_hook

from ..errors import OptionError, UnsupportedError
from ..pattern import Pattern, as_integer
from . import mvue
from .layers import find_masked, some_masked
from .masking import Masked, keep, passed_on
from .mvue import Estimator, MVUELinear, estimate_tokens, mvue_linear
from .transforms import is_transformed

__all__ = [
    "Execution",
    "LayerExecution",
    "SparseLinear",
    "as_sparse_linear",
    "check_execution",
    "execution_report",
    "plain_class",
    "why_not_sparse",
]

#: How masked layers compute: with zeros as with any numbers, or by sparse products where these pay.
Execution = Literal["masked", "sparse"]

_DEVICES = ("cuda",)
_TIMED = ("cuda",)
_TIMED_TOKENS = 4096
_DTYPES = (torch.float16, torch.bfloat16)
_CAPABILITY = (8, 0)

#: Tokens of a trial: a multiple of 64, as kernels want them to compress a matrix.
_TRIAL_TOKENS = 128


# ---- the only place that calls PyTorch's kernels


class _Kernels(Protocol):
    """Operators that belong together: what one of them packs, another multiplies by."""

    #: Both sizes of a matrix to pack are multiples of it.
    multiple: int

    def pack(self, matrix: Tensor) -> list[Tensor]:
        """Pack a matrix with at most two non-zeros in four along rows and columns.

        The first half of the list is the packed matrix, the second half its packed transpose.
        """

    def compress(self, matrix: Tensor) -> list[Tensor]:
        """Pack a contiguous matrix with at most two non-zeros in four along its rows."""

    def multiply(self, packed: Sequence[Tensor], rows: Tensor, bias: Tensor | None) -> Tensor:
        """Return rows · Aᵀ + bias, with A packed; the number of rows is a multiple of 8."""

    def is_transposed(self, rows: Tensor) -> bool:
        """Whether `multiply` returns a column-major matrix for them."""


class _Cutlass:
    """By CUTLASS, on compute capability 8.x: PyTorch's kernels refuse later ones."""

    multiple = 64  # a warp packs 32×64, in both directions

    def pack(self, matrix: Tensor) -> list[Tensor]:
        packed, meta, packed_t, meta_t, _ = _tile(matrix, use_cutlass=True)
        return [packed, _as_matrix(meta), packed_t, _as_matrix(meta_t)]

    def compress(self, matrix: Tensor) -> list[Tensor]:
        from torch.sparse import _semi_structured_conversions as conversions

        return list(conversions.sparse_semi_structured_from_dense_cutlass(matrix))  # type: ignore[no-untyped-call]

    def multiply(self, packed: Sequence[Tensor], rows: Tensor, bias: Tensor | None) -> Tensor:
        values, meta = packed
        columns = _without_gaps(rows).T
        if bias is None:
            return torch._sparse_semi_structured_mm(values, meta, columns).T
        return torch._sparse_semi_structured_addmm(bias, values, meta, columns).T

    def is_transposed(self, rows: Tensor) -> bool:  # noqa: ARG002
        return True


class _CuSparseLt:
    """By cuSPARSELt, of which a packed matrix is one tensor."""

    def __init__(self, *, tiled: bool) -> None:
        # Packed by PyTorch's own kernel, both directions at once, in a layout that was found out on
        # compute capability 8.x; or by cuSPARSELt itself, one direction after the other.
        self.tiled = tiled
        self.multiple = 128 if tiled else 16

    def pack(self, matrix: Tensor) -> list[Tensor]:
        if not self.tiled:
            return [*self.compress(matrix), *self.compress(matrix.T.contiguous())]
        packed, _, packed_t, _, _ = _tile(matrix, use_cutlass=False)
        return [packed.view(matrix.shape[0], -1), packed_t.view(matrix.shape[1], -1)]

    def compress(self, matrix: Tensor) -> list[Tensor]:
        return [torch._cslt_compress(matrix).view(matrix.shape[0], -1)]

    def multiply(self, packed: Sequence[Tensor], rows: Tensor, bias: Tensor | None) -> Tensor:
        rows = _without_gaps(rows)
        transposed = self.is_transposed(rows)
        product = torch._cslt_sparse_mm(
            packed[0], rows.T, bias=bias, transpose_result=not transposed
        )
        return product.T if transposed else product

    def is_transposed(self, rows: Tensor) -> bool:
        return not rows.is_contiguous() and rows.T.is_contiguous()


def _tile(matrix: Tensor, *, use_cutlass: bool) -> tuple[Tensor, ...]:
    # In every 4×4 tile it takes entries in the order of their size, at most two a line. Here all
    # that are not 0 have room, whatever the order among them. By default it ranks signed values:
    # there zeros come before what is negative, and take its place.
    return torch._sparse_semi_structured_tile(
        matrix, algorithm="largest_abs_values_greedy", use_cutlass=use_cutlass
    )


def _as_matrix(meta: Tensor) -> Tensor:
    """View what the tile kernel returns, (rows, 2, n), as `compress` does: the memory is the same."""
    return meta.permute(2, 0, 1).reshape(meta.shape[0], -1)


def _without_gaps(rows: Tensor) -> Tensor:
    """Return rows as the kernels read them: row- or column-major, at a multiple of 16 bytes."""
    if not (rows.is_contiguous() or rows.T.is_contiguous()):
        rows = rows.contiguous()
    return rows.clone() if rows.data_ptr() % 16 else rows


#: Of those that are right for a size, the fastest is taken: on devices in `_TIMED`, where that is measured.
KERNELS: dict[str, _Kernels] = {
    "cusparselt": _CuSparseLt(tiled=True),
    "cusparselt_compress": _CuSparseLt(tiled=False),
    "cutlass": _Cutlass(),
}


@functools.cache
def _fault(
    kernels: str, device: torch.device, dtype: torch.dtype, outputs: int, inputs: int
) -> str:
    """Say what is wrong with kernels for weights of a size on a device; empty if they are right.

    Layouts of packed matrices differ from one generation to the next, and what a kernel takes from
    one size to the next, so each kind of product is computed once in every process before one is
    relied upon. Verdicts are kept; what is raised is none, and the next call tries again.
    """
    if _is_capturing():
        raise UnsupportedError(
            f"{kernels} has not been tried yet on weights of {outputs}×{inputs} in {dtype}, and "
            f"cannot be while a CUDA graph is captured; call the model once before the capture"
        )
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < _CAPABILITY:
        major, minor = torch.cuda.get_device_capability(device)
        return f"compute capability {major}.{minor} has no sparse tensor cores, 8.0 and later do"
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            right = _computes_right(KERNELS[kernels], device, dtype, outputs, inputs)
            if right:
                _layouts(kernels, device, dtype, outputs, inputs)
    except (RuntimeError, AttributeError) as error:
        if _is_out_of_memory(error):
            raise
        message, *_ = str(error).split("\n")
        return f"{kernels} fails there: {message}"
    return "" if right else f"{kernels} computes wrong products of {outputs}×{inputs} weights there"


def _computes_right(
    engine: _Kernels, device: torch.device, dtype: torch.dtype, outputs: int, inputs: int
) -> bool:
    """Whether kernels compute each kind of product of a layer to the last bit, in integers."""
    generator = torch.Generator(device).manual_seed(0)

    def draw(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(
            low, high + 1, shape, dtype=torch.int8, device=device, generator=generator
        )

    def sign(*shape: int) -> Tensor:
        return draw(0, 1, *shape) * 2 - 1

    def sparse(rows: int, columns: int) -> Tensor:
        lines = torch.arange(4, dtype=torch.int8, device=device)
        shifts = draw(0, 3, rows // 4, 1, columns // 4, 1)
        kept = (lines[:, None, None] - lines - shifts) % 4 < 2
        return (kept.view(rows, columns) * sign(rows, columns) * draw(1, 2, rows, columns)).float()

    def tokens(features: int) -> Tensor:
        # Every feature in one token: each weight counts, and sums stay integers of 16-bit dtypes.
        place = torch.arange(features, device=device) % _TRIAL_TOKENS
        mine = place == torch.arange(_TRIAL_TOKENS, device=device)[:, None]
        return (mine * sign(features)).float()

    def product(packed: Sequence[Tensor], rows: Tensor, bias: Tensor | None = None) -> Tensor:
        found = engine.multiply(packed, rows, None if bias is None else bias.to(dtype))
        return found.float()

    # Sums of so small integers are exact in float32, by TF32 and by bfloat16 alike.
    weight, estimate = sparse(outputs, inputs), sparse(outputs, _TRIAL_TOKENS)
    bias = draw(-1, 1, outputs).float()
    rows, gradient = tokens(inputs), tokens(outputs)
    forward, backward = rows @ weight.T, gradient @ weight
    by_rows, of_rows = rows.to(dtype), gradient.to(dtype)
    by_columns, of_columns = (each.T.contiguous().T for each in (by_rows, of_rows))
    packed = engine.pack(weight.to(dtype))
    there, back = packed[: len(packed) // 2], packed[len(packed) // 2 :]
    compressed = engine.compress(estimate.to(dtype))
    return (
        torch.equal(product(there, by_rows, bias), forward + bias)
        and torch.equal(product(there, by_columns), forward)
        and torch.equal(product(back, of_rows), backward)
        and torch.equal(product(back, of_columns), backward)
        and torch.equal(product(compressed, by_rows.T), rows.T @ estimate.T)
    )


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory was short, in the words of PyTorch, CUDA or cuSPARSE: another time it may do."""
    said = str(error).lower()
    words = ("out of memory", "allocation failed", "alloc_failed", "insufficient resources")
    return isinstance(error, torch.OutOfMemoryError) or any(word in said for word in words)


def _is_capturing() -> bool:
    """Whether a CUDA graph records what is called, to replay it later."""
    in_use: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return in_use and torch.cuda.is_current_stream_capturing()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _constant_fault(
    kernels: str, device: torch.device, dtype: torch.dtype, outputs: int, inputs: int
) -> str:
    return _fault(kernels, device, dtype, outputs, inputs)


@functools.cache
def _fastest(
    right: tuple[str, ...], device: torch.device, dtype: torch.dtype, outputs: int, inputs: int
) -> str:
    """Name the fastest of kernels for weights of a size, by products forward and back, once a process.

    Packing is left out: it is done once a step. (In compiled models and CUDA graphs, once a call.)
    """
    if len(right) == 1 or device.type not in _TIMED:
        return right[0]
    times = {name: _milliseconds(KERNELS[name], device, dtype, outputs, inputs) for name in right}
    return min(right, key=times.__getitem__)


def _milliseconds(
    engine: _Kernels, device: torch.device, dtype: torch.dtype, outputs: int, inputs: int
) -> float:
    """Median time of a product forward and one back, for `_TIMED_TOKENS` tokens."""
    with torch.no_grad(), torch.cuda.device(device):
        packed = engine.pack(torch.zeros(outputs, inputs, dtype=dtype, device=device))
        half = len(packed) // 2
        rows = torch.zeros(_TIMED_TOKENS, inputs, dtype=dtype, device=device)
        gradient = torch.zeros(_TIMED_TOKENS, outputs, dtype=dtype, device=device)
        events = []
        for _ in range(8):  # the first are to warm up
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            begin.record()
            engine.multiply(packed[:half], rows, None)
            engine.multiply(packed[half:], gradient, None)
            end.record()
            events.append((begin, end))
        end.synchronize()
    return statistics.median(float(begin.elapsed_time(end)) for begin, end in events[3:])


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _constant_fastest(
    right: tuple[str, ...], device: torch.device, dtype: torch.dtype, outputs: int, inputs: int
) -> str:
    if _is_capturing():  # which waits for nothing
        return right[0]
    try:
        return _fastest(right, device, dtype, outputs, inputs)
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        return right[0]  # right all the same; the next call measures


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _warn_of_rejection(why: str) -> None:
    """Say once for a reason that no kernels are used, which is slower than was asked for."""
    _warn_once(f"layers with execution='sparse' compute with the masked weight instead: {why}")


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=2)


# ---- products and gradients


def _multiply(
    kernels: str, weight: Sequence[Tensor], rows: Tensor, bias: Tensor | None, outputs: int
) -> Tensor:
    """Return rows · Aᵀ + bias for a packed A of so many rows."""
    tokens, rows = len(rows), _padded(rows, 8)
    if torch.compiler.is_compiling():
        product: Tensor = _packed_product(weight, rows, bias, outputs, kernels)
    else:
        product = KERNELS[kernels].multiply(weight, rows, bias)
    return product[:tokens]


def _padded(rows: Tensor, multiple: int) -> Tensor:
    """Return rows with rows of zeros below, to a multiple of so many."""
    missing = -len(rows) % multiple
    return functional.pad(rows, (0, 0, 0, missing)) if missing else rows


# What PyTorch's operators return torch.compile does not know of all; of these it does.


@torch.library.custom_op(
    "masksolve::semi_structured_pack",
    mutates_args=(),
    schema="(Tensor matrix, str kernels) -> Tensor[]",
)
def _packed(matrix: Tensor, kernels: str) -> list[Tensor]:
    return KERNELS[kernels].pack(matrix)


@_packed.register_fake
def _(matrix: Tensor, kernels: str) -> list[Tensor]:
    layouts = _layouts(kernels, matrix.device, matrix.dtype, *map(int, matrix.shape))
    return [
        matrix.new_empty_strided(shape, strides, dtype=dtype) for shape, strides, dtype in layouts
    ]


@functools.cache
def _layouts(
    kernels: str, device: torch.device, dtype: torch.dtype, outputs: int, inputs: int
) -> list[tuple[tuple[int, ...], tuple[int, ...], torch.dtype]]:
    """Say what tensors kernels pack a matrix of that size into: shapes, strides, dtypes.

    Only the kernels know, so one is packed, at their trial, before `torch.compile` asks.
    """
    packed = KERNELS[kernels].pack(torch.zeros(outputs, inputs, dtype=dtype, device=device))
    return [(tuple(each.shape), each.stride(), each.dtype) for each in packed]


@torch.library.custom_op("masksolve::semi_structured_product", mutates_args=())
def _packed_product(
    packed: Sequence[Tensor],
    rows: Tensor,
    bias: Tensor | None,
    outputs: int,  # noqa: ARG001  # for torch.compile, which cannot tell it from what is packed
    kernels: str,
) -> Tensor:
    return KERNELS[kernels].multiply(packed, rows, bias)


@_packed_product.register_fake
def _(
    packed: Sequence[Tensor],  # noqa: ARG001
    rows: Tensor,
    bias: Tensor | None,  # noqa: ARG001
    outputs: int,
    kernels: str,
) -> Tensor:
    return _empty_product(rows, outputs, kernels)


@torch.library.custom_op("masksolve::semi_structured_compressed_product", mutates_args=())
def _compressed_product(matrix: Tensor, rows: Tensor, kernels: str) -> Tensor:
    engine = KERNELS[kernels]
    return engine.multiply(engine.compress(matrix), rows, None)


@_compressed_product.register_fake
def _(matrix: Tensor, rows: Tensor, kernels: str) -> Tensor:
    return _empty_product(rows, len(matrix), kernels)


def _empty_product(rows: Tensor, outputs: int, kernels: str) -> Tensor:
    if KERNELS[kernels].is_transposed(rows):
        return rows.new_empty(outputs, len(rows)).T
    return rows.new_empty(len(rows), outputs)


class _SparseLinear(torch.autograd.Function):
    """By a packed weight; where there is none, it is packed here, forward and again backward.

    Nothing is then kept in between.
    """

    @staticmethod
    def forward(
        input: Tensor,  # noqa: A002
        dense: Tensor,
        bias: Tensor | None,
        mask: Tensor,
        static: bool,  # noqa: ARG004
        decay: float,  # noqa: ARG004
        estimator: Estimator | None,  # noqa: ARG004
        kernels: str,
        there_0: Tensor | None,
        there_1: Tensor | None,
        back_0: Tensor | None,  # noqa: ARG004
        back_1: Tensor | None,  # noqa: ARG004
    ) -> Tensor:
        there = _given(there_0, there_1)
        if len(there) == 0:
            there, _ = _halves(_pack(dense, mask, input.dtype, kernels))
        output = _multiply(kernels, there, _matrix(input), bias, len(dense))
        return _no_view(output.view(*input.shape[:-1], output.shape[-1]))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        input, dense, _, mask, ctx.static, ctx.decay, ctx.estimator, ctx.kernels = inputs[:8]  # noqa: A001
        back = _given(*inputs[10:])
        of_input, of_weight, *_ = ctx.needs_input_grad
        ctx.dtype, ctx.inputs = dense.dtype, dense.shape[1]
        to_pack = of_input and len(back) == 0
        ctx.save_for_backward(
            input if of_weight else None,
            dense if to_pack or (of_weight and ctx.decay) else None,
            mask if to_pack or (of_weight and (ctx.static or ctx.decay)) else None,
            *(back if of_input else ()),
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, dense, mask, *back = ctx.saved_tensors  # noqa: A001
        leading, gradient = gradient.shape[:-1], _matrix(gradient)
        of_input = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            if len(back) == 0:
                _, back = _halves(_pack(dense, mask, gradient.dtype, ctx.kernels))
            product = _multiply(ctx.kernels, back, gradient, None, ctx.inputs)
            of_input = product.view(*leading, product.shape[-1])
        if ctx.needs_input_grad[1]:
            tokens = _matrix(input)
            if ctx.estimator is None:
                of_weight = gradient.T @ tokens
            else:
                # To compress a matrix, all kernels take multiples of 64.
                estimate = _padded(estimate_tokens(gradient, ctx.estimator), 64)
                columns = _padded(tokens, 64).T
                of_weight = _compressed_product(estimate.T.contiguous(), columns, ctx.kernels).T
            of_weight = passed_on(of_weight.to(ctx.dtype), dense, mask, ctx.static, ctx.decay)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum(0)
        return of_input, of_weight, of_bias, *[None] * (len(ctx.needs_input_grad) - 3)


def _halves(weight: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Split a weight packed in both directions: what multiplies forward, and what multiplies back."""
    half = len(weight) // 2
    return tuple(weight[:half]), tuple(weight[half:])


def _four(weight: Sequence[Tensor]) -> list[Tensor | None]:
    """Two tensors each way, None for those that there are not: torch.compile counts arguments."""
    return [(*half, None, None)[k] for half in _halves(weight) for k in range(2)]


def _given(*tensors: Tensor | None) -> tuple[Tensor, ...]:
    return tuple(tensor for tensor in tensors if tensor is not None)


def _matrix(tensor: Tensor) -> Tensor:
    """All leading dimensions as one: a view if strides allow it."""
    return tensor.reshape(-1, tensor.shape[-1])


def _no_view(tensor: Tensor) -> Tensor:
    """Return the same memory as a tensor that may be written to: autograd refuses views made here."""
    if torch.compiler.is_compiling():  # which has its own account of memory
        return tensor
    place = tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride()
    return tensor.new_empty(0).set_(*place)


# ---- packed once a step


@dataclass
class _Steps:
    """The steps of all optimizers: how many there were, and whether a CUDA graph holds one."""

    count: int = 0
    captured: bool = False

    def __call__(self, *_: Any) -> None:
        self.count += 1
        self.captured |= _is_capturing()


@functools.cache
def _steps() -> _Steps:
    """Return those of this process, from the first call on."""
    steps = _Steps()
    register_optimizer_step_post_hook(steps)
    return steps


class _Packed:
    """A weight as it was packed last, and what it was packed from.

    Versions tell of writes that autograd sees, the count of steps of optimizers that write
    past it (by ``.data``, or by kernels of their own). Neither tells of what a CUDA graph writes when
    it is replayed: once it may hold this layer or an optimizer, nothing is kept. A copy is empty.
    """

    _last: tuple[tuple[weakref.ref[Tensor], ...], tuple[Any, ...], tuple[Tensor, ...]]

    def __init__(self) -> None:
        self._captured = False
        self.clear()

    def __reduce__(self) -> tuple[type[_Packed], tuple[()]]:
        return _Packed, ()

    def get(
        self, dense: Tensor, mask: Tensor, dtype: torch.dtype, kernels: str
    ) -> tuple[Tensor, ...]:
        """Return the masked weight packed in both directions, anew if anything has changed."""
        self._captured |= _is_capturing()
        steps = _steps()
        # Of inference tensors nobody counts versions.
        if self._captured or steps.captured or dense.is_inference() or mask.is_inference():
            self.clear()
            return _pack(dense, mask, dtype, kernels)
        made_from = dense, mask
        key = (
            *((tensor._version, tensor.data_ptr()) for tensor in made_from),
            *(dtype, dense.device, kernels, steps.count),
        )
        refs, old, packed = self._last
        same = all(ref() is tensor for ref, tensor in zip(refs, made_from, strict=False))
        if key != old or not same:
            packed = _pack(dense, mask, dtype, kernels)
            self._last = tuple(map(weakref.ref, made_from)), key, packed
        return packed

    def clear(self) -> None:
        """Forget it."""
        self._last = (), (), ()


def _pack(dense: Tensor, mask: Tensor, dtype: torch.dtype, kernels: str) -> tuple[Tensor, ...]:
    if torch.compiler.is_compiling():
        return tuple(_packed(_masked(dense, mask, dtype), kernels))
    # Not as inference tensors, which a later backward pass could not save.
    with torch.inference_mode(dense.is_inference()), torch.no_grad():
        return tuple(KERNELS[kernels].pack(_masked(dense, mask, dtype)))


def _masked(dense: Tensor, mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the matrix to pack: the masked weight, infinite where that is NaN.

    Kernels put entries in order to pack them, and NaN has no place in an order: it could vanish, or
    take others with it. Infinity is the largest, is packed, and no product with it is finite.
    """
    masked = keep(dense.detach(), mask).to(dtype).contiguous()
    return masked.nan_to_num_(torch.inf, torch.inf, -torch.inf)


def _keeps_no_pack(layer: nn.Module) -> bool:
    """Whether FSDP frees the weight between calls: the pack of a whole weight would outlive it."""
    # Asked as torch.compile does, for want of a public way: in a forward pass the weight is whole.
    return bool(vars(layer).get("_is_fsdp_managed_module"))


# ---- layers


class SparseLinear(nn.Linear):
    r"""A masked `torch.nn.Linear` that computes by sparse products where these pay.

    .. math:: Z = X W^T + b \qquad \nabla X = \nabla Z \, W \qquad \nabla W = \nabla Z^T X

    W is the masked weight, at most two of every four entries along rows and columns. The first two
    products are sparse; the third is if the layer has a weight gradient by MVUE, else it is
    dense. `masksolve.torch.sparsify` makes layers of this class, in place, with ``execution="sparse"``.

    Attributes
    ----------
    least_products : int
        The least tokens × inputs × outputs of a call that runs sparse, 2³² at first: 4096 tokens
        through 1024 × 1024. A guess: it has not been measured yet.
    kernels : sequence of str
        Those of PyTorch that may be used; of those that are right for its size the one that is
        fastest at 4096 tokens is. ``"cusparselt"`` packs both directions at once (sizes are
        multiples of 128), ``"cusparselt_compress"`` one after the other (of 16), ``"cutlass"`` both
        at once, on compute capability 8.x alone (of 64).
    estimator : {"exact", "approximate"} or None
        Of the weight gradient, as in `masksolve.torch.mvue_2_4`; None is dense.
    in_graphs : bool
        Whether ``torch.compile`` takes the layer into its graphs, True at first. If not, a graph ends
        before the layer, and micro-batches share its packing as they do without ``torch.compile``.

    Notes
    -----
    *When.* A call runs sparse on CUDA with compute capability 8.0 or later, in float16 or bfloat16
    (under autocast, in its dtype), if it is large enough and kernels take the sizes of
    the weight. Kernels are first tried on a product of each kind, once in every process for each
    size of a weight: those that do not compute it to the last bit on this device are not used. If
    none are left, one warning says why. All other calls compute the same with the masked weight,
    and `execution_report` says why. While ``masked.dense`` is True the layer is dense.

    *Once a step.* A packed weight is used again until the weight, the mask, dtype or device
    changes or an optimizer takes a step, so micro-batches share it. Only what is written by
    ``weight.data`` outside an optimizer goes unseen, as it does by PyTorch: call `repack` then. It is
    in no state dict, is not copied, and takes 2.25 bytes for each weight. Under FSDP, which frees
    weights between calls, nothing is kept (but what a compiled call packs, until it has gone back):
    each call packs forward, and again backward.

    *Graphs.* Within ``torch.compile`` and CUDA graphs nothing is kept from one call to the next: each
    call packs the weight once, for its forward and its backward pass (see `in_graphs`). Nor is anything kept ever again
    once a CUDA graph holds the layer or an optimizer's step: replays change weights unseen. Gradients
    of gradients are refused, and under transforms of ``torch.func`` the layer is masked-dense.

    *NaN.* A weight that is NaN is packed as infinity, which kernels cannot lose: the outputs
    that it reaches are not finite, as those of a masked-dense layer.

    *Layout.* The output of ``"cutlass"`` is column-major, that of the others has the layout of the
    input. `masksolve.torch.geglu` and `masksolve.torch.swiglu` walk either.
    """

    estimator: Estimator | None = None
    in_graphs: bool = True
    least_products: int = 2**32
    kernels: Sequence[str] = tuple(KERNELS)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._packed = _Packed()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Return X Wᵀ + b."""
        if torch.compiler.is_compiling() and not self.in_graphs:
            outside: Tensor = self._call_outside(input)
            return outside
        return self._call(input)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _call_outside(self, input: Tensor) -> Tensor:  # noqa: A002
        return self._call(input)

    def _call(self, input: Tensor) -> Tensor:  # noqa: A002
        masked = find_masked(self)
        if masked is not None and masked.dense:
            return functional.linear(input, self.weight, self.bias)
        dtype = _dtype_of(input)
        kernels, why = _choose(
            self, masked, dtype, input.device, _tokens_of(input, self), warn=True
        )
        if why or masked is None or type(input) not in (Tensor, nn.Parameter):
            if self.estimator is None:
                return functional.linear(input, self.weight, self.bias)
            return mvue_linear(input, self.weight, self.bias, self.estimator)
        dense = _dense_weight(self)
        if torch.compiler.is_compiling():
            weight = _pack(dense, masked.mask, dtype, kernels)
        elif _keeps_no_pack(self):
            weight = ()
        else:
            weight = self._packed.get(dense, masked.mask, dtype, kernels)
        bias = None if self.bias is None else self.bias.to(dtype)
        output: Tensor = _SparseLinear.apply(  # type: ignore[no-untyped-call]
            input.to(dtype), dense, bias, masked.mask, masked.gradient == "static", masked.decay,
            self.estimator, kernels, *_four(weight),
        )  # fmt: skip
        return output

    def repack(self) -> None:
        """Forget the packed weight; the next call packs it anew."""
        self._packed.clear()

    def extra_repr(self) -> str:
        """Return what `repr` shows of this layer."""
        estimator = f", estimator={self.estimator}" if self.estimator else ""
        return f"{super().extra_repr()}{estimator}"

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        self.repack()
        super()._load_from_state_dict(*args, **options)


def _parametrizations(layer: SparseLinear) -> Any:
    return layer.parametrizations.weight  # type: ignore[union-attr]


def _dense_weight(layer: SparseLinear) -> Tensor:
    weight: Tensor = _parametrizations(layer).original
    return weight


def _dtype_of(input: Tensor) -> torch.dtype:  # noqa: A002
    """Return the dtype that a linear layer computes in."""
    kind = input.device.type
    if torch.is_autocast_enabled(kind) and input.dtype != torch.float64:
        return torch.get_autocast_dtype(kind)
    return input.dtype


def _tokens_of(input: Tensor, layer: SparseLinear) -> int:  # noqa: A002
    fits = input.ndim > 0 and input.shape[-1] == layer.in_features
    return input.numel() // layer.in_features if fits else 0


def _choose(
    layer: SparseLinear,
    masked: Masked | None,
    dtype: torch.dtype,
    device: torch.device,
    tokens: int | None,
    *,
    warn: bool = False,
) -> tuple[str, str]:
    """Return the kernels for a call; or why it is not sparse. None tokens are many.

    That no kernels are right is no choice of the caller's: it is warned of if asked for.
    """
    if masked is None or len(_parametrizations(layer)) != 1:
        return "", "its weight has not a mask alone"
    dense = _dense_weight(layer)
    if type(dense) not in (Tensor, nn.Parameter):
        return "", f"its weight is a {type(dense).__name__}"
    if device.type not in _DEVICES or dense.device != device:
        return "", f"on the device {dense.device.type!r}"
    # Without autocast a wrong dtype of the input is for torch.nn.functional.linear to refuse.
    if dtype not in _DTYPES or (
        dense.dtype != dtype and not torch.is_autocast_enabled(device.type)
    ):
        return "", f"computes in {dtype}: sparse products are of float16 and bfloat16"
    if is_transformed():
        return "", "under a transform of torch.func"
    size = layer.in_features * layer.out_features
    if tokens is not None and tokens * size < max(layer.least_products, 1):
        return "", "too few tokens × inputs × outputs (least_products)"
    why, right = [], []
    for name in layer.kernels:
        multiple = KERNELS[name].multiple
        if layer.in_features % multiple or layer.out_features % multiple:
            why.append(f"{name} takes multiples of {multiple}")
            continue
        fault = _constant_fault(name, device, dtype, layer.out_features, layer.in_features)
        if fault:
            why.append(fault)
        else:
            right.append(name)
    if right:
        sizes = layer.out_features, layer.in_features
        return _constant_fastest(tuple(right), device, dtype, *sizes), ""
    rejected = "; ".join(why)
    if warn:
        _warn_of_rejection(rejected)
    return "", rejected


def why_not_sparse(module: nn.Module, pattern: Pattern) -> str:
    """Say why a layer can never run sparse in a pattern; empty if it can."""
    kind = parametrize.type_before_parametrizations(module)
    if kind not in (nn.Linear, MVUELinear, SparseLinear):
        return f"of class {kind.__name__}, not torch.nn.Linear itself"
    n, m = pattern.n, pattern.m
    if (n * 4 // m if 4 % m == 0 else n) > 2 or (4 % m and m % 4):
        return f"{pattern} may keep more than two of four"
    multiple = min(engine.multiple for engine in KERNELS.values())
    if module.in_features % multiple or module.out_features % multiple:  # type: ignore[operator]
        sizes = f"{module.out_features}×{module.in_features}"
        return f"it is {sizes}: no multiples of {multiple}"
    return ""


def as_sparse_linear(module: nn.Module) -> None:
    """Make a `torch.nn.Linear` or `MVUELinear` a `SparseLinear`, in place."""
    module.was_before_sparse = type(module)  # type: ignore[assignment]
    module.__class__ = SparseLinear
    module._packed = _Packed()  # type: ignore[assignment]


def plain_class(module: nn.Module) -> type[nn.Module]:
    """Return the class of a masked layer without its mask, where `as_sparse_linear` is undone."""
    before = vars(module).pop("was_before_sparse", None)
    plain = mvue.plain_class(module)
    if before is None:
        return plain
    for name in ("_packed", "in_graphs", "least_products", "kernels"):
        vars(module).pop(name, None)
    return before if plain is SparseLinear else plain


def check_execution(execution: str) -> Execution:
    """Return it, checked."""
    if execution not in get_args(Execution):
        raise OptionError(
            f"execution must be one of {', '.join(map(repr, get_args(Execution)))}, got {execution!r}"
        )
    return execution  # type: ignore[return-value]  # is one of them


@dataclass(frozen=True)
class LayerExecution:
    """How a masked layer computes.

    Parameters
    ----------
    name : str
    execution : {"sparse", "masked", "dense"}
        By sparse products, with the masked weight, or (switched to dense) with the dense one.
    reason : str
        Why it is not sparse; for a sparse one, which kernels it takes.
    """

    name: str
    execution: Literal["sparse", "masked", "dense"]
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.execution}, {self.reason}"


def execution_report(
    model: nn.Module, *, tokens: int | None = None, dtype: torch.dtype | None = None
) -> list[LayerExecution]:
    r"""Tell for every masked layer how it would compute now, and why it would not run sparse.

    The answer is that of the very function which layers ask at every call.

    Parameters
    ----------
    model : Module
    tokens : int, optional
        Of a call: all dimensions of the input but the last. By default as many as it takes.
    dtype : torch.dtype, optional
        That of the input. By default that of the layer's weight, or of autocast within it.

    Returns
    -------
    list of LayerExecution

    Raises
    ------
    OptionError
        The model has no masks, or `tokens` is no number of tokens.

    Examples
    --------
    >>> import masksolve.torch as mt
    >>> model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    >>> report = mt.sparsify(model, n=2, m=4, execution="sparse")
    >>> print(*execution_report(model), sep="\n")
    0: masked, on the device 'cpu'
    2: masked, it is 10×128: no multiples of 16
    """
    count = None if tokens is None else as_integer(tokens)
    if tokens is not None and (count is None or count < 0):
        raise OptionError(f"tokens must be an integer of 0 or more, or None, got {tokens!r}")
    return [
        _execution_of(layer.name, layer.module, layer.masked, count, dtype)
        for layer in some_masked(model)
    ]


def _execution_of(
    name: str, module: nn.Module, masked: Masked, tokens: int | None, dtype: torch.dtype | None
) -> LayerExecution:
    if masked.dense:
        return LayerExecution(name, "dense", "masked.dense is True")
    if not isinstance(module, SparseLinear):
        why = why_not_sparse(module, masked.pattern)
        return LayerExecution(name, "masked", why or "sparsified without execution='sparse'")
    weight = _dense_weight(module)
    like = torch.empty(0, dtype=dtype or weight.dtype, device=weight.device)
    kernels, why = _choose(module, masked, _dtype_of(like), weight.device, tokens)
    return LayerExecution(name, "masked" if why else "sparse", why or f"by {kernels}")
