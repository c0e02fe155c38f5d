"""On a GPU: mask search and gated activations against copies, sparse training steps against dense ones.

Every contestant is checked on fresh random numbers before it is timed. Times are those between CUDA
events around one call, with the cache flushed before; contestants take turns in every repeat. On
the CPU, where kernels run in Triton's interpreter, only tiny sizes are of use: to try this script.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import masksolve as ms
import masksolve.torch as mt

from .measure import Tell
from .report import Goal, finite, goal_record, middle, table, time_of
from .transformer import ByteTransformer

__all__ = ["Contestant", "contestants", "measure", "reach", "to_markdown", "transport", "write"]

PATTERNS = ((2, 4), (4, 8), (8, 16), (16, 32))
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
#: Of the peer, as on the CPU: Dykstra iterations, and the weight of the entropy.
ITERATIONS, REGULARISATION = 100, 0.02


@dataclass(frozen=True)
class Contestant:
    """One thing to time.

    Parameters
    ----------
    group : str
        Those that are compared with each other.
    name : str
    call : callable
        What is timed.
    check : callable
        Raises if the call's answer is wrong; returns the share of the score that it keeps, NaN if
        that makes no sense.
    """

    group: str
    name: str
    call: Callable[[], Any]
    check: Callable[[Any], float]


def contestants(size: int, device: str) -> Iterator[Contestant]:
    """Yield everything that is timed at a size."""
    generator = torch.Generator(device).manual_seed(size)
    for dtype_name, dtype in DTYPES.items():
        W = torch.randn(size, size, dtype=dtype, device=device, generator=generator)
        moved = torch.empty(W.nbytes + W.numel(), dtype=torch.uint8, device=device)
        half = moved.numel() // 2
        yield Contestant(
            f"{size}² {dtype_name}",
            "copy",
            lambda m=moved, h=half: m[:h].copy_(m[h : 2 * h]),
            _nothing,
        )
        for n, m in PATTERNS:
            yield from _searches(W, n, m, f"{size}² {dtype_name}")
    for dtype_name, dtype in DTYPES.items():
        gates = torch.randn(size, 2 * size, dtype=dtype, device=device, generator=generator)
        yield from _activations(gates, f"gated {size}² {dtype_name}")
    A = torch.randn(size, size, dtype=torch.bfloat16, device=device, generator=generator)
    yield Contestant(f"matmul {size}³ bfloat16", "dense", lambda: A @ A, _nothing)
    yield from _networks(f"FFN {size}", lambda: _ffn(size), _tokens_for(size, device))
    yield from _networks(
        f"transformer {size}",
        lambda: ByteTransformer(size, depth=2, heads=max(1, size // 64), context=128),
        torch.randint(
            256, (64 if device == "cuda" else 2, 128), device=device, generator=generator
        ),
    )


def _ffn(size: int) -> nn.Module:
    return nn.Sequential(nn.Linear(size, 8 * size), mt.GEGLU(), nn.Linear(4 * size, size))


def _tokens_for(size: int, device: str) -> Tensor:
    return torch.randn(8192 if device == "cuda" else 16, size, dtype=torch.bfloat16, device=device)


def _networks(group: str, build: Callable[[], nn.Module], x: Tensor) -> Iterator[Contestant]:
    """Yield passes and whole steps of a network in bfloat16: dense, and 2:4 by sparse products."""

    def make(update_every: int | None) -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = build().to(x.device, torch.bfloat16)
        if update_every:
            mt.sparsify(model, 2, 4, exclude=lambda name, _: name == "head", execution="sparse")
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        if update_every:
            mt.SparseTraining(model, optimizer, update_every=update_every, decay=1e-5)
        return model, optimizer

    for name, update_every in (
        ("dense", None), ("sparse", 10**9), ("sparse, at an update of masks", 1)
    ):  # fmt: skip
        model, optimizer = make(update_every)

        def forward(model: nn.Module = model) -> Tensor:
            with torch.no_grad():
                output: Tensor = model(x)
            return output

        def both(model: nn.Module = model) -> Tensor:
            output: Tensor = model(x)
            output.float().square().mean().backward()  # type: ignore[no-untyped-call]
            return output

        def step(
            both: Callable[[], Tensor] = both, optimizer: torch.optim.Optimizer = optimizer
        ) -> Tensor:
            optimizer.zero_grad()
            output = both()
            optimizer.step()
            return output

        def judge(found: Tensor, model: nn.Module = model, name: str = name) -> float:
            """Compare with the same weights, multiplied out in float32."""
            exact = copy.deepcopy(model)
            if name != "dense":
                mt.check_sparsity(exact)
                mt.desparsify(exact)
            with torch.no_grad():
                expected = exact.float()(x.float() if x.is_floating_point() else x)
            error = (found.float() - expected).norm() / expected.norm()
            if not error < 0.03:
                raise AssertionError(f"{group}, {name}: off by {float(error):.1%}")
            return float("nan")

        if update_every != 1:
            yield Contestant(group, f"{name}, forward", forward, judge)
            yield Contestant(group, f"{name}, forward and backward", both, judge)
        yield Contestant(group, f"{name}, step", step, _nothing)


def _searches(W: Tensor, n: int, m: int, group: str) -> Iterator[Contestant]:
    from masksolve.torch.gpu import flow, two_four

    best = ms.solve(W[: 4 * m, : 4 * m].float().cpu().numpy(), n, m).kept_share

    def judge(mask: Tensor) -> float:
        ms.check_mask(mask.cpu().numpy(), n, m, degree="exact")
        corner = W[: 4 * m, : 4 * m].float().abs()
        found = float(corner[mask[: 4 * m, : 4 * m]].sum() / corner.sum())
        if found < best - 1e-5:
            raise AssertionError(f"{n}:{m} keeps {found:.6f} of a corner, the best is {best:.6f}")
        return _share(W, mask)

    if (n, m) == (2, 4):
        yield Contestant(
            group, "2:4, all patterns", lambda: two_four.find_masks(W[None])[0][0], judge
        )
        if W.is_cuda and W.dtype == torch.bfloat16:
            yield Contestant(group, "2:4, PyTorch's tile kernel (greedy, and packing)", lambda: _tile(W), _nothing)  # fmt: skip
    else:
        yield Contestant(
            group, f"{n}:{m}, flow", lambda: flow.find_masks(W[None], n, m)[0][0], judge
        )
    if m == 16:
        yield Contestant(
            group, f"{n}:{m}, TSENOR's transport alone", lambda: transport(W, n, m), _nothing
        )


def _share(W: Tensor, mask: Tensor) -> float:
    scores = W.float().abs()
    return float(scores[mask].double().sum() / scores.double().sum())


def _tile(W: Tensor) -> Any:
    return torch._sparse_semi_structured_tile(W, algorithm="largest_abs_values_greedy")  # type: ignore[attr-defined]


def transport(W: Tensor, n: int, m: int) -> Tensor:
    r"""Entropic optimal transport of every block, as TSENOR has it, without rounding and swaps.

    :math:`\max_S \langle S, |W| \rangle + H(S)/\tau` with all row and column sums n and S in [0, 1],
    by Dykstra's alternating projections on log S in float32 (Meng, Makni, Mazumder, NeurIPS 2025,
    algorithm 1). To leave out the rounding favours it.
    """
    rows, columns = W.shape[0] // m, W.shape[1] // m
    blocks = W.float().abs().reshape(rows, m, columns, m).transpose(1, 2).reshape(-1, m, m)
    S = blocks / (REGULARISATION * blocks.amax((1, 2), keepdim=True))
    Q = torch.zeros_like(S)
    wanted = torch.log(torch.tensor(float(n), device=W.device))
    for _ in range(ITERATIONS):
        S = S + (wanted - S.logsumexp(2, keepdim=True))
        S = S + (wanted - S.logsumexp(1, keepdim=True))
        free = S + Q
        S = free.clamp(max=0)
        Q = free - S
    return S


def _activations(gates: Tensor, group: str) -> Iterator[Contestant]:
    out = torch.empty_like(gates[:, : gates.shape[1] // 2])
    moved = torch.empty(gates.nbytes + out.nbytes, dtype=torch.uint8, device=gates.device)
    half = moved.numel() // 2
    yield Contestant(group, "copy", lambda: moved[:half].copy_(moved[half : 2 * half]), _nothing)

    def eager(x: Tensor) -> Tensor:
        gate, value = x.chunk(2, dim=-1)
        return F.gelu(gate) * value

    expected = eager(gates.double())

    def judge(found: Tensor) -> float:
        torch.testing.assert_close(found.double(), expected, rtol=2e-2, atol=1e-3)
        return float("nan")

    turned = gates.t().contiguous().t()
    yield Contestant(group, "geglu", lambda: mt.geglu(gates), judge)
    yield Contestant(group, "geglu, column-major", lambda: mt.geglu(turned), judge)
    yield Contestant(group, "eager", lambda: eager(gates), judge)
    yield Contestant(group, "eager, column-major", lambda: eager(turned), judge)
    if gates.is_cuda:
        yield Contestant(group, "torch.compile", torch.compile(lambda: eager(gates)), judge)


def _nothing(_: Any) -> float:
    return float("nan")


def measure(sizes: tuple[int, ...], repeats: int, device: str, tell: Tell) -> list[dict[str, Any]]:
    """Check and time everything; a record for each contestant, with one time in ms a repeat."""
    flush = torch.empty(64 << 20 if device == "cuda" else 1, dtype=torch.int32, device=device)
    records = []
    for size in sizes:
        entries = list(contestants(size, device))
        shares = [entry.check(entry.call()) for entry in entries]
        times: list[list[float]] = [[] for _ in entries]
        for repeat in range(repeats):
            tell(f"{size}²", repeat, repeats)
            for turn in range(len(entries)):
                index = (turn + repeat) % len(entries)
                flush.zero_()
                times[index].append(_milliseconds(entries[index].call, device))
        records += [
            {"group": e.group, "name": e.name, "kept_share": share, "ms": ms_of}
            for e, share, ms_of in zip(entries, shares, times, strict=True)
        ]
    return records


def _milliseconds(call: Callable[[], Any], device: str) -> float:
    if device != "cuda":
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()  # type: ignore[no-untyped-call]
    call()
    end.record()  # type: ignore[no-untyped-call]
    end.synchronize()
    return float(begin.elapsed_time(end))


def reach(records: list[dict[str, Any]]) -> list[Goal]:
    """Form the goals: ratios within each repeat, and milliseconds."""
    times = {(record["group"], record["name"]): record["ms"] for record in records}

    def ratios(group: str, one: str, other: str) -> list[float]:
        pairs = zip(times.get((group, one), []), times.get((group, other), []), strict=True)
        return [a / b for a, b in pairs]

    def steps(group: str) -> list[float]:
        """Divide a sparse step by a dense one; masks are found every 40 steps."""
        kinds = "dense, step", "sparse, step", "sparse, at an update of masks, step"
        dense, between, update = (times.get((group, kind), []) for kind in kinds)
        return [(39 * b + u) / 40 / d for d, b, u in zip(dense, between, update, strict=True)]

    large = "8192² bfloat16"
    return [
        Goal("2:4 exact, 8192² bfloat16, against a copy", "<= 2×", "1.3×", (2.0, 1.3), ratios(large, "2:4, all patterns", "copy")),
        Goal("8:16 exact, 8192², ms", "<= 12", "4", (12.0, 4.0), times.get((large, "8:16, flow"), [])),
        Goal("16:32 exact, 8192², ms", "<= 30", "10", (30.0, 10.0), times.get((large, "16:32, flow"), [])),
        Goal("8:16, TSENOR's transport against ours", ">= 10×", "50×", (10.0, 50.0), ratios(large, "8:16, TSENOR's transport alone", "8:16, flow"), better="high"),
        Goal("geglu forward, 8192² bfloat16, against a copy", "<= 1.3×", "1.1×", (1.3, 1.1), ratios(f"gated {large}", "geglu", "copy")),
        Goal("FFN step at 4096, against dense", "< 1×", "1/1.3×", (1.0, 1 / 1.3), steps("FFN 4096")),
        Goal("transformer step at 4096, against dense", "", "", (None, None), steps("transformer 4096")),
        Goal("geglu forward, column-major, against a copy", "<= 1.3×", "1.1×", (1.3, 1.1), ratios(f"gated {large}", "geglu, column-major", "copy")),
    ]  # fmt: skip


def to_markdown(data: dict[str, Any]) -> str:
    """Return the tables of a run as Markdown."""
    goals = [
        [goal.what, goal.must, goal.aim, *(middle(goal.ratios) if goal.ratios else ("", "")), goal.verdict]
        for goal in reach(data["records"])
    ]  # fmt: skip
    rows = [
        [
            record["group"],
            record["name"],
            time_of([value / 1e3 for value in record["ms"]]),
            "" if record["kept_share"] != record["kept_share"] else f"{record['kept_share']:.4f}",
        ]
        for record in data["records"]
    ]
    lines = [
        "# masksolve on a GPU",
        "",
        f"Written by `python -m benchmarks gpu`; not to be edited. {data['device']}; "
        + ", ".join(f"{k} {v}" for k, v in data["versions"].items())
        + f"; {data['date']}. {data['settings']['repeats']} repeats, interleaved; medians, with "
        f"quartiles. A *copy* moves as many bytes as the scores and the mask have, or the input and "
        f"the output. FFN: 8192 tokens through size → 8 size → GEGLU → size, AdamW, masks every 40 "
        f"steps and packing included in a step. TSENOR: {ITERATIONS} iterations, regularisation {REGULARISATION}, without "
        f"rounding and swaps.",
        "",
        "## Reach",
        "",
        *table(["what", "must", "aim", "measured", "quartiles", "verdict"], goals),
        "",
        "## All",
        "",
        *table(["size", "what", "time", "kept share"], rows),
    ]
    return "\n".join(lines) + "\n"


def write(data: dict[str, Any], folder: Path) -> list[Path]:
    """Write ``gpu.json`` and ``gpu.md``; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "gpu.json", folder / "gpu.md"]
    goals = [goal_record(goal) for goal in reach(data["records"])]
    paths[0].write_text(
        json.dumps(finite({**data, "reach": goals}), indent=1, allow_nan=False) + "\n"
    )
    paths[1].write_text(to_markdown(data))
    return paths
