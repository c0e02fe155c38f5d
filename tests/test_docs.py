"""The documentation: every public name has its place, and what pages say in code is true."""

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PUBLIC = [
    "masksolve",
    "masksolve.diversity",
    "masksolve.errors",
    "masksolve.methods",
    "masksolve.plot",
    "masksolve.testing",
    "masksolve.testing.strategies",
]
# Documented whole, by automodule.
WHOLE = {"masksolve.errors", "masksolve.testing.strategies"}


def documented():
    """Full names that the API page documents."""
    found, module = set(), ""
    for line in (DOCS / "reference" / "api.md").read_text().splitlines():
        directive = re.match(r"\.\. (?:py:)?(\w+):: ([\w.]+)", line)
        if directive is None:
            continue
        kind, name = directive.groups()
        if kind in ("currentmodule", "automodule"):
            module = name
            found.add(name)
        elif kind.startswith("auto") or kind == "data":
            found.add(f"{module}.{name}")
    return found


def thing_of(name):
    """The object with a full name, or None for a module."""
    module, _, attribute = name.rpartition(".")
    try:
        import_module(name)
    except ImportError:
        return getattr(import_module(module), attribute)
    return None


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


def test_what_is_documented_says_something():
    for name in documented():
        thing = thing_of(name)
        if isinstance(thing, type) or type(thing).__name__ == "function":
            assert thing.__doc__, name
            made_up = f"{thing.__name__}("  # by dataclass, of the fields' names
            assert not thing.__doc__.startswith(made_up), name


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
