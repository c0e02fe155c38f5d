"""Sphinx: how the documentation is built. Notebooks are run anew each time."""

import shutil
from pathlib import Path

import masksolve

_HERE = Path(__file__).parent

project = "masksolve"
author = "The masksolve developers"
copyright = author  # noqa: A001  # Sphinx wants this name
release = masksolve.__version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinxcontrib.bibtex",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "masksolve"
default_role = "py:obj"
bibtex_bibfiles = ["references.bib"]

autodoc_typehints = "none"  # the docstrings have them, in words
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True


def _copy_notebooks() -> None:
    """Sphinx reads only what lies in its folder; the notebooks lie where people look for them."""
    source, target = _HERE.parent / "notebooks", _HERE / "tutorials"
    pages = shutil.ignore_patterns("*.md")
    shutil.copytree(source / "data", target / "data", ignore=pages, dirs_exist_ok=True)
    for notebook in sorted(source.glob("*.ipynb")):
        shutil.copy(notebook, target / notebook.name)


_copy_notebooks()
