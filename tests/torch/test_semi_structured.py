"""Sparse execution, by kernels of reference on the CPU: all but the products themselves is the same."""

import contextlib
import copy
import functools
import gc
import warnings
import weakref

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional
from torch.nn.utils import parametrize

import masksolve.torch as mt
from masksolve import errors
from masksolve.diversity import enumerate_masks
from masksolve.torch import semi_structured
from masksolve.torch.layers import find_masked

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU with sparse tensor cores: never run so far"
)


def tile_greedily(matrix, rank=torch.abs, generator=None):
    """What PyTorch's tile kernel keeps: the largest first, at most two a line of a 4×4 tile.

    Among equals its order is that of a sorting network; here it is random.
    """
    rows, columns = matrix.shape
    tiles = matrix.reshape(rows // 4, 4, columns // 4, 4).permute(0, 2, 1, 3).reshape(-1, 16)
    device = matrix.device
    shuffled = torch.rand(tiles.shape, generator=generator, device=device).argsort(1)
    values = rank(tiles.double()).gather(1, shuffled)
    order = shuffled.gather(1, values.argsort(dim=1, descending=True, stable=True))
    kept = torch.zeros_like(tiles, dtype=torch.bool)
    in_row, in_column = torch.zeros(2, len(tiles), 4, dtype=torch.int64, device=device)
    for entry in order.T[..., None]:
        row, column = entry // 4, entry % 4
        room = (in_row.gather(1, row) < 2) & (in_column.gather(1, column) < 2)
        kept.scatter_(1, entry, room)
        in_row.scatter_add_(1, row, room.long())
        in_column.scatter_add_(1, column, room.long())
    kept = kept.view(rows // 4, columns // 4, 4, 4).permute(0, 2, 1, 3).reshape(rows, columns)
    return torch.where(kept, matrix, 0)


class Reference:
    """The three calls of the kernels, which note how often they are made."""

    def __init__(self, multiple=16, column_major=False):
        self.multiple, self.column_major = multiple, column_major
        self.packs, self.compressions, self.products = 0, 0, 0
        self.generator = torch.Generator().manual_seed(0)  # estimates are drawn by PyTorch's own

    def pack(self, matrix):
        assert matrix.is_contiguous()
        self.packs += 1
        # As two tensors each, like those of CUTLASS: values, and which they are.
        packed = tile_greedily(matrix, generator=self.generator)
        return [packed.clone(), packed != 0, packed.T.contiguous(), packed.T != 0]

    def compress(self, matrix):
        assert matrix.is_contiguous()
        assert (matrix.view(-1, 4).count_nonzero(1) <= 2).all()
        assert not matrix.shape[1] % 64
        self.compressions += 1
        return [matrix.clone(), matrix != 0]

    def multiply(self, packed, rows, bias):
        values, kept = packed
        assert not len(rows) % 8
        assert rows.dtype == values.dtype
        assert bias is None or bias.dtype == values.dtype
        self.products += 1
        product = functional.linear(rows, values * kept, bias)
        return product.T.contiguous().T if self.column_major else product.contiguous()

    def is_transposed(self, rows):  # noqa: ARG002
        return self.column_major


@pytest.fixture
def kernels(monkeypatch):
    """Kernels of reference in place of those of PyTorch, on the CPU and of any size."""
    reference = Reference()
    monkeypatch.setattr(semi_structured, "KERNELS", {"reference": reference})
    monkeypatch.setattr(semi_structured, "_DEVICES", ("cpu",))
    monkeypatch.setattr(mt.SparseLinear, "kernels", ("reference",))
    monkeypatch.setattr(mt.SparseLinear, "least_products", 1)
    forget_trials()
    # Of layers as the tests have them: their calls alone are counted.
    for dtype in (torch.bfloat16, torch.float16):
        for size in [(48, 32), (32, 48), (32, 32)]:
            assert not semi_structured._fault("reference", torch.device("cpu"), dtype, *size)
    reference.packs = reference.compressions = reference.products = 0
    yield reference
    forget_trials()


def forget_trials():
    semi_structured._fault.cache_clear()
    semi_structured._fastest.cache_clear()
    semi_structured._layouts.cache_clear()
    semi_structured._warn_once.cache_clear()


def integers(*shape, dtype=torch.bfloat16, low=-2, high=2, seed=0):
    """Small integers: sums of their products are exact in bfloat16, in any order."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high + 1, shape, generator=generator).to(dtype)


def pair(inputs=32, outputs=48, dtype=torch.bfloat16, bias=True, **options):
    """The same layer twice: sparse, and masked-dense."""
    sparse = nn.Linear(inputs, outputs, bias, dtype=dtype)
    with torch.no_grad():
        sparse.weight.copy_(integers(outputs, inputs))
        if bias:
            sparse.bias.copy_(integers(outputs, seed=1))
    masked = copy.deepcopy(sparse)
    mt.sparsify(sparse, 2, 4, execution="sparse", **options)
    mt.sparsify(masked, 2, 4, **options)
    return sparse, masked


def dense_weight(layer):
    return layer.parametrizations.weight.original


def step(layer, x, upstream):
    """Output, and the gradients of input, weight and bias."""
    x = x.clone().requires_grad_()
    output = layer(x)
    return output, *torch.autograd.grad(output, [x, *layer.parameters()], upstream)


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


# ---- packing keeps what the mask keeps


def hard_values(dtype, count, generator):
    """Ties, zeros of both signs, denormals, the largest and plain numbers, of either sign."""
    tiny, info = torch.finfo(dtype).smallest_normal, torch.finfo(dtype)
    kinds = torch.tensor(
        [0.0, -0.0, 1, 1, -1, tiny / 4, -tiny / 8, tiny, info.max, info.min], dtype=dtype
    )
    chosen = kinds[torch.randint(len(kinds), (count, 4, 4), generator=generator)]
    plain = torch.randn(count, 4, 4, generator=generator).to(dtype)
    return torch.where(torch.rand(count, 1, 1, generator=generator) < 0.7, chosen, plain)


def as_row(tiles):
    return tiles.permute(1, 0, 2).reshape(4, -1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_greedy_of_the_tile_keeps_every_kept_weight(dtype):
    """Of a tile with at most two non-zeros a line, none finds its line full, in whatever order."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.stack([torch.from_numpy(mask) for mask in enumerate_masks(2, 4)])
    masks = masks.bool().repeat(200, 1, 1)
    masks[::3] &= torch.rand(masks[::3].shape, generator=generator) < 0.8  # at most two
    weights = hard_values(dtype, len(masks), generator) * masks
    row = as_row(torch.where(masks, weights, 0))
    assert torch.equal(tile_greedily(row, generator=generator), row)
    # By signed values, as the kernel ranks by default, zeros take the place of what is negative.
    by_sign = tile_greedily(row, rank=lambda values: values, generator=generator)
    assert (by_sign != row).any()
    assert torch.equal(by_sign[row > 0], row[row > 0])


def test_the_greedy_of_reference_loses_weights_of_a_tile_that_has_more():
    tile = torch.tensor([[9.0, 1, 7, 4], [1, 2, 3, 0], [8, 3, 5, 4], [1, 2, 6, 2]])
    expected = torch.tensor([[9.0, 0, 7, 0], [0, 2, 0, 0], [8, 0, 0, 4], [0, 2, 6, 0]])
    kept = tile_greedily(tile)
    assert torch.equal(kept[0], expected[0])
    assert torch.equal(kept[2], expected[2])
    assert ((kept != 0).sum(0) <= 2).all()


def test_calls_fit_the_operators_of_pytorch():
    """Shapes and arguments, by PyTorch's own rules for tensors without numbers."""
    rows, columns, tokens = 128, 256, 72
    with torch.device("meta"):
        half = {"dtype": torch.float16}
        bias = torch.empty(rows, **half)
        x = torch.empty(tokens, columns, **half)
        packed = torch.empty(rows, columns // 2, **half)
        # As the tile kernel writes it.
        meta = torch.empty(columns // 32, rows, 2, dtype=torch.int16).permute(1, 2, 0)
        meta = semi_structured._as_matrix(meta)
        assert meta.shape == (rows, columns // 16)
        cutlass = semi_structured.KERNELS["cutlass"]
        lt = semi_structured.KERNELS["cusparselt"]
        compressed = torch.empty(rows, columns * 9 // 16, **half)
        for each in (x, x.T.contiguous().T):
            for b in (bias, None):
                for engine, operand in ((cutlass, [packed, meta]), (lt, [compressed])):
                    found = engine.multiply(operand, each, b)
                    assert found.shape == (tokens, rows)
                    assert found.T.is_contiguous() == engine.is_transposed(each)
    schema = str(torch.ops.aten._sparse_semi_structured_tile.default._schema)
    assert 'str algorithm="", bool use_cutlass=True' in schema
    assert str(torch.ops.aten._cslt_compress.default._schema).endswith("(Tensor input) -> Tensor")


def test_what_cutlass_compresses_is_what_the_matrix_was():
    """PyTorch's conversion is in its own operators, and so runs on the CPU."""
    from torch.sparse import _semi_structured_conversions as conversions

    weight = dense_weight(pair(64, 64)[0])
    matrix = torch.where(torch.tensor([True, False, False, True]).repeat(16), weight, 0)
    packed = semi_structured.KERNELS["cutlass"].compress(matrix)
    assert torch.equal(conversions.sparse_semi_structured_to_dense_cutlass(*packed), matrix)


def test_rows_are_copied_only_if_kernels_cannot_read_them():
    x = torch.zeros(9, 16)
    for fine in (x, x.T, x[1:]):
        assert semi_structured._without_gaps(fine) is fine
    for bad in (x[:, ::2], x[:, :8], torch.zeros(33)[1:].view(4, 8)):
        copied = semi_structured._without_gaps(bad)
        assert copied.is_contiguous()
        assert not copied.data_ptr() % 16
        assert torch.equal(copied, bad)


# ---- kernels are tried before they are relied upon


class Signed(Reference):
    def pack(self, matrix):
        pruned = tile_greedily(matrix, rank=lambda values: values)
        return [pruned, pruned != 0, pruned.T.contiguous(), pruned.T != 0]


class Swapped(Reference):
    def pack(self, matrix):
        packed = super().pack(matrix)
        packed[2] = packed[2].flip(0)
        return packed


class OneLayout(Reference):
    """Reads tokens that are column-major as if they were not."""

    def multiply(self, packed, rows, bias):
        if not rows.is_contiguous() and len(rows) == semi_structured._TRIAL_TOKENS:
            rows = rows.T.reshape(rows.shape)
        return super().multiply(packed, rows, bias)


class OneSize(Reference):
    """Packs weights of other sizes in an order of their own."""

    def pack(self, matrix):
        packed = super().pack(matrix)
        return packed if matrix.shape == (48, 32) else [part.roll(1, 0) for part in packed]


class Uncompressed(Reference):
    def compress(self, matrix):
        return [matrix.roll(1, 0), matrix != 0]


class Absent(Reference):
    def pack(self, matrix):  # noqa: ARG002
        raise RuntimeError("Supported only on GPUs with compute capability 8.x\nfrom somewhere")


class Unknown(Reference):
    def pack(self, matrix):
        return torch._no_such_operator(matrix)


WRONG = "wrong computes wrong products of 32×48 weights there"


@pytest.mark.parametrize(
    ("engine", "why"),
    [
        *((kind(), WRONG) for kind in (Signed, Swapped, OneLayout, OneSize, Uncompressed)),
        (Absent(), "wrong fails there: Supported only on GPUs with compute capability 8.x"),
        (Unknown(), "wrong fails there: module 'torch' has no attribute '_no_such_operator'"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_kernels_that_are_wrong_here_are_not_used(kernels, monkeypatch, engine, why):
    monkeypatch.setitem(semi_structured.KERNELS, "wrong", engine)
    sparse, masked = pair(48, 32)
    sparse.kernels = ("wrong",)
    assert mt.execution_report(sparse)[0].reason == why
    x, upstream = integers(8, 48), integers(8, 32)
    with pytest.warns(UserWarning, match=f"masked weight instead: {why}"):
        found = step(sparse, x, upstream)
    assert_same(found, step(masked, x, upstream))  # and no second warning
    assert_same(step(sparse, x, upstream), found)
    sparse.kernels = ("wrong", "reference")
    assert mt.execution_report(sparse)[0].reason == "by reference"
    assert not kernels.products
    sparse(x)
    assert kernels.products


def test_of_right_kernels_the_fastest_are_taken(kernels, monkeypatch):
    quick, wrong = Reference(), Signed()
    times, timed = {kernels: 2.0, quick: 1.0, wrong: 0.0}, []

    def milliseconds(engine, _device, _dtype, outputs, inputs):
        timed.append((engine, outputs, inputs))
        return times[engine]

    for name, engine in (("quick", quick), ("wrong", wrong)):
        monkeypatch.setitem(semi_structured.KERNELS, name, engine)
    monkeypatch.setattr(semi_structured, "_milliseconds", milliseconds)
    sparse, _ = pair()
    sparse.kernels = ("wrong", "reference", "quick")
    assert mt.execution_report(sparse)[0].reason == "by reference", "not timed here: the first"
    forget_trials()
    monkeypatch.setattr(semi_structured, "_TIMED", ("cpu",))
    for _ in range(2):
        assert mt.execution_report(sparse)[0].reason == "by quick"
    assert timed == [(kernels, 48, 32), (quick, 48, 32)], "once each, and nothing that is wrong"
    sparse.kernels = ("reference",)
    assert mt.execution_report(sparse)[0].reason == "by reference"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="times of CUDA events")
def test_times_of_kernels_are_times():
    device, dtype = torch.device("cuda"), torch.bfloat16
    for name, engine in semi_structured.KERNELS.items():
        if not semi_structured._fault(name, device, dtype, 256, 128):
            assert semi_structured._milliseconds(engine, device, dtype, 256, 128) > 0


def test_every_size_is_tried_once(kernels, monkeypatch):
    monkeypatch.setitem(semi_structured.KERNELS, "wrong", OneSize())
    right, wrong = pair()[0], pair(48, 32)[0]
    right.kernels = wrong.kernels = ("wrong",)
    reasons = [mt.execution_report(layer)[0].reason for layer in (right, wrong)]
    assert reasons == ["by wrong", WRONG]
    forget_trials()
    for _ in range(2):
        pair()[0](integers(8, 32))
    assert (kernels.packs, kernels.compressions) == (4, 1)  # two of the trial, with its layouts


@pytest.mark.parametrize("shape", [(16, 16), (16, 48), (64, 2048), (2048, 64)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.usefixtures("kernels")
def test_right_kernels_are_right_in_all_sizes(shape, dtype):
    """Sums of a trial are exact: in 16 bits too."""
    assert not semi_structured._fault("reference", torch.device("cpu"), dtype, *shape)


@pytest.mark.parametrize(
    "message", ["CUDA out of memory. Tried", "CUDA error: resource allocation failed when calling"]
)
@pytest.mark.parametrize("error", [RuntimeError, torch.OutOfMemoryError])
def test_when_memory_is_short_the_next_call_tries_again(kernels, monkeypatch, error, message):
    def pack(matrix):  # noqa: ARG001
        raise error(message)

    forget_trials()
    sparse, masked = pair()
    x = integers(8, 32)
    with monkeypatch.context() as short:
        short.setattr(kernels, "pack", pack)
        with pytest.raises(error, match=message):
            sparse(x)
    assert torch.equal(sparse(x), masked(x))
    assert mt.execution_report(sparse)[0].reason == "by reference"


def test_kernels_are_not_tried_during_a_capture(kernels, monkeypatch):
    sparse, masked = pair()
    x = integers(8, 32)
    with monkeypatch.context() as capture:
        capture.setattr(semi_structured, "_is_capturing", lambda: True)
        forget_trials()
        with pytest.raises(errors.UnsupportedError, match=r"48×32.*call the model once before"):
            sparse(x)
        assert not kernels.packs
    assert torch.equal(sparse(x), masked(x))
    monkeypatch.setattr(semi_structured, "_is_capturing", lambda: True)
    assert torch.equal(sparse(x), masked(x))  # by what was found out before


def test_trials_are_not_under_autocast(kernels, monkeypatch):
    seen = []
    compress = kernels.compress

    def noted(matrix):
        seen.append(torch.is_autocast_enabled("cpu"))
        return compress(matrix)

    monkeypatch.setattr(kernels, "compress", noted)
    forget_trials()
    with torch.autocast("cpu", torch.bfloat16):
        assert mt.execution_report(pair(dtype=torch.float32)[0])[0].execution == "sparse"
    assert seen == [False]


def by_default_device(layer, x):
    torch.set_default_device("meta")
    try:
        return layer(x)
    finally:
        torch.set_default_device(None)


def within_a_device(layer, x):
    with torch.device("meta"):
        return layer(x)


def under_inference(layer, x):
    with torch.inference_mode():
        return layer(x)


def under_autocast(layer, x):
    with torch.autocast("cpu", torch.bfloat16):
        return layer(x)


def compiled(layer, x):
    torch.compiler.reset()
    output = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    torch.compiler.reset()
    return output


@pytest.mark.parametrize(
    "call",
    [by_default_device, within_a_device, under_inference, under_autocast, compiled],
    ids=lambda call: call.__name__,
)
@pytest.mark.parametrize("right", [True, False])
def test_the_first_call_is_anywhere(kernels, monkeypatch, call, right):
    monkeypatch.setitem(semi_structured.KERNELS, "wrong", Swapped())
    forget_trials()
    sparse, masked = pair()
    sparse.kernels = ("reference" if right else "wrong",)
    x = integers(8, 32)
    with contextlib.nullcontext() if right else pytest.warns(UserWarning, match="wrong products"):
        found = call(sparse, x)
    assert torch.equal(found, masked(x))
    assert bool(kernels.products) == right
    assert (mt.execution_report(sparse)[0].execution == "sparse") == right


# ---- the same results as masked-dense


@pytest.mark.parametrize("column_major", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(32,), (1, 32), (9, 32), (3, 2, 5, 32), (8, 32)])
def test_output_and_gradients_are_those_of_the_masked_layer(kernels, shape, dtype, column_major):
    kernels.column_major = column_major
    sparse, masked = pair(dtype=dtype)
    x = integers(*shape, dtype=dtype, seed=2)
    upstream = integers(*shape[:-1], 48, dtype=dtype, seed=3)
    assert_same(step(sparse, x, upstream), step(masked, x, upstream))
    assert (kernels.packs, kernels.products) == (1, 2)
    assert torch.equal(sparse(x.T.contiguous().T if x.ndim == 2 else x), masked(x))


def test_inputs_of_any_layout(kernels):
    sparse, masked = pair()
    wide = integers(9, 64, seed=2)
    for x in (wide[:, ::2], wide[:, 32:], integers(2, 32, 5).transpose(1, 2), wide[:0, :32]):
        upstream = integers(*x.shape[:-1], 48, seed=3)
        assert_same(step(sparse, x, upstream), step(masked, x, upstream))
    assert kernels.products == 6


@pytest.mark.parametrize(
    "options",
    [
        {"gradient": "straight_through"},
        {"gradient": "static"},
        {"gradient": "sr_ste", "decay": 0.5},
        {"weight_gradient": "mvue"},
        {"weight_gradient": "mvue_approximate", "gradient": "static"},
    ],
    ids=str,
)
@pytest.mark.parametrize("bias", [True, False])
def test_every_gradient_of_the_weight(kernels, options, bias):
    sparse, masked = pair(bias=bias, **options)
    # Two values a group are drawn without scaling: the estimates are integers, and exact.
    x, upstream = integers(18, 32, seed=2), integers(18, 48, seed=3)
    upstream[2::4] = upstream[3::4] = 0
    results = []
    for layer in (sparse, masked):
        torch.manual_seed(4)
        results.append(step(layer, x, upstream))
    assert_same(*results)
    mvue = "weight_gradient" in options
    assert kernels.compressions == mvue
    assert kernels.products == 2 + mvue


def test_estimates_are_drawn_as_those_of_the_masked_layer(kernels):
    sparse, masked = pair(weight_gradient="mvue")
    x, upstream = torch.randn(2, 70, 48).bfloat16().unbind()
    results = []
    for layer in (sparse, masked):
        torch.manual_seed(4)
        results.append(step(layer, x[:, :32], upstream))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
    assert kernels.compressions == 1


@pytest.mark.parametrize("frozen", ["input", "weight", "bias"])
def test_only_what_is_needed_is_computed(kernels, frozen):
    sparse, masked = pair(weight_gradient="mvue")
    x, upstream = integers(8, 32), integers(8, 48)
    found = []
    for layer in (sparse, masked):
        torch.manual_seed(0)
        dense_weight(layer).requires_grad_(frozen != "weight")
        layer.bias.requires_grad_(frozen != "bias")
        each = x.clone().requires_grad_(frozen != "input")
        layer(each).backward(upstream)
        found.append([each.grad, dense_weight(layer).grad, layer.bias.grad])
    gradients = list(zip(*found, strict=True))
    assert [one is None for one, _ in gradients].count(True) == 1
    assert [one is None for one, _ in gradients] == [other is None for _, other in gradients]
    for one, other in gradients:
        assert one is None or torch.equal(one, other)
    assert kernels.products == 3 - (frozen in ("input", "weight"))
    with torch.no_grad():
        assert torch.equal(sparse(x), masked(x))


@pytest.mark.parametrize("column_major", [False, True])
@pytest.mark.parametrize("shape", [(9, 32), (2, 4, 32)])
def test_outputs_may_be_written_to(kernels, shape, column_major):
    kernels.column_major = column_major
    sparse, masked = (nn.Sequential(layer, nn.ReLU(inplace=True)) for layer in pair())
    x, upstream = integers(*shape), integers(*shape[:-1], 48)
    assert_same(step(sparse, x, upstream), step(masked, x, upstream))
    assert not sparse[0](x)._is_view()


def test_gradients_of_gradients_are_refused(kernels):
    sparse, _ = pair()
    x = integers(8, 32).requires_grad_()
    (gradient,) = torch.autograd.grad(sparse(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
    assert kernels.products == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_its_dtype_and_returns_that_of_the_parameters(kernels, dtype):
    sparse, masked = pair(dtype=torch.float32, gradient="sr_ste", decay=0.25)
    x, upstream = integers(8, 32, dtype=torch.float32), integers(8, 48, dtype=dtype)
    assert "float32" in mt.execution_report(sparse)[0].reason
    with torch.autocast("cpu", dtype):
        assert mt.execution_report(sparse)[0].execution == "sparse"
        found, expected = step(sparse, x, upstream), step(masked, x, upstream)
    assert found[0].dtype == dtype
    assert_same(found, expected)
    assert (kernels.packs, kernels.products) == (1, 2)
    assert torch.equal(sparse(x), masked(x))
    assert kernels.products == 2
    with torch.autocast("cpu", dtype, enabled=False), pytest.raises(RuntimeError, match="dtype"):
        sparse(x.bfloat16())


def test_a_layer_that_is_switched_to_dense_is_dense(kernels):
    sparse, masked = pair(weight_gradient="mvue")
    for layer in (sparse, masked):
        find_masked(layer).dense = True
    x, upstream = integers(8, 32), integers(8, 48)
    assert_same(step(sparse, x, upstream), step(masked, x, upstream))
    assert mt.execution_report(sparse)[0].execution == "dense"
    assert not kernels.products


# ---- packed once a step, and never stale


def test_micro_batches_share_one_packing(kernels):
    sparse, masked = pair()
    optimizers = [torch.optim.SGD(layer.parameters(), lr=1.0) for layer in (sparse, masked)]
    for number in range(3):
        for batch in range(4):
            x, upstream = integers(8, 32, seed=batch), integers(8, 48, seed=batch + 9) / 64
            for layer in (sparse, masked):
                layer(x).backward(upstream)
        assert kernels.packs == number + 1
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        assert torch.equal(dense_weight(sparse), dense_weight(masked))


def in_place(layer):
    with torch.no_grad():
        dense_weight(layer).mul_(-1)


def by_assignment(layer):
    layer.parametrizations.weight.original = nn.Parameter(-dense_weight(layer).detach())


def by_state_dict(layer):
    state = copy.deepcopy(layer.state_dict())
    state["parametrizations.weight.original"].mul_(-1)
    layer.load_state_dict(state)


def by_assigned_state_dict(layer):
    state = copy.deepcopy(layer.state_dict())
    state["parametrizations.weight.original"].mul_(-1)
    layer.load_state_dict(state, assign=True)


def by_an_optimizer_past_autograd(layer):
    class Careless(torch.optim.Optimizer):
        def step(self):
            for parameter in self.param_groups[0]["params"]:
                parameter.data.mul_(-1)

    Careless([dense_weight(layer)], {}).step()


def by_data(layer):
    dense_weight(layer).data.mul_(-1)
    if isinstance(layer, mt.SparseLinear):
        layer.repack()


def by_new_data(layer):
    dense_weight(layer).data = -dense_weight(layer).data


def a_new_mask(layer):
    find_masked(layer).mask.copy_(find_masked(layer).mask.roll(4, 0).roll(8, 1))


def to_another_dtype(layer):
    layer.to(torch.float16)


CHANGES = [
    *(in_place, by_assignment, by_state_dict, by_assigned_state_dict, by_data, by_new_data),
    *(by_an_optimizer_past_autograd, a_new_mask, to_another_dtype),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_is_packed_is_never_stale(kernels, change):
    sparse, masked = pair()
    x = integers(8, 32)
    sparse(x)
    assert torch.equal(sparse(x), masked(x))
    assert kernels.packs == 1
    change(sparse)
    change(masked)
    x = x.to(dense_weight(sparse).dtype)
    assert torch.equal(sparse(x), masked(x))
    assert kernels.packs == 2


@pytest.mark.parametrize("count_steps", [True, False])
@pytest.mark.parametrize(
    "options", [{"foreach": True}, {"foreach": False}, {"fused": True}], ids=str
)
def test_steps_of_pytorchs_own_optimizers_are_seen(kernels, monkeypatch, options, count_steps):
    """Twice: versions tell of those that are not fused, and the count of steps of all."""
    if not count_steps:
        monkeypatch.setattr(semi_structured, "_steps", semi_structured._Steps)
    sparse, masked = pair()
    optimizers = [torch.optim.AdamW(x.parameters(), lr=0.25, **options) for x in (sparse, masked)]
    x, upstream = integers(8, 32), integers(8, 48)
    for _ in range(3):
        for layer, optimizer in zip((sparse, masked), optimizers, strict=True):
            optimizer.zero_grad()
            layer(x).backward(upstream)
            optimizer.step()
    same = torch.equal(sparse(x), masked(x))
    assert same == (count_steps or "fused" not in options)
    assert kernels.packs == (4 if same else 1)


def test_new_masks_are_packed(kernels):
    sparse, masked = pair(gradient="straight_through")
    for layer in (sparse, masked):
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
        mt.SparseTraining(layer, optimizer, update_every=1, decay=0.25)
        for seed in range(3):
            optimizer.zero_grad()
            layer(integers(8, 32, seed=seed)).backward(integers(8, 48, seed=seed + 5))
            optimizer.step()
    assert torch.equal(find_masked(sparse).mask, find_masked(masked).mask)
    x = integers(8, 32)
    torch.testing.assert_close(sparse(x), masked(x))
    assert kernels.packs == 4


def test_what_is_packed_is_neither_saved_nor_copied_and_goes_with_the_layer(kernels):
    sparse, _ = pair()
    names = set(sparse.state_dict())
    sparse(integers(8, 32))
    packed = [weakref.ref(tensor) for tensor in sparse._packed._last[2]]
    assert len(packed) == 4
    assert set(sparse.state_dict()) == names
    assert len(list(sparse.buffers())) == 1
    other = copy.deepcopy(sparse)
    assert not other._packed._last[2]
    in_place(other)
    assert torch.equal(
        other(integers(8, 32)), functional.linear(integers(8, 32), other.weight, other.bias)
    )
    assert kernels.packs == 2
    mt.desparsify(sparse)
    assert vars(sparse).keys() == vars(nn.Linear(2, 2)).keys()
    gc.collect()
    assert not any(reference() is not None for reference in packed)


def test_inference_before_training(kernels):
    sparse, masked = pair()
    x, upstream = integers(8, 32), integers(8, 48)
    with torch.inference_mode():
        assert torch.equal(sparse(x), masked(x))
    assert_same(step(sparse, x, upstream), step(masked, x, upstream))
    assert kernels.packs == 1
    with torch.inference_mode():
        sparse, masked = pair()
        sparse(x)
        in_place(sparse)
        in_place(masked)
        assert torch.equal(sparse(x), masked(x))


def replay(layer):
    """What a replay of an optimizer's step does: it writes, and neither versions nor hooks tell."""
    dense_weight(layer).data.mul_(-1)


@pytest.mark.parametrize("held", ["the layer", "a step"])
def test_nothing_is_kept_of_what_a_cuda_graph_may_change(kernels, monkeypatch, held):
    monkeypatch.setattr(semi_structured, "_steps", functools.cache(semi_structured._Steps))
    sparse, masked = pair()
    x = integers(8, 32)
    sparse(x)
    replay(sparse)
    replay(masked)
    assert not torch.equal(sparse(x), masked(x))  # this is what nobody sees
    sparse.repack()
    sparse(x)
    kept = [weakref.ref(tensor) for tensor in sparse._packed._last[2]]
    with monkeypatch.context() as capture:
        capture.setattr(semi_structured, "_is_capturing", lambda: True)
        if held == "the layer":
            sparse(x)
        else:
            semi_structured._steps()(None, (), {})
    for _ in range(2):
        replay(sparse)
        replay(masked)
        before = kernels.packs
        assert torch.equal(sparse(x), masked(x))
        assert kernels.packs == before + 1
    gc.collect()
    assert len(kept) == 4
    assert not any(reference() is not None for reference in kept)
    other = copy.deepcopy(sparse)  # no graph holds it
    before = kernels.packs
    for _ in range(2):
        other(x)
    assert kernels.packs == before + (1 if held == "the layer" else 2)


def test_a_capture_is_seen_only_where_cuda_is_in_use(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    for used in (True, False):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda used=used: used)
        assert semi_structured._is_capturing() == used


class NoOrder(Reference):
    """In a tile with NaN puts zeros first, NaN last: to the kernels' comparisons any order is right."""

    def pack(self, matrix):
        def rank(values):
            missing = values.isnan()
            disorder = (values == 0).double() - missing.double()
            return torch.where(missing.any(1, keepdim=True), disorder, values.abs())

        packed = tile_greedily(matrix, rank)
        return [packed, packed != 0, packed.T.contiguous(), packed.T != 0]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("compile_it", [False, True])
def test_a_weight_that_is_not_finite_is_not_hidden(kernels, monkeypatch, value, compile_it):
    monkeypatch.setattr(kernels, "pack", NoOrder().pack)
    sparse, masked = pair()
    row, column = find_masked(sparse).mask.nonzero()[5]
    for layer in (sparse, masked):
        with torch.no_grad():
            dense_weight(layer)[row, column] = value
    x, upstream = integers(8, 32, low=1), integers(8, 48, low=1)
    torch.compiler.reset()
    layer = torch.compile(sparse, fullgraph=True, backend="aot_eager") if compile_it else sparse
    each = x.clone().requires_grad_()
    output = layer(each)
    (gradient,) = torch.autograd.grad(output, each, upstream)
    for found, expected in zip((output, gradient), step(masked, x, upstream)[:2], strict=True):
        assert torch.equal(found.isfinite(), expected.isfinite())
        assert not found.isfinite().all()
    torch.compiler.reset()


def test_a_layer_that_is_called_by_other_weights(kernels):
    sparse, masked = pair()
    x = integers(8, 32)
    sparse(x)
    other = {"parametrizations.weight.original": -dense_weight(sparse).detach()}
    found, expected = (torch.func.functional_call(layer, other, (x,)) for layer in (sparse, masked))
    assert torch.equal(found, expected)
    assert torch.equal(sparse(x), masked(x))
    assert kernels.products == 3


def test_checkpointed_layers_pack_once(kernels):
    from torch.utils.checkpoint import checkpoint

    sparse, masked = pair()
    x, upstream = integers(8, 32), integers(8, 48)
    found = step(lambda_layer(sparse, checkpoint), x, upstream)
    assert_same(found, step(masked, x, upstream))
    assert kernels.packs == 1


def lambda_layer(layer, checkpoint):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return checkpoint(self.layer, x, use_reentrant=False)

    return Checkpointed()


# ---- torch.compile and transforms


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("weight_gradient", ["dense", "mvue"])
def test_it_compiles_as_one_graph_that_packs_once_a_call(kernels, weight_gradient, sparse):
    torch.compiler.reset()
    kernels.column_major = True
    layer, masked = pair(weight_gradient=weight_gradient, gradient="sr_ste", decay=0.5)
    if not sparse:
        layer.least_products = 2**40
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for seed in range(2):
        x, upstream = integers(12, 32, seed=seed), integers(12, 48, seed=seed + 7)
        upstream[2::4] = upstream[3::4] = 0
        expected = step(masked, x, upstream)
        each = x.clone().requires_grad_()
        output = compiled(each)
        gradients = torch.autograd.grad(output, [each, *layer.parameters()], upstream)
        assert_same((output, *gradients), expected)
        in_place(layer)  # no stale numbers in the graph
        in_place(masked)
    calls = kernels.packs, kernels.compressions, kernels.products
    mvue = 2 * (weight_gradient == "mvue")
    assert calls == ((2, mvue, 4 + mvue) if sparse else (0, 0, 0))
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("how", ["no_grad", "inference_mode", "frozen"])
def test_it_compiles_where_nothing_wants_a_gradient(kernels, monkeypatch, sides, how):
    """Of kernels that pack one tensor a side, as cuSPARSELt does, and of two."""
    torch.compiler.reset()
    if sides == 1:
        pack, multiply = kernels.pack, kernels.multiply
        monkeypatch.setattr(kernels, "pack", lambda matrix: pack(matrix)[::2])
        compress = kernels.compress
        monkeypatch.setattr(kernels, "compress", lambda matrix: compress(matrix)[:1])
        monkeypatch.setattr(
            kernels, "multiply", lambda packed, *rest: multiply((packed[0], packed[0] != 0), *rest)
        )
        forget_trials()
    sparse, masked = pair()
    compiled = torch.compile(sparse, fullgraph=True, backend="aot_eager")
    if how == "frozen":
        sparse.requires_grad_(False)
    context = contextlib.nullcontext() if how == "frozen" else getattr(torch, how)()
    x = integers(8, 32)
    with context:
        for layer in (compiled, compiled, sparse):
            assert torch.equal(layer(x), masked(x))
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf"
)  # PyTorch's own
def test_micro_batches_share_one_packing_outside_compiled_graphs(kernels):
    torch.compiler.reset()
    sparse, masked = pair()
    sparse.in_graphs = False
    model = nn.Sequential(nn.ReLU(), sparse, nn.ReLU())
    compiled = torch.compile(model, backend="aot_eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for step_ in range(2):
        for seed in range(3):
            x, upstream = integers(8, 32, seed=seed), integers(8, 48, seed=seed + 3)
            each = x.clone().requires_grad_()
            output = compiled(each)
            (gradient,) = torch.autograd.grad(output, each, upstream)
            expected_input = x.clone().requires_grad_()
            expected = functional.relu(masked(functional.relu(expected_input)))
            assert torch.equal(output, expected)
            (wanted,) = torch.autograd.grad(expected, expected_input, upstream)
            assert torch.equal(gradient, wanted)
        assert kernels.packs == step_ + 1
        in_place(sparse)
        in_place(masked)
        optimizer.step()
    torch.compiler.reset()


def test_the_operators_keep_their_word(kernels):
    semi_structured._layouts("reference", torch.device("cpu"), torch.bfloat16, 16, 64)
    for kernels.column_major in (False, True):
        matrix = integers(16, 64) * torch.tensor([1, 0, 0, 1]).repeat(16)
        for bias in (None, integers(16)):
            for rows in (integers(8, 64), integers(64, 8).T):
                product = semi_structured._packed_product
                torch.library.opcheck(
                    product, (kernels.pack(matrix)[:2], rows, bias, 16, "reference")
                )
            compressed = semi_structured._compressed_product
            fits = matrix.new_ones(16, 64) * (
                (torch.arange(16)[:, None] + torch.arange(64)) % 4 < 2
            )
            torch.library.opcheck(semi_structured._packed, (fits, "reference"))
            torch.library.opcheck(compressed, (matrix, integers(8, 64), "reference"))


def test_transforms_take_the_masked_weight(kernels):
    sparse, masked = pair()
    x = integers(5, 8, 32)
    assert torch.equal(torch.func.vmap(sparse)(x), torch.func.vmap(masked)(x))
    assert not kernels.products


# ---- wrapped


@pytest.fixture
def group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", ["DDP", "FSDP2"])
@pytest.mark.usefixtures("group")
def test_models_that_are_wrapped_train_alike(kernels, kind):
    results = []
    for execution in ("sparse", "masked"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 32)).bfloat16()
        mt.sparsify(model, 2, 4, execution=execution)
        if kind == "DDP":
            wrapped = nn.parallel.DistributedDataParallel(model)
        else:
            mesh = init_device_mesh("cpu", (1,))
            for layer in (model[0], model[2]):
                fully_shard(layer, mesh=mesh)
            wrapped = fully_shard(model, mesh=mesh)
        before = kernels.products
        optimizer = torch.optim.AdamW(wrapped.parameters(), lr=0.25)
        outputs = []
        for seed in range(6):
            output = wrapped(integers(8, 32, seed=seed))
            output.backward(integers(8, 32, seed=seed + 9))
            outputs.append(output.detach())
            if seed % 2:
                optimizer.step()
                optimizer.zero_grad()
        results.append(outputs)
        assert kernels.products - before == (18 if execution == "sparse" else 0)
    torch.testing.assert_close(*results)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.usefixtures("group")
def test_no_pack_outlives_its_product_under_fsdp(kernels, monkeypatch):
    packed, pack = [], kernels.pack

    def noted(matrix):
        parts = pack(matrix)
        packed.extend(map(weakref.ref, parts))
        return parts

    monkeypatch.setattr(kernels, "pack", noted)
    sparse, masked = pair(bias=False)
    model = fully_shard(nn.Sequential(sparse), mesh=init_device_mesh("cpu", (1,)))
    x, upstream = integers(8, 32), integers(8, 48)
    each = x.clone().requires_grad_()
    output = model(each)
    gc.collect()
    assert len(packed) == 4
    assert not any(part() is not None for part in packed)
    output.backward(upstream)
    gc.collect()
    assert len(packed) == 8
    assert not any(part() is not None for part in packed)
    found = output, each.grad, dense_weight(sparse).grad.full_tensor()
    assert_same(found, step(masked, x, upstream))


# ---- which layers, and what is said of the others


def test_reasons_not_to_run_sparse(kernels):
    sparse, _ = pair()
    assert str(mt.execution_report(sparse)[0]) == ": sparse, by reference"
    report = mt.execution_report
    sparse.least_products = 8 * 32 * 48
    assert "least_products" in report(sparse, tokens=7)[0].reason
    assert report(sparse, tokens=8)[0].execution == "sparse"
    sparse(integers(7, 32))
    assert not kernels.products
    sparse(integers(8, 32))
    assert kernels.products
    assert "torch.float32" in report(sparse, dtype=torch.float32)[0].reason
    kernels.multiple = 32
    assert report(sparse)[0].reason == "reference takes multiples of 32"
    kernels.multiple = 16
    parametrize.register_parametrization(sparse, "weight", nn.Identity())
    assert "not a mask alone" in report(sparse)[0].reason
    with pytest.raises(errors.OptionError, match="no masks"):
        report(nn.Linear(4, 4))
    for tokens in (-1, 1.5, "many"):
        with pytest.raises(errors.OptionError, match="tokens must be"):
            report(sparse, tokens=tokens)


def test_on_the_cpu_all_is_masked_dense():
    sparse, masked = pair(64, 64)
    sparse.least_products = 1
    x, upstream = integers(8, 64), integers(8, 64)
    assert_same(step(sparse, x, upstream), step(masked, x, upstream))
    assert mt.execution_report(sparse)[0].reason == "on the device 'cpu'"
    assert mt.execution_report(masked)[0].reason == "sparsified without execution='sparse'"


class Own(nn.Linear):
    pass


def test_sparsify_says_which_layers_never_can():
    model = nn.Sequential(
        nn.Linear(32, 32), Own(32, 32), nn.Conv1d(16, 16, 1), nn.Linear(32, 12),
        mt.MVUELinear(32, 32, estimator="approximate"),
    )  # fmt: skip
    names = {name for name, _ in model.named_parameters()}
    report = mt.sparsify(model, 2, 4, execution="sparse")
    assert [entry.execution for entry in report.masked] == ["sparse", *["masked"] * 3, "sparse"]
    reasons = [entry.not_sparse for entry in report.masked]
    assert reasons[1:4] == [
        "of class Own, not torch.nn.Linear itself",
        "of class Conv1d, not torch.nn.Linear itself",
        "it is 12×32: no multiples of 16",
    ]
    assert "execution sparse" in str(report.masked[0])
    assert "execution masked: it is 12×32" in str(report.masked[3])
    assert [entry.reason for entry in mt.execution_report(model)][1:4] == reasons[1:4]
    assert model[4].estimator == "approximate"
    assert "estimator=approximate" in repr(model[4])
    mt.check_sparsity(model)
    for each in (copy.deepcopy(model), model):
        mt.desparsify(each)
        kinds = [nn.Linear, Own, nn.Conv1d, nn.Linear, mt.MVUELinear]
        assert [type(layer) for layer in each] == kinds
        assert {name for name, _ in each.named_parameters()} == names
        assert each[4].estimator == "approximate"


@pytest.mark.parametrize(
    ("n", "m", "sparse"),
    [(2, 4, 1), (1, 4, 1), (1, 2, 1), (2, 8, 1), (1, 8, 1), (3, 4, 0), (4, 8, 0), (2, 2, 0), (2, 6, 0), (2, 3, 0)],
)  # fmt: skip
def test_patterns_with_at_most_two_of_four(n, m, sparse):
    layer = nn.Linear(48, 48)
    if not sparse:
        with pytest.raises(
            errors.OptionError, match=f"possible in no layer.*{n}:{m} may keep more"
        ):
            mt.sparsify(layer, n, m, execution="sparse")
        assert not parametrize.is_parametrized(layer)
        return
    mt.sparsify(layer, n, m, execution="sparse")
    mask = find_masked(layer).mask
    for lines in (mask, mask.T):
        assert lines.reshape(-1, 4).sum(1).max() <= 2


def test_tied_layers(kernels):
    model = nn.Sequential(nn.Linear(32, 32, bias=False), nn.Linear(32, 32, bias=False)).bfloat16()
    model[1].weight = model[0].weight
    mt.sparsify(model, 2, 4, execution="sparse")
    x = integers(8, 32)
    expected = x @ model[0].weight.T @ model[0].weight.T
    torch.testing.assert_close(model(x), expected)
    assert kernels.packs == 2


def test_options_that_cannot_be_are_told():
    with pytest.raises(errors.OptionError, match="one of 'masked', 'sparse', got 'fast'"):
        mt.sparsify(nn.Linear(32, 32), 2, 4, execution="fast")


def test_no_prototype_warning():
    """The operators are called directly: neither the tensor subclass nor its warning is loaded."""
    from torch.sparse import SparseSemiStructuredTensor

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer = pair(64, 64)[0]
        layer(integers(8, 64))
    assert not SparseSemiStructuredTensor._PROTOTYPE_WARNING_SHOWN


# ---- on a GPU


@needs_gpu
@pytest.mark.parametrize("name", semi_structured.KERNELS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_kernels_compute_what_the_masked_layer_does(name, dtype):
    fault = semi_structured._fault(name, torch.device("cuda"), dtype, 384, 256)
    if fault:
        pytest.skip(fault)
    for weight_gradient in ("dense", "mvue"):
        sparse, masked = pair(256, 384, dtype=dtype, weight_gradient=weight_gradient)
        for layer in (sparse.cuda(), masked.cuda()):
            layer.least_products, layer.kernels = 1, (name,)
        assert mt.execution_report(sparse)[0].reason == f"by {name}"
        for tokens in (8, 17, 192):
            x = integers(tokens, 256, dtype=dtype, low=-1, high=1).cuda()
            upstream = integers(tokens, 384, dtype=dtype, low=-1, high=1).cuda()
            results = []
            for layer in (sparse, masked):
                torch.manual_seed(0)
                results.append(step(layer, x, upstream))
            torch.testing.assert_close(*results)


@needs_gpu
def test_some_kernels_work_here():
    device = torch.device("cuda")
    faults = [
        semi_structured._fault(name, device, torch.bfloat16, 384, 256)
        for name in semi_structured.KERNELS
    ]
    assert "" in faults, faults


@needs_gpu
@pytest.mark.parametrize("weight_gradient", ["dense", "mvue"])
def test_it_compiles_on_the_gpu(weight_gradient):
    sparse, masked = pair(256, 384, weight_gradient=weight_gradient)
    sparse.cuda().least_products = 1
    masked.cuda()
    x = integers(64, 256, low=-1, high=1).cuda()
    upstream = integers(64, 384, low=-1, high=1).cuda()
    upstream[2::4] = upstream[3::4] = 0
    compiled = torch.compile(sparse, fullgraph=True)
    each = x.clone().requires_grad_()
    output = compiled(each)
    gradients = torch.autograd.grad(output, [each, *sparse.parameters()], upstream)
    torch.testing.assert_close((output, *gradients), step(masked, x, upstream))


@needs_gpu
def test_a_cuda_graph_packs_at_every_replay():
    sparse, masked = pair(256, 384)
    sparse.cuda().least_products = 1
    masked.cuda()
    x = integers(64, 256, low=-1, high=1).cuda()
    with torch.no_grad():
        sparse(x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = sparse(x)
        for layer in (sparse, masked):
            in_place(layer)
        graph.replay()
        torch.testing.assert_close(output, masked(x))


@needs_gpu
def test_a_cuda_graph_that_holds_a_whole_step_leaves_no_stale_pack():
    sparse, masked = pair(256, 384)
    sparse.cuda().least_products = 1
    masked.cuda()
    x = integers(64, 256, low=-1, high=1).cuda()
    optimizers = [torch.optim.SGD(layer.parameters(), lr=0.5) for layer in (sparse, masked)]

    def train(layer, optimizer):
        layer(x).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for layer, optimizer in zip((sparse, masked), optimizers, strict=True):
            train(layer, optimizer)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        train(sparse, optimizers[0])
    for _ in range(2):
        graph.replay()
        train(masked, optimizers[1])
        with torch.no_grad():
            torch.testing.assert_close(sparse(x), masked(x))
