"""Configuration of the documentation: `make docs`."""

from __future__ import annotations

from neuroxai.version import __version__

project = "NeuroXAI"
author = "The NeuroXAI maintainers"
copyright = author
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["decisions/README.md"]  # decisions/index.md includes it
myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3
suppress_warnings = [
    "myst.xref_missing",  # links to files of the repository, which tests/test_docs.py checks
    "ref.python",  # a documented attribute's name, as title, is an attribute of several classes
]

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "inherited-members": False, "show-inheritance": True}
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
intersphinx_mapping: dict[str, tuple[str, None]] = {}  # a build needs no network

html_theme = "furo"
html_title = "NeuroXAI"
html_theme_options = {
    "announcement": "Research software, not for clinical use.",
}
html_copy_source = False
html_show_sphinx = False
