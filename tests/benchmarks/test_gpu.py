"""A tiny run of the GPU benchmark, in Triton's interpreter where there is no GPU."""

import json

import pytest
import torch
from torch.nn import functional

import masksolve as ms
import masksolve.torch as mt
from benchmarks import gpu, gpu_networks, gpu_peers, peers
from masksolve.torch import semi_structured

pytest.importorskip("triton", reason="Triton is there for Linux alone")

DEVICE, SIZE = ("cuda", 128) if torch.cuda.is_available() else ("cpu", 32)
SEED = 7


class Reference:
    """Kernels on the CPU that stand in for PyTorch's, and count what is packed."""

    multiple = 16

    def __init__(self):
        self.packs, self.falsify = 0, lambda packed: packed

    def pack(self, matrix):
        self.packs += 1
        return self.falsify([matrix.clone(), matrix.T.contiguous()])

    def compress(self, matrix):
        return [matrix.clone()]

    def multiply(self, packed, rows, bias):
        return functional.linear(rows, packed[0], bias)

    def is_transposed(self, rows):  # noqa: ARG002
        return False


@pytest.fixture
def kernels(monkeypatch):
    reference = Reference()
    monkeypatch.setattr(semi_structured, "KERNELS", {"reference": reference})
    monkeypatch.setattr(semi_structured, "_DEVICES", ("cpu",))
    monkeypatch.setattr(mt.SparseLinear, "kernels", ("reference",))
    monkeypatch.setattr(mt.SparseLinear, "least_products", 1)
    semi_structured._fault.cache_clear()
    yield reference
    semi_structured._fault.cache_clear()


def task(kind=gpu_networks.feed_forward, size=32, amount=16):
    return kind(size, amount, "cpu", torch.Generator().manual_seed(SEED))


def network(execution="sparse", **options):
    made = gpu_networks.Network(task(**options), execution, SEED)
    assert made.report or execution is None  # kernels are tried: that packs, too
    return made


def rows_of(made):
    return {row.name: row for row in gpu._passes(made, SEED)}


def draw(size=SIZE, device=DEVICE):
    return gpu._Draw(size, device, SEED)


def data_of(records):
    return {
        "date": "now", "device": "x", "versions": gpu.versions(), "records": records,
        "settings": {"repeats": 2, "seed": SEED},
    }  # fmt: skip


def test_run_and_report(tmp_path):
    told = []
    only = ["limits", "*bfloat16*", "gated*", "FFN*", "transformer*"]  # the interpreter is slow
    groups = list(gpu.measure((SIZE,), 1, DEVICE, lambda *now: told.append(now), SEED, only))
    assert len(groups) == 11
    assert len(told) == (10 if DEVICE == "cpu" else 11)  # packing is of a GPU alone
    assert groups[0][0]["group"] == "limits"
    records = [record for group in groups for record in group]
    if DEVICE == "cpu":
        (pack,) = (r for r in records if r["status"] != "ok")
        assert pack["status"] == "failed: RuntimeError: not sparse: on the device 'cpu'"
        records.remove(pack)
    assert all((r["status"], len(r["ms"])) == ("ok", 1) for r in records)
    names = {record["name"] for record in records}
    assert {"copy", "2:4, all patterns", "4:8, flow", "16:32, flow", "geglu", "swiglu"} <= names
    assert {"16:32, TSENOR", "geglu, eager, column-major", "dense, step", "masked, step"} <= names
    assert not any(name.startswith("sparse") for name in names)
    for record in records:
        if record["name"].endswith("flow"):
            assert abs(record["error"]) < 1e-6
            assert 0.5 < record["kept_share"] <= 1
    masked = next(r for r in records if r["name"] == "masked, step")
    why = "on the device 'cpu'" if DEVICE == "cpu" else "too few tokens × inputs × outputs"
    assert all(f": masked, {why}" in layer for layer in masked["execution"])
    assert len(masked["execution"]) == 2

    paths = gpu.write(data_of(records), tmp_path)
    record = json.loads(paths[0].read_text())
    assert {goal["verdict"] for goal in record["reach"]} == {"not measured"}  # 8192² was not run
    text = paths[1].read_text()
    assert f"seed {SEED}" in text
    assert f"2× masked, {why}" in text
    assert "GB/s" in text
    assert "TFLOP/s" in text
    assert text.count("\n| ") == len(records) + len(record["reach"]) + 4
    for record in records:
        record["group"] = record["group"].replace(f"{SIZE}²", "8192²")
    goals = {goal.what: goal for goal in gpu.reach(records)}
    times = {r["name"]: r["ms"] for r in records if r["group"] == "8192² bfloat16"}
    assert goals["2:4 exact, 8192² bfloat16, against a copy"].ratios == [
        a / b for a, b in zip(times["2:4, all patterns"], times["copy"], strict=True)
    ]
    tsenor = goals["8:16, TSENOR, against ours"]
    assert len(tsenor.ratios) == 1
    assert tsenor.note.startswith("its error")
    # All are measured but the networks, which were not of 4096, and what is compiled.
    absent = [what for what, goal in goals.items() if not goal.ratios]
    assert len(absent) == (3 if DEVICE == "cpu" else 2)


def test_only_some_groups_are_run():
    found = gpu.measure((SIZE,), 1, DEVICE, lambda *_: None, SEED, ["limits", "FFN*"])
    assert [group[0]["group"] for group in found] == ["limits", f"FFN {SIZE}"]


def test_same_numbers_by_the_same_seed():
    first, again, other = (gpu._Draw(8, "cpu", s).normal(8) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# ---- what fails has a row


def contestant(**options):
    return gpu.Contestant(**{"name": "x", "call": lambda: None, **options})


def run(build, repeats=2):
    return gpu._measure_group("g", build, repeats, gpu._Clock(DEVICE), lambda *_: None)


def fail(error):
    def call(*_):
        raise error

    return call


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory"),
        (AssertionError("off\nby much"), "WRONG, not timed: off"),
        (ValueError("no"), "failed: ValueError: no"),
    ],
)
def test_what_fails_is_a_row_without_a_time(error, status):
    def build():
        yield contestant(name="a")
        yield contestant(name="b", call=fail(error))
        yield contestant(name="c", check=fail(error))
        yield contestant(name="d", prepare=fail(error))

    records = run(build)
    assert [len(r["ms"]) for r in records] == [2, 0, 0, 0]
    assert [r["status"] for r in records] == ["ok", status, status, status]
    assert status in gpu.to_markdown(data_of(records))
    (whole,) = run(fail(error))
    assert (whole["name"], whole["status"]) == ("all", status)


def test_what_fails_later_has_no_time_either():
    calls = []

    def call():
        calls.append(1)
        if len(calls) == (3 if DEVICE == "cpu" else 4):
            raise torch.OutOfMemoryError

    (record,) = run(lambda: [contestant(call=call)], 5)
    assert (record["status"], record["ms"]) == ("out of memory", [])


def test_preparation_comes_before_every_call():
    order = []
    run(lambda: [contestant(prepare=lambda: order.append(0), call=lambda: order.append(1))])
    assert order == [0, 1] * (len(order) // 2)


# ---- masks


def test_a_wrong_mask_is_not_timed():
    rows = {c.name: c for c in gpu._searches(draw, "bfloat16")}
    wrong = torch.eye(2, dtype=torch.bool, device=DEVICE).repeat(SIZE // 2, SIZE // 2)
    with pytest.raises(AssertionError, match="have a better 2:4 mask"):
        rows["2:4, all patterns"].check(wrong)


@pytest.mark.parametrize("block", [0, 11, 15])
def test_a_wrong_block_anywhere_is_noticed(block):
    generator = torch.Generator().manual_seed(block)
    W = torch.randn(64, 64, generator=generator)
    mask = torch.from_numpy(ms.find_mask(W.numpy(), 8, 16))
    assert abs(gpu.quality(W, mask, 8, 16, SEED)["error"]) < 1e-6
    row, column = 16 * (block // 4), 16 * (block % 4)
    tile = mask[row : row + 16, column : column + 16]
    tile.copy_(tile.roll(1, 0))
    with pytest.raises(AssertionError, match="1 of 16 random blocks have a better"):
        gpu.quality(W, mask, 8, 16, SEED)
    assert gpu.quality(W, mask, 8, 16, SEED, best=False)["error"] > 1e-3
    tile[3, 5] ^= True
    with pytest.raises(AssertionError, match="1 rows of 16×16 blocks do not keep 8, exact"):
        gpu.quality(W, mask, 8, 16, SEED, best=False)
    tile[3, :8], tile[3, 8:] = True, False
    with pytest.raises(AssertionError, match=r"\d+ columns of 16×16 blocks do not keep 8, exact"):
        gpu.quality(W, mask, 8, 16, SEED, best=False)


def test_the_degree_at_most_has_room():
    W = torch.ones(8, 8)
    gpu.quality(W, torch.zeros(8, 8, dtype=torch.bool), 2, 4, SEED, degree="at_most", best=False)
    with pytest.raises(AssertionError, match="16 rows"):
        gpu.quality(W, W.bool(), 2, 4, SEED, degree="at_most", best=False)
    with pytest.raises(AssertionError, match="no mask of"):
        gpu.quality(W, W, 2, 4, SEED)


def test_hard_scores_are_what_they_are_called():
    zeros = draw(256, "cpu").scores(gpu.ZEROS)
    assert 0.78 < float((zeros == 0).float().mean()) < 0.82
    tails = draw(256, "cpu").scores(gpu.TAILS)
    assert float(tails.abs().max()) > 15  # Gaussian ones end at 5
    assert float(tails.abs().median()) == pytest.approx(0.765, abs=0.03)  # t, 3 degrees


def test_what_the_tile_kernel_keeps_is_judged(monkeypatch):
    W = torch.randn(8, 8)
    mask = torch.from_numpy(ms.find_mask(W.numpy(), 2, 4))
    name = "_sparse_semi_structured_apply_dense"
    monkeypatch.setattr(torch, name, lambda values, bits: values * bits, raising=False)
    best = gpu.quality(W, mask, 2, 4, SEED)
    assert gpu._quality_of_tile(W, mask, SEED) == best
    fewer = mask.clone()
    fewer[0] = False
    assert gpu._quality_of_tile(W, fewer, SEED)["error"] > best["error"]
    with pytest.raises(AssertionError, match="do not keep 2, at_most"):
        gpu._quality_of_tile(W, torch.ones_like(mask), SEED)
    monkeypatch.setattr(torch, name, fail(RuntimeError("not supported\nby it")))
    assert gpu._quality_of_tile(W, mask, SEED) == {
        "note": "what it keeps cannot be told: not supported"
    }


# ---- TSENOR


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (8, 16), (16, 32), (3, 8)])
def test_tsenor_is_that_of_the_cpu(n, m):
    W = torch.randn(64, 64, generator=torch.Generator().manual_seed(SEED))
    mask = gpu_peers.tsenor(W, n, m)
    settings = peers.Tsenor(gpu_peers.ITERATIONS, False, gpu_peers.REGULARISATION)
    expected = peers.tsenor(W.numpy(), n, m, 1, settings)
    ms.check_mask(mask.numpy(), n, m)
    assert (mask.numpy() != expected).mean() < 0.005  # rounding in float32 may decide
    found = gpu.quality(W, mask, n, m, SEED, best=False)
    assert -1e-9 < found["error"] < 0.03


@pytest.mark.parametrize("kind", [torch.zeros, torch.ones])
def test_tsenor_of_ties(kind):
    ms.check_mask(gpu_peers.tsenor(kind(32, 32), 8, 16).numpy(), 8, 16)


def test_the_transport_ends_near_the_constraints():
    W = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    S = gpu_peers.transport(gpu_peers.blocks_of(W.abs(), 16), 8).clamp(max=0).exp()
    for axis in (1, 2):
        assert float((S.sum(axis) - 8).abs().mean()) < 0.05


def test_swaps_are_the_best():
    """Of masks with two a line, one row and one column are to get a third entry."""
    generator = torch.Generator().manual_seed(SEED)
    scores = torch.rand(40, 4, 4, generator=generator)
    flat = torch.rand(160, 4, generator=generator).numpy()
    before = torch.from_numpy(ms.find_mask(flat, 2, 4)).view(40, 4, 4)
    rows, columns = (
        functional.one_hot(torch.randint(4, (40,), generator=generator), 4).to(torch.int8)
        for _ in range(2)
    )
    mask = before.clone()
    ends = list(zip(rows.argmax(1).tolist(), columns.argmax(1).tolist(), strict=True))
    gpu_peers.fill(mask, scores, rows, columns)
    assert not rows.any()
    assert not columns.any()
    for x, w, old, (i, j) in zip(mask, scores, before, ends, strict=True):
        expected = old.clone()
        expected[i, j] = True
        if old[i, j]:
            a, c = max(
                ((a, c) for a, c in old.nonzero().tolist() if not (old[i, c] or old[a, j])),
                key=lambda swap: w[i, swap[1]] + w[swap[0], j] - w[tuple(swap)],
            )
            expected[i, c] = expected[a, j] = True
            expected[a, c] = False
        assert torch.equal(x, expected)


# ---- networks


@pytest.mark.parametrize("kind", [gpu_networks.feed_forward, gpu_networks.transformer])
def test_a_step_packs_every_layer_once_and_a_pass_none(kernels, kind):
    made = network(kind=kind, amount=2)
    layers = len(list(mt.masked_layers(made.model)))
    assert layers == (2 if kind is gpu_networks.feed_forward else 8)
    packs = {"step": layers, "step with new masks": layers, "pack": layers}
    rows = rows_of(made)
    assert len(rows) == 6
    for name, row in rows.items():
        for spoil in (made.step, made.pack):  # nothing of use is packed, or all is
            spoil()
            row.prepare()
            kernels.packs = 0
            row.call()
            assert kernels.packs == packs.get(name.removeprefix("sparse, "), 0), name


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("kind", [gpu_networks.feed_forward, gpu_networks.transformer])
def test_right_networks_pass(kind):
    for execution in ("sparse", "masked", None):
        for row in rows_of(network(execution, kind=kind, amount=2)).values():
            row.prepare()
            row.check(row.call())


@pytest.mark.usefixtures("kernels")
def test_rows_are_called_what_their_layers_are():
    assert network().kind == "sparse"
    assert network(None).kind == "dense"
    masked = network("masked")
    assert set(rows_of(masked)) == {
        f"masked, {what}"
        for what in ("forward", "forward and backward", "backward", "step", "step with new masks")
    }
    some = network(kind=gpu_networks.transformer, amount=2)
    next(mt.masked_layers(some.model)).module.least_products = 2**60
    del some.report
    assert some.kind == "partly sparse"
    assert "partly sparse, pack" in rows_of(some)


@pytest.mark.usefixtures("kernels")
def test_no_masked_step_is_taken_for_a_sparse_one(monkeypatch):
    def records():
        built = list(gpu._networks(lambda: draw(32, "cpu"), gpu_networks.feed_forward, 16))
        made = run(lambda: built, 1)
        return [{**record, "group": "FFN 4096"} for record in made]

    def goal(records):
        return next(g for g in gpu.reach(records) if g.what.startswith("FFN step"))

    sparse = goal(records())
    assert len(sparse.ratios) == 1
    assert sparse.note == "2× sparse, by reference"
    whole = gpu_networks.Network
    monkeypatch.setattr(
        gpu, "Network", lambda task, execution, seed: whole(task, execution and "masked", seed)
    )
    masked = goal(records())
    assert masked.verdict == "not measured"
    assert masked.note == "2× masked, sparsified without execution='sparse'"


def test_a_sparse_step_has_its_share_of_the_updates():
    times = {"dense, step": 2.0, "sparse, step": 1.0, "sparse, step with new masks": 5.0}
    records = [
        {"group": "FFN 4096", "name": name, "status": "ok", "ms": [ms_of]}
        for name, ms_of in times.items()
    ]
    goal = next(g for g in gpu.reach(records) if g.what.startswith("FFN step"))
    assert goal.ratios == [(39 * 1.0 + 5.0) / 40 / 2.0]
    assert goal.verdict == "aim met"


WRONG = {
    "output": lambda packed: [1.1 * packed[0], packed[1]],
    "input gradient": lambda packed: [packed[0], 1.1 * packed[1]],
    "transpose": lambda packed: [packed[0], packed[1].roll(1, 0)],
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("row", ["forward and backward", "backward", "step", "step with new masks"])
def test_wrong_products_are_noticed(kernels, what, row):
    rows = rows_of(network())
    kernels.falsify = WRONG[what]
    row = rows[f"sparse, {row}"]
    row.prepare()
    with pytest.raises(AssertionError, match=r"is off by \d+\.\d%, 3\.0% are allowed"):
        row.check(row.call())


def test_a_wrong_output_is_noticed(kernels):
    row = rows_of(network())["sparse, forward"]
    kernels.falsify = WRONG["output"]
    row.prepare()
    with pytest.raises(AssertionError, match="output is off"):
        row.check(row.call())


@pytest.mark.usefixtures("kernels")
def test_a_wrong_weight_gradient_is_noticed(monkeypatch):
    made = network()
    monkeypatch.setattr(semi_structured, "passed_on", lambda gradient, *_: 1.1 * gradient)
    made.before_both()
    made.both()
    with pytest.raises(AssertionError, match=r"2\.weight is off by 10"):
        made.check(lambda: {"2.weight": made.left()["2.weight"]})


@pytest.mark.usefixtures("kernels")
def test_the_decay_is_in_the_gradients_of_a_step(monkeypatch):
    monkeypatch.setattr(gpu_networks, "DECAY", 100.0)
    made = network()
    row = rows_of(made)["sparse, step"]
    row.check(row.call())
    with pytest.raises(AssertionError, match="weight is off"):
        made.check(made.step_once_more, 50.0)


@pytest.mark.usefixtures("kernels")
def test_a_step_by_what_was_packed_before_is_noticed(monkeypatch):
    made = network()
    made.optimizer.param_groups[0]["lr"] = 0.05
    first = semi_structured._Packed.get
    kept = {}

    def stale(self, *call):
        return kept.setdefault(id(self), first(self, *call))

    monkeypatch.setattr(semi_structured._Packed, "get", stale)
    row = rows_of(made)["sparse, step"]
    with pytest.raises(AssertionError, match="is off"):
        row.check(row.call())


@pytest.mark.usefixtures("kernels")
def test_masks_that_are_not_new_are_noticed(monkeypatch):
    made = network()
    made.optimizer.param_groups[0]["lr"] = 0.05
    monkeypatch.setattr(made.training, "update", lambda: None)
    row = rows_of(made)["sparse, step with new masks"]
    with pytest.raises(AssertionError, match="have a better 2:4 mask"):
        row.check(row.call())


def test_packing_of_one_matrix(kernels):
    (row,) = gpu._packing(lambda: draw(32, "cpu"))
    kernels.packs = 0
    row.check(row.call())
    assert kernels.packs == 1
    assert row.execution == [": sparse, by reference"]
    kernels.falsify = WRONG["transpose"]
    with pytest.raises(AssertionError, match="the packed transpose is another"):
        row.check(row.call())


# ---- gated activations


@pytest.mark.parametrize("backward", [False, True])
def test_a_wrong_activation_is_noticed(backward):
    for row in gpu._activations(lambda: draw(32, "cpu"), "float32", backward=backward):
        if row.name == "copy":
            continue
        row.prepare()
        found = row.call()
        row.check(found)
        wrong = found.clone()
        wrong[7, 5] += 0.01
        with pytest.raises(AssertionError, match="not close"):
            row.check(wrong)
