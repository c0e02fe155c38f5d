"""The house of the design: imports run downwards, kernels and proofs stand alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import masksolve

PACKAGE = Path(masksolve.__file__).parent

# Each room may import from rooms of a smaller number.
LEVELS = {
    "errors": 0,
    "pattern": 1,
    "scores": 2,
    "tiling": 2,
    "solution": 2,
    "residual": 3,
    "certify": 4,
    "bands": 4,
    "diversity": 4,
    "rows": 5,
    "solvers": 5,
    "methods": 6,
    "matrices": 7,
    "find": 8,
    "files": 9,
    "testing": 9,
    "plot": 9,
    "torch": 9,
    "cli": 10,
}
# scores < tiling and residual < certify within their level.
HEAVY = [
    *("torch", "ortools", "networkx", "numba", "scipy", "matplotlib", "tqdm", "typer"),
    *("accelerate", "transformers"),
]


def imports_of(path):
    """Absolute names of all modules that a file of the package imports, anywhere in it."""
    inside = path.relative_to(PACKAGE.parent).with_suffix("").parts
    package = inside[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            if node.module is None or module == "masksolve":
                yield from (f"{module}.{alias.name}" for alias in node.names)
            else:
                yield module


def rooms():
    return [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE) != Path("__init__.py")
    ]


def room_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", rooms(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downwards(path):
    room = room_of(path)
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] != "masksolve" or len(parts) < 2:
            continue
        other = parts[1]
        if other == "kernels":
            assert room in ("kernels", "solvers", "diversity"), f"{room} sees kernels"
        elif other != room and other != "__version__":
            assert room != "kernels", "kernels see nothing of masksolve but themselves"
            assert LEVELS[other] <= LEVELS[room], f"{room} imports {other}, which is above it"


@pytest.mark.parametrize("path", sorted((PACKAGE / "kernels").glob("*.py")), ids=lambda p: p.name)
def test_kernels_import_numpy_and_numba_only(path):
    outside = {name.split(".")[0] for name in imports_of(path)} - {"masksolve"}
    assert outside - sys.stdlib_module_names <= {"numpy", "numba"}


@pytest.mark.parametrize("name", ["certify", "residual"])
def test_what_proves_imports_no_solver(name):
    for imported in imports_of(PACKAGE / f"{name}.py"):
        assert not any(
            word in imported for word in ("solvers", "methods", "kernels", "ortools", "networkx")
        )


def test_every_public_module_says_what_is_public():
    for path in rooms():
        if path.name not in ("__init__.py", "__main__.py"):
            assert "__all__ = " in path.read_text(), path


def test_only_the_torch_room_imports_torch():
    for path in rooms():
        if room_of(path) != "torch":
            assert "torch" not in {name.split(".")[0] for name in imports_of(path)}, path


def heavy_modules_after(code):
    """Which heavy packages a fresh interpreter has loaded after running `code`."""
    script = f"{code}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return result.stdout.split()


def test_importing_masksolve_brings_in_nothing_heavy():
    assert heavy_modules_after("import masksolve") == []


def test_importing_the_torch_room_brings_in_no_transformers():
    heavy = heavy_modules_after("import masksolve.torch")
    assert "torch" in heavy
    assert not {"accelerate", "transformers"} & set(heavy)


def test_the_check_for_heavy_imports_can_fail():
    assert heavy_modules_after("import masksolve, tqdm") == ["tqdm"]
    assert "ortools" in heavy_modules_after(
        "import masksolve; masksolve.find_mask([[1, 2], [3, 4]], 1, 2, method='flow',"
        " backend='ortools')"
    )


def test_every_public_name_can_be_had_and_says_what_it_is():
    for name in masksolve.__all__:
        assert getattr(masksolve, name).__doc__, name
    assert set(masksolve.__all__) <= set(dir(masksolve))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        masksolve.nothing  # noqa: B018
