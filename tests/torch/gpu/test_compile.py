"""The compiler takes what the interpreter took: every kernel for a Hopper GPU, without one."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

BLOCKS = {"scores": "*bf16", "mask": "*i8", "bad": "*i32"}
FLOW = {"prices": "*fp64", "start": "*fp64"} | BLOCKS
#: Module, kernel, types of arguments (else i32), constants, warps.
KERNELS = [
    *(
        ("two_four", "_search", BLOCKS | {"masked": "*bf16" if masked else "*i8"},
         {"BLOCKS": 128, "ABSOLUTE": absolute, "EXACT": exact, "MASKED": masked}, 4)
        for exact, masked, absolute in [
            (True, False, True), (True, True, True), (False, False, False), (False, True, True)]
    ),
    *(
        ("flow", "_solve", FLOW,
         {"n": n, "m": m, "SIZE": size, "BLOCKS": 32 // size, "ROUNDS": 1 if warm else 3,
          "ABSOLUTE": not warm, "WARM": warm, "PRICES": warm}, max(1, size // 16))
        for n, m, size, warm in [(4, 8, 8, False), (8, 16, 16, True), (16, 32, 32, False)]
    ),
    ("greedy", "_search", BLOCKS,
     {"n": 8, "m": 16, "SIZE": 16, "BLOCKS": 2, "ABSOLUTE": True, "EXACT": True}, 1),
]  # fmt: skip

COMPILE = """
import json, subprocess, sys, tempfile, warnings
from importlib import import_module
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

def resources(home, name, types, constants, warps):
    kernel = getattr(import_module("masksolve.torch.gpu." + home), name)
    names = kernel.arg_names
    source = ASTSource(
        fn=kernel,
        signature={a: "constexpr" if a in constants else types.get(a, "i32") for a in names},
        constexprs={(names.index(a),): value for a, value in constants.items()},
    )
    options = {"num_warps": warps, "enable_fp_fusion": False}
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        return subprocess.run(command, capture_output=True, text=True).stdout

warnings.simplefilter("error")
print(json.dumps([resources(*kernel) for kernel in json.load(sys.stdin)]))
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
        # Bytes of a thread that are not in its registers: a few are harmless, arrays are not.
        assert int(used.split("STACK:")[1].split()[0]) <= 64, (kernel, used)
