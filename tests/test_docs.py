"""README.md, the other pages, docstrings: what they name exists, and they can be read.

Links between pages are checked where `test_site.py` builds the site.
"""

import argparse
import functools
import importlib.util
import pkgutil
import re
import runpy
import sys
import textwrap
from pathlib import Path

import pytest

from stormpsr_jax import __main__ as command
from stormpsr_jax.configs import default
from stormpsr_jax.psr.cli import OneLineParser
from stormpsr_jax.stages import config_flag
from tests.support import evaluate_data
from tests.support.guide import additions

ROOT = Path(__file__).parents[1]
GUIDES = ["README.md", "data_prep/README.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
PAGES = [*sorted(GUIDES), "CHANGELOG.md", "CONTRIBUTING.md"]
# What pages quote: tables that prove something, as wide as they may be.
PROOFS = sorted(f"benchmarks/results/{p.name}" for p in ROOT.glob("benchmarks/results/*.md"))
NOTEBOOKS = sorted(f"notebooks/{path.name}" for path in ROOT.glob("notebooks/*.ipynb"))
FOLDERS = ("benchmarks", "configs", "data_prep", "stormpsr_jax", "tests", "tools")
SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
}
FIELDS = config_flag.flat(default.get_config()).keys()
COMPARISONS = ("tables", "compare", "detections")  # of `evaluate`
# What a path on a page may begin at: the repository, the page's own folder, or the package.
BEGINNINGS = ("", "stormpsr_jax")
PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]*)(?:::(\w+))?`")


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def without_code(text):
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)


@functools.cache
def anchors(page):
    """The anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", without_code(read(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


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
        if place is None or (test and f"def {test}(" not in place.read_text("utf-8")):
            found.append(f"{path}::{test}" if test else path)
    names = {Path(path).name for path in SOURCES}
    found += [name for name in re.findall(r"`(\w+\.py)`", text) if name not in names]
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


@functools.cache
def exists(name):
    """Whether there is such a module, or such a name in one."""
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def missing_imports(text):
    named = re.findall(r"`(stormpsr_jax(?:\.\w+)+)[`(]", text)
    for module, names in re.findall(r"\bfrom (stormpsr_jax(?:\.\w+)*) import ([\w, ]+)", text):
        named += [f"{module}.{name.split()[0]}" for name in names.split(",")]
    return sorted({name for name in named if not exists(name)})


@pytest.mark.parametrize("page", PAGES + PROOFS + NOTEBOOKS)
def test_what_a_page_names_exists(page):
    text = read(page)
    assert missing_modules(text) + missing_imports(text) == []
    if page not in NOTEBOOKS:
        assert missing_files(page, text) == []


def flags_of(parser):
    for action in parser._actions:
        yield from (flag for flag in action.option_strings if flag.startswith("--"))
        if isinstance(action, argparse._SubParsersAction):
            for of_command in action.choices.values():
                yield from flags_of(of_command)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of modules that are imported already
def test_every_flag_of_every_command_stands_on_a_page(monkeypatch):
    pages = "".join(read(page) for page in GUIDES if page != "data_prep/README.md")
    known = {"--help", "--config.FIELD=VALUE", *re.findall(r"--[\w-]+", pages)}
    parsers = []

    def seen(parser, *_):
        parsers.append(parser)
        parser.exit()

    for name in ("parse_known_args", "parse_known_intermixed_args"):
        monkeypatch.setattr(OneLineParser, name, seen)
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


def test_contributing_lists_every_room_and_the_files_that_each_addition_touches():
    """Every folder with Python files is a room, but for those of data and examples."""
    folders = {f"{Path(path).parent}/" for path in SOURCES if not path.startswith("tests/")}
    folders = {folder for folder in folders if not folder.startswith("stormpsr_jax/configs")}
    assert folders <= set(
        re.findall(r"^\| `((?:\w+/)+)` \|", read("CONTRIBUTING.md"), re.MULTILINE)
    )
    listed = additions()
    assert len(listed) == 11
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
                if not (ROOT / page).exists() or (anchor and anchor not in anchors(page)):
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


def test_readme_is_short_leads_to_every_page_and_has_its_commands_and_pages_can_be_finished():
    assert sum(len(read(page).splitlines()) for page in PAGES if page.startswith("docs/")) <= 2_600
    text = read("README.md")
    assert len(text.splitlines()) <= 110
    assert {*GUIDES} - {"README.md"} <= set(re.findall(r"\]\(([^)\s#]+)", text))
    for name in ("run", "test", "demo"):
        (block,) = re.findall(rf"^<!-- command: {name} -->\n```bash\n(.*?)^```$", text, re.M | re.S)
        assert block.count("\n") == 1


def test_no_page_notebook_or_message_installs_the_package_by_its_name():
    """Whoever registered the name on an index would have their code run."""
    others = [p for f in FOLDERS for e in ("md", "html", "js") for p in (ROOT / f).rglob(f"*.{e}")]
    # With "@ git+" behind it comes from the address that stands there.
    direct = r"(?!(?:\[[^\]\s]*\])? @ (?:git\+|\{FROM\}))"
    name = rf"(?<![/\w])stormpsr[-_.]jax(?![-\w.]*\.whl){direct}"
    found = {
        str(place): re.findall(rf"install\b[^\n&;]*?{name}\b|{name}\[", read(place))
        for place in (*GUIDES, *NOTEBOOKS, *SOURCES, *others)
    }
    assert len(found) > 300
    assert {place: lines for place, lines in found.items() if lines} == {}


@pytest.mark.parametrize("page", GUIDES + NOTEBOOKS)
def test_pages_configs_and_their_fields_exist(page, monkeypatch):
    text = read(page)
    monkeypatch.chdir(ROOT)
    for name in re.findall(r"--config=([a-z_]+(?:/[a-z_]+\.py)?(?::\w+)?)", text):
        config_flag.resolve(name)
    fields = re.findall(r"--config\.([a-z]\w*(?:\.\w+)*)=", text)
    if page in ("README.md", "docs/scale.md"):
        # Also `section.field` and `section.field=value`; other pages mean other files by that.
        found = re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)(?:=[^`]*)?`", text)
        fields += [field for field in found if field.partition(".")[0] in default.get_config()]
    sections = {field.rpartition(".")[0] for field in FIELDS}
    assert {*fields} - FIELDS - sections == set()


def test_commands_all_are_listed():
    text = read("docs/start.md")
    for name, module in command.COMMANDS.items():
        assert re.search(rf"^\| `{name}\b.*\| `{module}` \|", text, re.MULTILINE), name
    configs = re.findall(r"^\| ((?:`[\w:]+`(?:, )?)+) \|", text, re.MULTILINE)
    assert sorted(config_flag.shipped()) == sorted(
        name for row in configs for name in re.findall(r"`(\w+)`", row)
    )


def test_formats_every_field_of_metrics_json_is_explained(tmp_path):
    files = evaluate_data.make_files(tmp_path / "files", names=("01_assy_a",))
    page = read("docs/formats.md")
    section = page[page.index("\n## metrics.json") : page.index("\n## report.html")]
    explained = set(re.findall(r"`([\w@]+)`", section))
    for extra in ("--protocol=paper", "--protocol=released"):
        result = evaluate_data.run(files, f"--visibility={files / 'visibility'}", extra)
        assert set(result["streams"]) == {"asd", "temporal", "storm"} <= explained
        for stream in result["streams"].values():
            assert stream["tp"]
            (recording,) = stream["recordings"].values()
            assert keys(result) | keys(stream) | keys(recording) <= explained


def keys(tree):
    found = set(tree)
    for name, value in tree.items():
        if name not in ("streams", "recordings"):
            for entry in value if isinstance(value, list) else [value]:
                found |= keys(entry) if isinstance(entry, dict) else set()
    return found
