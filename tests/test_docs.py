import argparse
import ast
import collections
import functools
import importlib.util
import re
import runpy
import sys
import textwrap
from pathlib import Path

import pytest

from stormpsr_jax import __main__ as command
from stormpsr_jax.configs import default
from stormpsr_jax.psr.cli import OneLineParser
from stormpsr_jax.stages.provenance import flat_config
from tests.support.guide import additions

ROOT = Path(__file__).parents[1]
PAGES = [
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "data_prep/README.md"),
    *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md")),
]
# What pages quote: tables that prove something, as wide as they may be.
PROOFS = sorted(f"benchmarks/results/{p.name}" for p in ROOT.glob("benchmarks/results/*.md"))
NOTEBOOKS = sorted(f"notebooks/{path.name}" for path in ROOT.glob("notebooks/*.ipynb"))
FOLDERS = ("benchmarks", "configs", "data_prep", "stormpsr_jax", "tests", "tools")
SOURCES = {path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
FIELDS = flat_config(default.get_config()).keys()
# Endings of files that runs and data sets have.
COMPARISONS = ("tables", "compare", "rows", "detections", "noise")  # of `evaluate`
ENDINGS = ("css", "csv", "jpg", "json", "npz", "py", "safetensors", "txt", "zip")
# What a path on a page may begin at: the repository, the page's own folder, or the package.
BEGINNINGS = ("", "stormpsr_jax")
PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]*)(?:::(\w+))?`")


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def without_code(text):
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)


@functools.cache
def anchors(path):
    """The anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", without_code(path.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@functools.cache
def defined(path):
    """The names that a Python file defines, assigns or imports, without running it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name)
    return found


def broken_links(page, text):
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(text)):
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        if re.match(r"\w+:", link):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


def missing_files(page, text):
    """The paths, tests and scripts between backquotes that do not exist.

    A path of Python begins at the repository, at the page's folder or at the package; one of the
    package or of the tests has to exist whatever its ending. NAME stands for what a reader adds.
    """
    found = []
    for path, test in PATH.findall(text):
        ours = path.endswith(".py") or path.startswith(("stormpsr_jax/", "tests/", "data_prep/"))
        if not ours or "NAME" in path:
            continue
        places = [ROOT / start / path for start in (*BEGINNINGS, Path(page).parent)]
        place = next((place for place in places if place.exists()), None)
        if place is None or (test and test not in defined(place)):
            found.append(f"{path}::{test}" if test else path)
    found += [name for name in re.findall(r"`(\w+\.py)`", text) if name not in SOURCES]
    scripts = re.findall(r"\b(?:benchmarks|tools)/\w+\.py", text)
    return found + [script for script in scripts if not (ROOT / script).exists()]


def missing_modules(text):
    found = []
    for module in re.findall(r"python -m ([a-z_]\w*(?:\.\w+)*)", text):
        spec = importlib.util.find_spec(module)
        if spec and spec.submodule_search_locations:
            spec = importlib.util.find_spec(f"{module}.__main__")
        if spec is None:
            found.append(module)
    for words in re.findall(r"`stormpsr ([a-z]+(?: [a-z]+)?)", text):
        if not {words, words.split()[0]} & command.COMMANDS.keys():
            found.append(f"stormpsr {words}")
    return found


def exists(module, name):
    """Whether a module exists, and has a name: a module in it, or what it defines or imports."""
    if "." in module and not exists(*module.rsplit(".", 1)):
        return False
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # its last word is a name in a module
        spec = None
    if spec is None:  # a class or a function, whose attributes are not looked at
        return True
    inside = spec.submodule_search_locations and importlib.util.find_spec(f"{module}.{name}")
    return bool(inside or name in defined(Path(spec.origin)))


def missing_imports(text):
    named = re.findall(r"`(stormpsr_jax(?:\.\w+)*)\.(\w+)[`(]", text)
    for module, names in re.findall(r"\bfrom (stormpsr_jax(?:\.\w+)*) import ([\w, ]+)", text):
        named += [(module, name.split()[0]) for name in names.split(",")]
    return sorted({f"{module}.{name}" for module, name in named if not exists(module, name)})


@functools.cache
def by_name():
    """Where modules, packages and classes are, and all words of the sources but backquoted ones."""
    places, words = collections.defaultdict(set), set()
    for path in (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        text = path.read_text("utf-8")
        module = path.parent.name if path.stem == "__init__" else path.stem
        for name in (module, *re.findall(r"^class (\w+)", text, re.MULTILINE)):
            places[name].add(path)
        words.update(re.findall(r"\w+", re.sub(r"`[^`\n]*`", "", text)))
    return places, words


def missing_names(text):
    """The names between backquotes in code that no source has.

    Of `a.b`, if a is a module, package or class, b is in one of this name. Otherwise the code says
    elsewhere what a is.
    """
    (places, words), found = by_name(), []
    here = set(re.findall(r"\w+", re.sub(r"`[^`\n]*`", "", text)))
    for name in re.findall(r"`([A-Za-z_]\w*(?:\.\w+)*)(?:\([^`\n]*\))?`", text):
        first, *rest = name.split(".")
        if rest and (rest[-1] in ENDINGS or name.removeprefix("config.") in FIELDS):
            continue
        if first not in places:
            known = first in (here if rest else words)
        else:
            pairs = zip([first, *rest], rest, strict=False)
            known = all(any(has(p, b) for p in places[a]) for a, b in pairs if a in places)
        if not known:
            found.append(name)
    return found


def has(path, name):
    """Whether a Python file, or the package of an __init__.py, has a name."""
    folder = path.parent if path.stem == "__init__" else path
    return name in defined(path) or (folder / name).is_dir() or (folder / f"{name}.py").is_file()


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if folder != "tests"])
def test_what_docstrings_and_comments_name_exists(folder):
    wrong = []
    for path in (ROOT / folder).rglob("*.py"):
        text, page = path.read_text("utf-8"), path.relative_to(ROOT)
        names = missing_names(text) + missing_imports(text) + missing_files(page, text)
        wrong += [f"{page}: {name}" for name in names]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES + PROOFS + NOTEBOOKS)
def test_what_a_page_names_exists(page):
    text = read(page)
    assert missing_modules(text) + missing_imports(text) == []
    if page not in NOTEBOOKS:
        assert broken_links(page, text) + missing_files(page, text) == []


def test_what_does_not_exist_is_found():
    page = "docs/start.md"
    assert broken_links(page, "[a](results.md#nowhere) [b](none.md)") == [
        *("results.md#nowhere", "none.md"),
    ]
    text = "`stormpsr_jax/none.py` `tests/test_docs.py::no_test` `none.py` `data/a/`"
    assert len(missing_files(page, text)) == 3
    assert len(missing_modules("python -m stormpsr_jax.none; `stormpsr none`")) == 2
    assert missing_imports("from stormpsr_jax.psr import none, streams")
    text = (
        "np `np.cross` `psr.evaluate`; `psr.none` `Procedure.none` `none.evaluate` `no_such_name()`"
    )
    assert len(missing_names(text)) == 4


def flags_of(parser):
    for action in parser._actions:
        yield from (flag for flag in action.option_strings if flag.startswith("--"))
        if isinstance(action, argparse._SubParsersAction):
            for of_command in action.choices.values():
                yield from flags_of(of_command)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of modules that are imported already
def test_every_flag_of_every_command_stands_on_a_page(monkeypatch):
    pages = "".join(read(page) for page in PAGES if page.startswith(("README", "docs/")))
    known = {"--help", "--config.FIELD=VALUE", *re.findall(r"--[\w-]+", pages)}
    parsers = []

    def seen(parser, *_):
        parsers.append(parser)
        parser.exit()

    monkeypatch.setattr(OneLineParser, "parse_known_args", seen)
    for name in ("logging.basicConfig", "absl.logging.set_verbosity"):  # set for all of a process
        monkeypatch.setattr(name, lambda *_, **__: None)
    lines = [[module] for module in command.COMMANDS.values()]
    lines += [["stormpsr_jax.evaluate", name] for name in COMPARISONS]
    for words in lines:
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit):
            runpy.run_module(words[0], run_name="__main__")
    assert len(parsers) == len(lines)
    assert sorted({flag for parser in parsers for flag in flags_of(parser)} - known) == []


def test_limits_stand_where_the_page_says():
    """The table of docs/security.md: the constants and functions named after a file are in it."""
    pairs = re.findall(r"`(stormpsr_jax/[\w/]+\.py)`((?: `\w+`,?)+)", read("docs/security.md"))
    assert len(pairs) > 8
    for path, names in pairs:
        for name in re.findall(r"`(\w+)`", names):
            definition = rf"^(?:def |class |\w+, )?{name}\b"
            assert re.search(definition, read(path), re.MULTILINE), f"{path}: {name}"


def test_every_module_that_can_be_run_is_listed():
    """In docs/start.md those of the product, in CONTRIBUTING.md those of tools/."""
    pages = read("docs/start.md") + read("CONTRIBUTING.md")
    for folder in ("stormpsr_jax", "data_prep", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            if '__name__ == "__main__"' in path.read_text("utf-8") and path.stem != "__main__":
                module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                assert re.search(rf"[` ]{re.escape(module)}`", pages), module


def test_layout_lists_every_room():
    """In CONTRIBUTING.md, every folder with Python files, but for those of data and examples."""
    folders = {
        f"{path.parent.relative_to(ROOT)}/"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        if not {"__pycache__", "tests"} & set(path.relative_to(ROOT).parts)
    }
    folders = {folder for folder in folders if not folder.startswith("stormpsr_jax/configs")}
    assert folders <= set(
        re.findall(r"^\| `((?:\w+/)+)` \|", read("CONTRIBUTING.md"), re.MULTILINE)
    )


def test_contributing_says_which_files_each_addition_touches():
    listed = additions()
    assert len(listed) == 10
    for addition, (number, paths) in listed.items():
        assert len(paths) == number, addition
        for path in paths:
            place = ROOT / path
            assert (place.parent if "NAME" in path else place).exists(), f"{addition}: {path}"


def test_pages_that_code_and_notebooks_name_exist():
    """With the headings that they name: messages, --help, comments, configs, templates."""
    suffixes = (".py", ".html", ".js", ".txt", ".toml", ".ipynb", ".service", "")
    wrong = []
    for folder in (*FOLDERS, "notebooks", ".ci"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix not in suffixes or not path.is_file() or "golden" in path.parts:
                continue
            text = path.read_text("utf-8", errors="ignore")
            for page, anchor in re.findall(
                r"\b((?:docs|data_prep)/[\w-]+\.md)(?:#([\w-]+))?", text
            ):
                if not (ROOT / page).exists() or (anchor and anchor not in anchors(ROOT / page)):
                    wrong.append(f"{path.relative_to(ROOT)}: {page}#{anchor}")
    assert wrong == []


def paragraphs(text):
    """The paragraphs of a page, and items of its lists, as lists of lines of 100 characters."""
    lines = []
    for line in [*without_code(text).splitlines(), ""]:
        alone = not line.strip() or line.startswith(("|", "#", "<!--", "!["))
        if lines and (alone or re.match(r" *(?:[*-]|\d+\.) ", line)):
            yield lines
            lines = []
        if not alone:
            lines += textwrap.wrap(line, 100)


@pytest.mark.parametrize("page", PAGES)
def test_pages_can_be_read(page):
    """Tables fit on a screen, and a paragraph has an idea, not ten."""
    text = read(page)
    wide = [line for line in text.splitlines() if line.startswith("|") and len(line) > 100]
    assert wide == []
    assert [lines[0] for lines in paragraphs(text) if len(lines) > 6] == []


def test_pages_together_can_be_finished():
    assert sum(len(read(page).splitlines()) for page in PAGES if page.startswith("docs/")) <= 2_600
