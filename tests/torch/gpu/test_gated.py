"""The kernels of GEGLU and SwiGLU against PyTorch's operators in float64, in all layouts."""

import re
from functools import partial
from importlib import import_module

import pytest
import torch

import masksolve.torch as mt
from masksolve.torch import gated

pytest.importorskip("triton")
kernels = import_module("masksolve.torch.gpu.gated")

# The interpreter computes with NumPy, which warns of what is infinite or NaN on a GPU in silence.
pytestmark = pytest.mark.filterwarnings(
    "ignore:(overflow|invalid value) encountered:RuntimeWarning"
)

FUNCTIONS = {
    "gelu": mt.geglu,
    "gelu_tanh": partial(mt.geglu, approximate="tanh"),
    "silu": mt.swiglu,
}
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
every_activation = pytest.mark.parametrize("activation", FUNCTIONS)
LAYOUTS = {
    "rows": lambda x: x.clone(),
    "columns": lambda x: x.T.contiguous().T,
    "columns of a wider one": lambda x: torch.cat([x, x]).T.contiguous().T[: len(x)],
    "every other column": lambda x: x.repeat_interleave(2, 1)[:, ::2],
}
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())


@pytest.fixture(autouse=True)
def launched(device, monkeypatch):
    """Let the interpreter take tensors of the CPU; return the kernels that are launched."""
    torch.manual_seed(0)
    names, launch = [], kernels._launch

    def recording(kernel, *arguments):
        names.append(kernel.__name__)
        launch(kernel, *arguments)

    monkeypatch.setattr(gated, "_KERNEL_DEVICES", (device,))
    monkeypatch.setattr(kernels, "_launch", recording)
    return names


def assert_once_rounded(found, exact):
    """Equal but for one rounding to the dtype, and for that of the arithmetic before it."""
    rounding = torch.finfo(found.dtype).eps / 2
    if found.dtype == torch.bfloat16 and found.device.type == "cpu":
        rounding *= 2  # the interpreter cuts digits off
    wide = 1e-13 if found.dtype == torch.float64 else 1e-6
    exact = exact.to(found.device)
    scale = exact.abs().amax().item() if exact.numel() else 0
    torch.testing.assert_close(found.double(), exact, rtol=rounding + wide, atol=wide * (1 + scale))


def assert_as_pytorch(activation, *tensors, gradient=None):
    """The outputs and gradients of the kernels are those of the formula in float64."""
    inputs = [tensor.detach().requires_grad_() for tensor in tensors]
    wide = [tensor.detach().double().requires_grad_() for tensor in tensors]
    output = FUNCTIONS[activation](*inputs)
    exact = gated._eager(*wide, activation=activation)
    if gradient is None:
        gradient = torch.randn_like(output)
    gradients = torch.autograd.grad(output, inputs, gradient)
    of_exact = torch.autograd.grad(exact, wide, gradient.double())
    for found, expected in zip((output, *gradients), (exact, *of_exact), strict=True):
        assert_once_rounded(found, expected)
    return output, gradients


@every_activation
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_as_pytorch_in_float64(activation, dtype, layout, device, launched):
    x = LAYOUTS[layout](3 * torch.randn(37, 2 * 70, dtype=dtype, device=device))
    output, _ = assert_as_pytorch(activation, x)
    assert output.dtype == dtype
    assert launched == ["_forward", "_backward"]


@every_layout
@pytest.mark.parametrize("of_gradient", ["rows", "columns"])
def test_the_layout_is_kept_whatever_that_of_the_gradient(layout, of_gradient, device):
    x = layout(torch.randn(70, 2 * 67, device=device))
    gradient = LAYOUTS[of_gradient](torch.randn(70, 67, device=device))
    output, (of_x,) = assert_as_pytorch("gelu", x, gradient=gradient)
    by_columns = x.stride(0) == 1
    assert output.stride() == ((1, 70) if by_columns else (67, 1))
    assert of_x.stride() == ((1, 70) if by_columns else (2 * 67, 1))


@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 3), (300, 1), (2, 127), (3, 128), (1, 1025), (1030, 2)], ids=str
)
def test_edges_of_tiles(shape, layout, device):
    x = torch.randn(shape[0], 2 * shape[1], device=device)
    assert_as_pytorch("silu", LAYOUTS[layout](x))


@pytest.mark.parametrize("inner", [*range(1, 140), 512, 1000, 1025, 1536, 11008, 2**20 + 1])
def test_tiles_are_powers_of_two_and_waste_little(inner):
    outer, width = kernels._long_tile(inner)
    assert outer * width == 1024
    assert width & (width - 1) == 0
    assert -inner % width < min(inner, 128)


@pytest.mark.parametrize(("of", "other"), [("rows", "columns"), ("columns", "rows")])
def test_what_is_contiguous_is_walked(of, other):
    matrix, across = (LAYOUTS[layout](torch.empty(300, 200)) for layout in (of, other))
    alike, rows, width = kernels._plan((matrix, matrix))
    assert all(tensor.stride(1) == 1 for tensor in alike)
    assert width > rows
    mixed, rows, width = kernels._plan((across, matrix))
    assert [tensor.stride(1) == 1 for tensor in mixed] == [False, True]
    assert rows == width


@pytest.mark.parametrize("shape", [(0, 6), (3, 0), (0, 2, 4)])
def test_empty_tensors(shape, device):
    output, (gradient,) = assert_as_pytorch("silu", torch.randn(shape, device=device))
    assert output.shape == (*shape[:-1], shape[-1] // 2)
    assert gradient.shape == shape


@every_layout
def test_two_tensors_of_any_layouts(layout, device):
    gate = torch.randn(9, 14, device=device)
    value = layout(torch.randn(9, 14, device=device))
    _, (of_gate, of_value) = assert_as_pytorch("gelu_tanh", gate, value)
    assert of_gate.stride() == gate.stride()
    assert of_value.stride() == ((1, 9) if value.stride(0) == 1 else (14, 1))


def test_a_frozen_half_has_no_gradient(device):
    gate = torch.randn(3, 4, device=device, requires_grad=True)
    mt.geglu(gate, torch.ones(3, 4, device=device)).sum().backward()
    assert gate.grad is not None


def test_leading_dimensions(device):
    x = torch.randn(2 * 6, 4 * 5, device=device).T.view(4, 5, 2 * 6)
    output, (gradient,) = assert_as_pytorch("gelu", x)
    assert output.stride() == (5, 1, 20)
    assert gradient.stride() == (5, 1, 20)
    assert_as_pytorch("gelu", x.transpose(0, 1))
    assert_as_pytorch("gelu", x[0, 0])


@every_activation
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_extreme_values_as_pytorch(activation, dtype, device):
    sizes = [0, 1e-30, 1e-6, 1, 9, 14, 90, 200, 6e4, 1e15, 1e20, 3e38, torch.inf, torch.nan]
    gates = torch.tensor([sign * size for size in sizes for sign in (1, -1)])
    pairs = torch.cartesian_prod(gates, torch.tensor([1, -2.5, 0, torch.nan]))
    # An infinite value next to an activation that PyTorch has not rounded to 0.
    pairs = torch.cat([pairs, torch.tensor([[1, torch.inf], [-1, torch.inf]])])
    x = pairs.to(device, dtype).requires_grad_()
    wide = x.detach().float().requires_grad_()  # in which PyTorch too computes
    output = FUNCTIONS[activation](x)
    exact = gated._eager(wide, activation=activation)
    (of_x,) = torch.autograd.grad(output.sum(), x)
    (of_wide,) = torch.autograd.grad(exact.sum(), wide)
    tolerance = {"rtol": max(2e-6, torch.finfo(dtype).eps), "atol": 2e-6}
    for found, expected in ((output, exact), (of_x, of_wide)):
        torch.testing.assert_close(found, expected.to(dtype), equal_nan=True, **tolerance)


def test_it_is_the_kernel_that_is_differentiated(device, launched):
    for layout in ("rows", "columns"):
        x = LAYOUTS[layout](torch.randn(3, 4, dtype=torch.float64, device=device))
        for function in FUNCTIONS.values():
            assert torch.autograd.gradcheck(function, x.requires_grad_())
    assert {"_forward", "_backward"} == set(launched)


@every_activation
def test_gradients_of_gradients(activation, device):
    x = torch.randn(2, 4, dtype=torch.float64, device=device, requires_grad=True)
    assert torch.autograd.gradgradcheck(FUNCTIONS[activation], x)
    gate, value = x.detach().chunk(2)
    assert torch.autograd.gradgradcheck(
        FUNCTIONS[activation], (gate.requires_grad_(), value.requires_grad_())
    )


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch.func's own
def test_transforms_take_the_operators_of_pytorch(device, launched):
    x = torch.randn(3, 4, dtype=torch.float64, device=device)

    def loss(x, function):
        return function(x).square().sum()

    plain = partial(gated._eager, activation="gelu")
    for transform in (torch.func.grad, torch.func.hessian):
        found, expected = (transform(loss)(x, function) for function in (mt.geglu, plain))
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.func.vmap(mt.geglu)(x), plain(x))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, x)
        found, expected = (
            torch.autograd.forward_ad.unpack_dual(f(dual)).tangent for f in (mt.geglu, plain)
        )
    torch.testing.assert_close(found, expected)
    assert launched == []
    mt.geglu(x)
    assert launched == ["_forward"]


def test_what_the_kernels_do_not_take_goes_to_the_operators_of_pytorch(
    device, launched, monkeypatch
):
    class Special(torch.Tensor):
        pass

    x = torch.randn(3, 4, device=device)
    assert type(mt.geglu(x.as_subclass(Special))) is Special
    assert mt.geglu(x.to("meta")).is_meta
    with monkeypatch.context() as without:
        without.setattr(gated, "_HAS_TRITON", False)
        mt.geglu(x)
    assert launched == []
    assert mt.geglu(torch.nn.Parameter(x)).requires_grad
    assert launched == ["_forward"]


def failing(error):
    def launch(*_):
        raise error

    return launch


@pytest.fixture
def nothing_failed(monkeypatch):
    failed = set()
    monkeypatch.setattr(gated, "_WITHOUT_KERNELS", failed)
    return failed


@every_activation
@every_layout
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_where_triton_cannot_compile_pytorch_computes(
    activation, layout, dtype, device, monkeypatch, nothing_failed
):
    x = layout(torch.randn(6, 8, dtype=dtype, device=device))
    value = torch.randn(6, 4, dtype=dtype, device=device)
    gate = layout(torch.randn(6, 4, dtype=dtype, device=device))
    monkeypatch.setattr(kernels, "_launch", failing(RuntimeError("Failed to find C compiler.")))
    function = FUNCTIONS[activation]
    with pytest.warns(UserWarning, match=f"{dtype} on .*RuntimeError: Failed to find C compiler"):
        function(x)
    assert nothing_failed == {(x.device, dtype)}
    monkeypatch.setattr(kernels, "_launch", failing(AssertionError("it is not tried again")))
    for tensors in ((x,), (gate, value)):
        results = []
        for call in (function, partial(gated._eager, activation=activation)):
            inputs = [tensor.detach().requires_grad_() for tensor in tensors]
            output = call(*inputs)
            results.append((output, *torch.autograd.grad(output.square().sum(), inputs)))
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found, expected)
        assert (results[0][0].stride(0) == 1) == (tensors[0].stride(0) == 1)


def test_a_failure_in_the_backward_pass_alone(device, monkeypatch, nothing_failed):
    x = torch.randn(3, 4, device=device, requires_grad=True)
    output = mt.geglu(x)
    triton_error = import_module("triton.errors").TritonError
    monkeypatch.setattr(kernels, "_launch", failing(triton_error("out of resource: shared memory")))
    with pytest.warns(UserWarning, match="TritonError: out of resource"):
        (found,) = torch.autograd.grad(output.sum(), x)
    (expected,) = torch.autograd.grad(gated._eager(x, activation="gelu").sum(), x)
    torch.testing.assert_close(found, expected)
    assert nothing_failed


@pytest.mark.parametrize(
    "error",
    [
        TypeError("no such argument"),
        ValueError("Pointer argument (at 0) cannot be accessed"),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("Triton Error [CUDA]: operation not permitted when stream is capturing"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_other_errors_are_raised_and_the_next_call_tries_again(
    error, device, launched, monkeypatch, nothing_failed
):
    x = torch.randn(3, 4, device=device)
    with monkeypatch.context() as broken:
        broken.setattr(kernels, "_launch", failing(error))
        with pytest.raises(type(error), match=re.escape(str(error))):
            mt.swiglu(x)
    assert not nothing_failed
    mt.swiglu(x)
    assert launched == ["_forward"]


def test_autocast_and_inference(device):
    x = torch.randn(3, 4, device=device)
    with torch.autocast(device, torch.bfloat16), torch.inference_mode():
        assert mt.geglu(x).dtype == torch.float32
        assert mt.geglu(x.bfloat16()).dtype == torch.bfloat16


@every_layout
def test_it_compiles_as_one_graph(layout, device, launched):
    torch.compiler.reset()
    compiled = torch.compile(mt.swiglu, fullgraph=True, backend="aot_eager", dynamic=True)
    x = layout(torch.randn(6, 4, device=device))
    results = []
    for function in (compiled, mt.swiglu):
        given = x.detach().requires_grad_()
        output = function(given)
        output.square().sum().backward()
        results.append((output, given.grad))
    for found, expected in zip(*results, strict=True):
        assert torch.equal(found, expected)
        assert found.stride() == expected.stride()
    assert launched == 2 * ["_forward", "_backward"]
    torch.compiler.reset()


@every_layout
def test_the_operators_keep_their_promises(layout, device):
    x, value = layout(torch.randn(6, 4, device=device)), torch.randn(6, 4, device=device)
    operators = torch.ops.masksolve
    for tensors in ((x, None), (x, value)):
        output = operators.gated(*tensors, "gelu")
        torch.library.opcheck(operators.gated, (*tensors, "gelu"))
        torch.library.opcheck(operators.gated_backward, (output, *tensors, "gelu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the interpreter copies the 4 GiB")
def test_offsets_beyond_32_bits(device):
    far = torch.empty(2**31 + 8, dtype=torch.float16, device=device)
    x = far.as_strided((2, 8), (2**31, 1)).copy_(torch.randn(2, 8))
    assert_as_pytorch("gelu", x)
