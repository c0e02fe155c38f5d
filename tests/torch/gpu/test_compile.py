"""The compiler takes what the interpreter took: every kernel for a Hopper GPU, without one."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

TYPES = {"scores": "*bf16", "mask": "*i8", "bad": "*i32"}
PRICES = {"prices": "*fp64", "start": "*fp64", "old": "*i8", "paths": "*i32"}
#: A launch makes constants of what is None, and of sizes and strides of 1.
CONTIGUOUS = {"stride_column": 1}
SINGLE = dict.fromkeys(["blocks", "grid_rows", "grid_columns", "rows", "columns"], 1) | CONTIGUOUS


def two_four(exact, masked, absolute, sizes=CONTIGUOUS, dtype="*bf16", many=False):
    types = {"scores": dtype, "masked": dtype if masked else "*i8"}
    options = {"ABSOLUTE": absolute, "EXACT": exact, "MASKED": masked, "MANY": many}
    options |= {"out_stride_column": 1} if sizes else {}
    return "two_four", "_search", TYPES | types, sizes | options | {"BLOCKS": 128}, 4


def in_blocks(n, m, size, sizes):
    return sizes | {"n": n, "m": m, "SIZE": size, "BLOCKS": 32 // size}


def flow(n, m, size, warm=False, count=False, sizes=CONTIGUOUS):
    """From prices and with prices, or neither; with a count of paths, or none."""
    options = {"ROUNDS": 2 if warm else 3, "ABSOLUTE": not warm}
    options |= {"WARM": warm, "PRICES": warm, "COUNT": count}
    options |= in_blocks(n, m, size, sizes) | ({} if warm else dict.fromkeys(PRICES))
    options |= {} if count else {"paths": None}
    return "flow", "_solve", TYPES | PRICES, options, max(1, size // 16)


def greedy(n, m, size, exact, sizes=CONTIGUOUS):
    options = in_blocks(n, m, size, sizes) | {"ABSOLUTE": exact, "EXACT": exact}
    return "greedy", "_search", TYPES, options, max(1, size // 16)


def gated(name, activation, dtype, square=False):
    """Of rows that are contiguous; or of gates by columns, the others by rows, in square tiles."""
    tensors = {
        "_forward": ["gate", "value", "out"],
        "_backward": ["gradient", "gate", "value", "of_gate", "of_value"],
    }[name]
    sizes = {f"{tensor}_inner": 1 for tensor in tensors}
    if square:
        del sizes["gate_inner"]
        sizes["gate_outer"] = 1
    outer, inner, warps = (64, 64, 8) if square else (1, 1024, 4)
    wide = "fp64" if dtype == "fp64" else "fp32"
    options = {"ACTIVATION": activation, "WIDE": wide, "OUTER": outer, "INNER": inner}
    return "gated", name, dict.fromkeys(tensors, f"*{dtype}"), sizes | options, warps


#: Module, kernel, types of arguments (else i32), constants, warps.
KERNELS = [
    two_four(exact=True, masked=False, absolute=True),
    two_four(exact=True, masked=False, absolute=True, many=True),
    two_four(exact=True, masked=True, absolute=True, sizes=SINGLE, dtype="*fp32"),
    two_four(exact=False, masked=False, absolute=False, sizes={}),
    two_four(exact=False, masked=True, absolute=True, dtype="*fp16"),
    flow(4, 8, 8),
    flow(3, 5, 8, sizes=SINGLE),
    flow(8, 16, 16, warm=True, count=True, sizes={}),
    flow(4, 8, 8, warm=True),
    flow(16, 32, 32),
    flow(16, 32, 32, warm=True),
    greedy(8, 16, 16, exact=True),
    greedy(16, 32, 32, exact=False, sizes=SINGLE),
    *(
        gated(name, activation, dtype, square)
        for name in ("_forward", "_backward")
        for activation in ("gelu", "gelu_tanh", "silu")
        for dtype, square in [
            ("bf16", False),
            ("bf16", True),
            ("fp16", False),
            ("fp32", False),
            ("fp64", False),
        ]
    ),
]

COMPILE = """
import json, subprocess, sys, tempfile, warnings
from importlib import import_module
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

DTYPES = {"fp32": tl.float32, "fp64": tl.float64}

def resources(home, name, types, constants, warps, divisible):
    kernel = getattr(import_module("masksolve.torch.gpu." + home), name)
    names = kernel.arg_names
    source = ASTSource(
        fn=kernel,
        signature={a: "constexpr" if a in constants else types.get(a, "i32") for a in names},
        constexprs={(names.index(a),): DTYPES.get(v, v) for a, v in constants.items()},
        # As a launch says of what is a multiple of 16: memory, and often sizes and strides.
        attrs={
            (i,): [["tt.divisibility", 16]]
            for i, a in enumerate(names) if divisible and a not in constants
        },
    )
    options = {"num_warps": warps, "enable_fp_fusion": home == "gated"}
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        return subprocess.run(command, capture_output=True, text=True).stdout

warnings.simplefilter("error")
kernels = json.load(sys.stdin)
print(json.dumps([[resources(*kernel, divisible) for divisible in (0, 1)] for kernel in kernels]))
"""


def has_assembler():
    """Whether this triton finds the tools for NVIDIA's GPUs."""
    from triton import knobs

    try:
        return bool(knobs.nvidia.ptxas.path and knobs.nvidia.cuobjdump.path)
    except RuntimeError:
        return False


@pytest.mark.skipif(not has_assembler(), reason="this triton brings no ptxas along")
def test_kernels_compile_for_a_gpu_and_keep_to_its_registers():
    """In a process without the interpreter, and without a warning."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    found = subprocess.run(
        [sys.executable, "-c", COMPILE],
        input=json.dumps(KERNELS), env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    for kernel, used in zip(KERNELS, json.loads(found.stdout), strict=True):
        if kernel[0] != "gated" and "stride_column" not in kernel[3]:
            continue  # of scattered entries: seldom, and slow anyway
        # Bytes of a thread that are not in its registers: a few are harmless, arrays are not. Where
        # memory begins anywhere, addresses take registers, and how many depends on triton's version.
        odd, usual = (int(said.split("STACK:")[1].split()[0]) for said in used)
        assert usual <= 64, (kernel, used)
        assert odd <= 128, (kernel, used)
