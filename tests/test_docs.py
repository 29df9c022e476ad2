"""README's commands, the links of the pages, `--help` of each command; the site."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from stormpsr_jax import __main__ as command

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
PAGES += sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def anchors(page):
    """The anchors that GitHub makes of the headings of a page."""
    text = re.sub(r"^ *```.*?^ *```", "", read(page), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    text, broken = read(page), []
    for link, anchor in re.findall(r"\]\((?!\w+:)([^)\s#]*)(?:#([\w-]+))?\)", text):
        target = (ROOT / page).parent / link if link else ROOT / page
        name = str(target.resolve().relative_to(ROOT.resolve()))
        if not target.exists() or (anchor and anchor not in anchors(name)):
            broken.append(f"{link}#{anchor}")
    assert broken == []


def test_readme_leads_to_every_page_and_has_its_commands():
    text = read("README.md")
    pages = {page for page in PAGES if page.startswith("docs/")}
    assert pages <= set(re.findall(r"\]\(([^)\s#]+)", text))
    for name in ("run", "test", "demo"):
        (block,) = re.findall(rf"^<!-- command: {name} -->\n```bash\n(.*?)^```$", text, re.M | re.S)
        assert block.count("\n") == 1


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of modules that are imported already
@pytest.mark.parametrize("name", command.COMMANDS)
def test_each_command_has_help_and_stands_in_the_table_of_commands(name, monkeypatch, capsys):
    module = command.COMMANDS[name]
    for function in ("logging.basicConfig", "absl.logging.set_verbosity"):  # of a whole process
        monkeypatch.setattr(function, lambda *_, **__: None)
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module(module, run_name="__main__")
    assert end.value.code in (None, 0)
    assert "usage:" in capsys.readouterr().out
    assert re.search(rf"^\| `{name}\b.*\| `{module}` \|", read("docs/start.md"), re.MULTILINE)


@pytest.mark.system
def test_site_is_built_without_a_warning_and_has_the_api(tmp_path):
    pytest.importorskip("sphinx", reason="pip install -e '.[docs]'")
    words = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", "."]
    done = subprocess.run([*words, tmp_path], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    api = (tmp_path / "docs/api.html").read_text("utf-8")
    names = ("psr.accumulate", "psr.Decoder", "psr.evaluate", "load_model", "serving.model.Model")
    places = [api.index(f'id="stormpsr_jax.{name}"') for name in names]
    assert places == sorted(places)  # functions on arrays first
    assert (tmp_path / "searchindex.js").exists()
