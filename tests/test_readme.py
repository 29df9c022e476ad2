"""README.md and the pages it leads to: commands, configs and fields; test_docs.py has the rest."""

import re
from pathlib import Path

import pytest

from stormpsr_jax import __main__ as command
from stormpsr_jax.configs import default
from stormpsr_jax.stages import config_flag
from tests.support import evaluate_data

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "data_prep/README.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
NOTEBOOKS = [f"notebooks/{path.name}" for path in ROOT.glob("notebooks/*.ipynb")]
FOLDERS = ("benchmarks", "configs", "data_prep", "stormpsr_jax", "tests", "tools")
SUFFIXES = (".py", ".md", ".html", ".js")
CONFIG = default.get_config()


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def test_readme_short_and_with_its_two_commands():
    text = read("README.md")
    assert len(text.splitlines()) <= 110
    for name in ("run", "test", "demo"):
        (block,) = re.findall(rf"^<!-- command: {name} -->\n```bash\n(.*?)^```$", text, re.M | re.S)
        assert block.count("\n") == 1


def test_readme_leads_to_every_page():
    links = set(re.findall(r"\]\(([^)\s#]+)", read("README.md")))
    assert {*PAGES} - {"README.md"} <= links


def test_no_page_notebook_or_message_installs_the_package_by_its_name():
    """Whoever registered the name on an index would have their code run."""
    sources = [p for folder in FOLDERS for p in (ROOT / folder).rglob("*") if p.suffix in SUFFIXES]
    # With "@ git+" behind it comes from the address that stands there.
    direct = r"(?!(?:\[[^\]\s]*\])? @ (?:git\+|\{FROM\}))"
    name = rf"(?<![/\w])stormpsr[-_.]jax(?![-\w.]*\.whl){direct}"
    found = {
        str(place): re.findall(rf"install\b[^\n&;]*?{name}\b|{name}\[", read(place))
        for place in (*PAGES, *NOTEBOOKS, *(path.relative_to(ROOT) for path in sources))
    }
    assert len(found) > 300
    assert {place: lines for place, lines in found.items() if lines} == {}


@pytest.mark.parametrize("page", PAGES + NOTEBOOKS)
def test_pages_configs_and_their_fields_exist(page, monkeypatch):
    text = read(page)
    monkeypatch.chdir(ROOT)
    for name in re.findall(r"--config=([a-z_]+(?:/[a-z_]+\.py)?(?::\w+)?)", text):
        config_flag.resolve(name)
    fields = re.findall(r"--config\.([a-z]\w*(?:\.\w+)*)=", text)
    if page in ("README.md", "docs/scale.md"):
        # Also `section.field` and `section.field=value`; other pages mean other files by that.
        found = re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)(?:=[^`]*)?`", text)
        fields += [field for field in found if field.partition(".")[0] in CONFIG]
    for field in fields:
        value = CONFIG
        for key in field.split("."):
            assert key in value, f"{page}: {field}"
            value = value[key]


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
