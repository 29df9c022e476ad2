"""The figures that pages quote are those that benchmarks kept, as benchmarks/record.py says."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import record

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
# NAME/table/row/field after a number, or NAME/table: fields before a table.
PLACE = re.compile(r"<!-- from: (\w+)/([^/:>]+)(?:/([^/>]+)/([\w.]+)|: ([\w. ]+)) -->")


def quotes(text):
    """What a page shows of each figure that it quotes, and the figure."""
    for found in PLACE.finditer(text):
        name, title, key, field, fields = found.groups()
        content = json.loads((record.RESULTS / f"{name}.json").read_text("utf-8"))
        rows = {
            str(next(iter(row.values()))).removesuffix(".0"): row
            for row in content["tables"][title]
        }
        if not fields:
            shown = re.search(r"([\d.,]+(?: ?%)?)\**(?: s)?\s*$", text[: found.start()])[1]
            yield shown, rows[key][field]
            continue
        _, *fields = fields.split()
        (table,) = re.findall(r"\A\n+((?:\|.*\n)+)", text[found.end() :])
        for line in table.splitlines()[2:]:
            key, *cells = (cell.strip(" *`") for cell in line.strip("|").split("|"))
            yield from zip(cells, (rows[key][field] for field in fields), strict=True)


def same(shown, figure):
    """Whether a figure, rounded as on the page, is what the page shows."""
    if figure is None:
        return shown == "–"
    number, percent, _ = shown.replace(",", "").replace(" ", "").partition("%")
    decimals = len(number.partition(".")[2])
    return f"{figure * (100 if percent else 1):.{decimals}f}" == number


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_figures_are_those_of_the_kept_results(page):
    text = page.read_text("utf-8")
    assert text.count("<!-- from:") == len(PLACE.findall(text))
    assert [found for found in quotes(text) if not same(*found)] == []


@pytest.mark.parametrize("path", record.RESULTS.glob("*.json"), ids=lambda path: path.name)
def test_tables_are_made_from_the_kept_results(path):
    content = json.loads(path.read_text("utf-8"))
    assert path.with_suffix(".md").read_text("utf-8") == record.markdown(path.stem, content)
