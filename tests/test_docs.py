"""The documentation: every public name has its place, and what pages say in code is true."""

import doctest
import inspect
import pkgutil
import re
from importlib import import_module
from pathlib import Path

import pytest

import masksolve

DOCS = Path(__file__).parents[1] / "docs"
# Rooms behind the scenes: what of them is for users, another module passes on.
INSIDE = {
    f"masksolve.{room}"
    for room in (
        *("bands", "certify", "cli", "files", "kernels", "matrices", "pattern", "residual"),
        *("scores", "solvers", "testing.conformance", "testing.oracles", "tiling"),
    )
}
MODULES = ["masksolve", *(m.name for m in pkgutil.walk_packages(masksolve.__path__, "masksolve."))]
INSIDE |= {name for name in MODULES if name.startswith("masksolve.torch.")}
INSIDE -= {"masksolve.torch.hugging_face"}
PUBLIC = [name for name in MODULES if not any(f"{name}.".startswith(f"{room}.") for room in INSIDE)]
# Documented whole, by automodule.
WHOLE = {"masksolve.errors", "masksolve.testing.strategies"}


def directives():
    """Kind, full name and options of every directive of the reference that documents something."""
    module, options = "", {}
    pages = (DOCS / "reference" / page for page in ("api.md", "torch.md"))
    for line in "\n".join(page.read_text() for page in pages).splitlines():
        option = re.match(r"   :([\w-]+): *(.*)", line)
        if option is not None:
            options[option[1]] = re.findall(r"\w+", option[2])
        directive = re.match(r"\.\. (?:py:)?(\w+):: ([\w.]+)", line)
        if directive is None:
            continue
        kind, name = directive.groups()
        options = {}
        if kind in ("currentmodule", "automodule"):
            module = name
        if kind == "automodule":
            yield kind, name, options
        elif kind.startswith("auto") or kind == "data":
            yield kind, f"{module}.{name}", options


def documented():
    """Full names that the reference documents."""
    return {name for _, name, _ in directives()}


def thing_of(name):
    """The object with a full name, or None for a module."""
    module, _, attribute = name.rpartition(".")
    try:
        import_module(name)
    except ImportError:
        return getattr(import_module(module), attribute)
    return None


def public_things():
    """Functions and classes that are public, by full name."""
    for module in PUBLIC:
        for name in getattr(import_module(module), "__all__", ()):
            thing = getattr(import_module(module), name)
            if inspect.isfunction(thing) or inspect.isclass(thing):
                yield f"{module}.{name}", thing


def members_of(cls):
    """Methods and properties that a class adds for its users."""
    kinds = (property, classmethod, staticmethod)
    for name, member in vars(cls).items():
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, kinds)):
            yield name, member


def test_rooms_behind_the_scenes_exist():
    assert set(MODULES) >= INSIDE
    assert {"masksolve", "masksolve.diversity", "masksolve.plot"} <= set(PUBLIC)


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_documented(module):
    names = documented()
    things = [thing_of(name) for name in names]
    for name in import_module(module).__all__:
        thing = getattr(import_module(module), name)
        if type(thing).__name__ == "module":
            assert thing.__name__ in names
            continue
        whole = {module, getattr(thing, "__module__", "")} & WHOLE & names
        assert whole or any(thing is other for other in things), f"{module}.{name}"


def test_every_type_of_a_public_signature_is_documented():
    ours = {name for module in MODULES for name in getattr(import_module(module), "__all__", ())}
    known = {name.rpartition(".")[2] for name in documented()}
    known |= {name for module in WHOLE for name in import_module(module).__all__}
    seen = set()
    for full_name, thing in public_things():
        functions = [thing]
        if inspect.isclass(thing):
            members = [member for _, member in members_of(thing)]
            functions += [getattr(m, "fget", None) or getattr(m, "__func__", m) for m in members]
        for function in functions:
            types = " ".join(map(str, getattr(function, "__annotations__", {}).values()))
            used = ours & set(re.findall(r"\w+", types))
            assert used <= known, f"{full_name}: {used - known}"
            seen |= used
    assert {"Degree", "Remainder", "Progress", "BlockSolver", "Kind"} <= seen


def test_what_is_documented_says_something():
    for name, thing in public_things():
        assert thing.__doc__, name
        made_up = f"{thing.__name__}("  # by dataclass, of the fields' names
        assert not thing.__doc__.startswith(made_up), name


def test_methods_and_properties_are_documented():
    shown = {thing_of(name): options for kind, name, options in directives() if kind == "autoclass"}
    seen = 0
    for name, thing in public_things():
        for member, what in members_of(thing) if inspect.isclass(thing) else ():
            assert what.__doc__, f"{name}.{member}"
            options = shown[thing]
            assert member in options["members"] or not options["members"], f"{name}.{member}"
            assert member not in options.get("exclude-members", ()), f"{name}.{member}"
            seen += 1
    assert seen > 15, "or nothing was looked at"


@pytest.mark.parametrize(
    "page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS))
)
def test_examples_on_pages_are_true(page):
    if "_build" in page.parts:
        return
    failed, _ = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert failed == 0


def test_every_page_is_reached():
    index = (DOCS / "index.md").read_text()
    for page in DOCS.rglob("*.md"):
        name = str(page.relative_to(DOCS).with_suffix(""))
        if name != "index" and "_build" not in page.parts:
            assert re.search(rf"^{re.escape(name)}$", index, re.MULTILINE), name
