"""The site: `sphinx-build -W -c docs . build/site` in a clone, with the extra `docs`.

Its source is the whole repository, so that links between pages hold here as they do in a clone.
README.md is the first page; the other pages stand in `PAGES`.
"""

from pathlib import Path

from sphinx.application import Sphinx

PAGES = {
    "Guides": ("start", "own-product", "recognise", "research", "scale"),
    "Reference": ("psr", "formats", "api", "results", "security"),
}

project = "stormpsr_jax"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = [
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md"),
    *("docs/*.md", "docs/api.rst", "benchmarks/results/*.md"),
]
# Folders that need not be searched.
exclude_patterns = [".*", "build", "runs", "stormpsr_jax", "tests", "configs", "tools"]
suppress_warnings = ["toc.not_included"]  # pages that others link to

myst_heading_anchors = 4  # as GitHub makes them
autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_use_ivar = True
default_role = "code"  # of `names` in docstrings

html_theme = "sphinx_book_theme"
html_title = "stormpsr_jax"
html_theme_options: dict[str, list[str]] = {"navbar_persistent": []}  # the search is in the sidebar
html_show_copyright = False


def add_contents(app: Sphinx, name: str, source: list[str]) -> None:
    """Gives the first page a table of contents, which GitHub would show as code."""
    if name == root_doc:
        for caption, pages in {**PAGES, "Project": ("../CONTRIBUTING", "../CHANGELOG")}.items():
            lines = "\n".join(f"docs/{page}".removeprefix("docs/../") for page in pages)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{lines}\n```\n"


def open_by_folder(app: Sphinx, error: Exception | None) -> None:
    """Makes the site's folder open its first page."""
    if error is None and app.builder.format == "html":
        text = '<meta charset="utf-8"><meta http-equiv="refresh" content="0; url=README.html">\n'
        Path(app.outdir, "index.html").write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Connects both."""
    app.connect("source-read", add_contents)
    app.connect("build-finished", open_by_folder)
