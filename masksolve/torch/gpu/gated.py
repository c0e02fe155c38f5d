"""Gated activations, ``activation(gate) * value``, and their gradients: one pass over memory each.

Tensors are matrices of one shape, each with strides of its own. What the launchers write comes last,
and the dimension along which that is contiguous is the inner one: neighbouring threads, and
neighbouring programs, walk along it. On paper, not by measurement, the tiles are chosen so that

- where all tensors are contiguous along it, a thread has 1024 / 128 = 8 consecutive entries of each:
  one access of 128 bits in 16-bit dtypes, if strides and sizes are multiples of 16, which is
  what Triton looks at. More entries would only take registers from the threads that hide latency;
- where some are contiguous along the other one, a square tile covers 64 entries of both, which is
  at least one line of 128 bytes; Triton exchanges the two orders in shared memory.
"""

import torch
import triton
import triton.language as tl

__all__ = ["backward", "forward"]

_TILE = 1024
_WIDTHS = (1024, 512, 256, 128)
_SQUARE = 64

_ROOT_HALF = tl.constexpr(0.5**0.5)
_GAUSS = tl.constexpr((2 * 3.141592653589793) ** -0.5)
_SLOPE = tl.constexpr(2 * (2 / 3.141592653589793) ** 0.5)
_CUBIC = tl.constexpr(0.044715)


@triton.jit
def _activate(x, ACTIVATION: tl.constexpr):
    """The activation and its derivative: NaN at infinities where those of PyTorch are."""
    if ACTIVATION == "gelu":
        below = 0.5 * (1 + tl.erf(x * _ROOT_HALF))
        return x * below, below + x * (tl.exp(-0.5 * x * x) * _GAUSS)
    # x * sigmoid(z): SiLU with z = x, and GELU's approximation, as (1 + tanh t) / 2 = sigmoid(2t).
    if ACTIVATION == "silu":
        z, slope = x, 1.0
    else:
        # Constants on the right: in the interpreter they would swallow a tensor there.
        z, slope = (x + x * x * x * _CUBIC) * _SLOPE, (1 + x * x * (3 * _CUBIC)) * _SLOPE
    share = tl.sigmoid(z)
    # The vanishing factors first: a large slope must not overflow before it meets them.
    return x * share, share + x * (share * (1 - share)) * slope


@triton.jit
def _tile(outer, inner, OUTER: tl.constexpr, INNER: tl.constexpr):
    """Indices of the entries of this program's tile, in 64 bits as offsets are, and which exist."""
    across = tl.cdiv(inner, INNER)
    i = (tl.program_id(0) // across).to(tl.int64) * OUTER + tl.arange(0, OUTER)[:, None]
    j = (tl.program_id(0) % across).to(tl.int64) * INNER + tl.arange(0, INNER)[None, :]
    return i, j, (i < outer) & (j < inner)


@triton.jit
def _forward(
    gate, value, out,
    gate_outer, gate_inner, value_outer, value_inner, out_outer, out_inner,
    outer, inner,
    ACTIVATION: tl.constexpr, WIDE: tl.constexpr, OUTER: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    i, j, inside = _tile(outer, inner, OUTER, INNER)
    x = tl.load(gate + i * gate_outer + j * gate_inner, inside).to(WIDE)
    y = tl.load(value + i * value_outer + j * value_inner, inside).to(WIDE)
    active, _ = _activate(x, ACTIVATION)
    tl.store(out + i * out_outer + j * out_inner, active * y, inside)


@triton.jit
def _backward(
    gradient, gate, value, of_gate, of_value,
    gradient_outer, gradient_inner, gate_outer, gate_inner, value_outer, value_inner,
    of_gate_outer, of_gate_inner, of_value_outer, of_value_inner,
    outer, inner,
    ACTIVATION: tl.constexpr, WIDE: tl.constexpr, OUTER: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    i, j, inside = _tile(outer, inner, OUTER, INNER)
    g = tl.load(gradient + i * gradient_outer + j * gradient_inner, inside).to(WIDE)
    x = tl.load(gate + i * gate_outer + j * gate_inner, inside).to(WIDE)
    y = tl.load(value + i * value_outer + j * value_inner, inside).to(WIDE)
    active, derivative = _activate(x, ACTIVATION)
    tl.store(of_gate + i * of_gate_outer + j * of_gate_inner, g * y * derivative, inside)
    tl.store(of_value + i * of_value_outer + j * of_value_inner, g * active, inside)


def forward(gate, value, out, *, activation):
    """Write ``activation(gate) * value`` into `out`."""
    _launch(_forward, (gate, value, out), activation)


def backward(gradient, gate, value, of_gate, of_value, *, activation):
    """Write the gradients of gate and value, given that of what `forward` wrote."""
    _launch(_backward, (gradient, gate, value, of_gate, of_value), activation)


def _launch(kernel, tensors, activation):
    if tensors[-1].numel() == 0:
        return
    tensors, rows, width = _plan(tensors)
    outer, inner = tensors[-1].shape
    with torch.cuda.device_of(tensors[-1]):
        kernel[triton.cdiv(outer, rows) * triton.cdiv(inner, width),](
            *tensors,
            *[stride for tensor in tensors for stride in tensor.stride()],
            *(outer, inner),
            ACTIVATION=activation,
            WIDE=tl.float64 if tensors[-1].dtype == torch.float64 else tl.float32,
            OUTER=rows,
            INNER=width,
            num_warps=8 if rows * width > _TILE else 4,
            enable_fp_fusion=True,  # said, lest Triton warn that its default will change
        )


def _plan(tensors):
    """The matrices with the dimension to walk last, and outer and inner size of a tile."""
    if tensors[-1].stride(0) < tensors[-1].stride(1):
        tensors = [tensor.T for tensor in tensors]
    if any(tensor.stride(0) == 1 != tensor.stride(1) for tensor in tensors):
        return tensors, _SQUARE, _SQUARE
    return tensors, *_long_tile(tensors[-1].shape[1])


def _long_tile(inner):
    """Outer and inner size of a tile: the widest of those with the fewest entries past the edge."""
    if inner < _WIDTHS[-1]:
        width = triton.next_power_of_2(inner)
    else:
        width = min(_WIDTHS, key=lambda width: -(-inner // width) * width)
    return _TILE // width, width
