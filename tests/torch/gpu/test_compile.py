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
]  # fmt: skip

COMPILE = """
import json, subprocess, sys, tempfile, warnings
from importlib import import_module
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

warnings.simplefilter("error")
home, name, types, constants, warps = json.load(sys.stdin)
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
    tool = triton.knobs.nvidia.cuobjdump.path
    print(subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True).stdout)
"""


def has_assembler():
    from triton import knobs

    return knobs.nvidia.ptxas is not None and knobs.nvidia.cuobjdump is not None


@pytest.mark.skipif(not has_assembler(), reason="this triton brings no ptxas along")
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: f"{k[0]}-{k[3]}")
def test_compiles_for_a_gpu_and_keeps_to_registers(kernel):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    found = subprocess.run(
        [sys.executable, "-c", COMPILE],
        input=json.dumps(kernel), env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    spilled = int(found.stdout.split("STACK:")[1].split()[0])
    assert spilled <= 64, found.stdout
