"""What all pages and their figures share: colours, the look, figures as SVG, templates.

A page is one HTML file that needs nothing else, no network either. NumPy only; matplotlib and
jinja2 (``templates/``) are imported when something is made. Colours of the figures become CSS
variables, which follow the reader's light or dark mode.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import jinja2
    import markupsafe
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WRONG = "#b80f2a"  # incorrect parts
INK, MUTED, GRID, STRIPE, PAPER = "#000000", "#6b6b6b", "#d4d4d4", "#f0f0f0", "#fefefe"
# Hues of Okabe and Ito, which people with the common colour vision deficiencies tell apart. Streams
# say which is theirs; `style.css` has the same names.
PALETTE = {
    "blue": "#0072b2",
    "orange": "#d55e00",
    "green": "#009e73",
    "purple": "#aa4499",
    "amber": "#b8860b",
}
_VARIABLES = {
    **{INK: "ink", MUTED: "muted", GRID: "grid", STRIPE: "stripe", PAPER: "card", WRONG: "bad"},
    **{colour: name for name, colour in PALETTE.items()},
}
_TICK_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400)
_MAX_POINTS = 400  # of a curve; more of them cannot be told apart on a screen


def missing() -> str:
    """Returns which packages that make pages and figures are missing, and how to install them.

    The text is empty where all are there.
    """
    names = [name for name in ("jinja2", "matplotlib") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(names)}: pip install {' '.join(names)}" if names else ""


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The look of the report's figures, whatever matplotlibrc the user has."""
    import matplotlib.style

    look = {
        "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
        "svg.hashsalt": "stormpsr",
        "text.parse_math": False,  # a name with two dollar signs is no formula
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 8.5,
        "axes.edgecolor": MUTED,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
    }
    with matplotlib.style.context(["default", look]):
        yield


def svg(figure: Figure) -> str:
    """Returns a matplotlib Figure as SVG text for a page; draw it within `style()`."""
    text = io.StringIO()
    with style():
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return text.getvalue()


def inline(text: str, label: str, prefix: str) -> markupsafe.Markup:
    """Makes an SVG document part of a page: no prolog, colours as variables, ids of its own."""
    import markupsafe

    root = re.search(r'<svg\b[^>]*?(viewBox="[^"]*")[^>]*>', text)
    if root is None:
        raise ValueError("text is no SVG document with a viewBox")
    body = text[root.end() : text.rindex("</svg>")].replace("xlink:href", "href")
    # matplotlib's style sheet would hold for the whole page, which has a font of its own.
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", body, flags=re.S)
    body = re.sub(r"\s*\n\s*", "\n", body)
    used = dict.fromkeys(re.findall(r'(?:href="|url\()#([^")]+)', body))
    ids = {name: f"{prefix}-{i}" for i, name in enumerate(used)}
    changes: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
        (r' id="([^"]*)"', lambda m: f' id="{ids[m[1]]}"' if m[1] in ids else ""),
        (r'(href="|url\()#([^")]+)', lambda m: f"{m[1]}#{ids[m[2]]}"),
        (f"(?<=: )({'|'.join(_VARIABLES)})", lambda m: f"var(--{_VARIABLES[m[0]]})"),
        (r' transform="rotate\(-0 [^"]*"|font-family: [^;"]*;? ?', ""),
        (r"\b([1-9]\d*\.\d\d)\d+", r"\1"),
    ]

    def change(tag: re.Match[str]) -> str:
        text = tag[0]
        for pattern, new in changes:
            text = re.sub(pattern, new, text)
        return text

    body = re.sub(r"<[^>]+>", change, body)
    body = re.sub(r"<g>\n(<(?:path|text)\b[^>]*>(?:[^<]*</text>)?)\n</g>", r"\1", body)
    head = f'<svg {root[1]} role="img" aria-label="{markupsafe.escape(label)}">'
    return markupsafe.Markup(f"{head}{body}</svg>")


def template(name: str, folder: pathlib.Path | None = None) -> jinja2.Template:
    """Returns a jinja2 template of a folder (``templates``).

    What it is given is escaped as HTML, but in Markdown (.md.jinja).
    """
    import jinja2

    folder = folder or pathlib.Path(__file__).parents[1] / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=not name.endswith(".md.jinja"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = lambda x, digits: "–" if x is None else f"{x:.{digits}f}"
    return environment.get_template(name)


def clock(seconds: float) -> str:
    """Returns minutes and seconds, from an hour on hours too."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def time_ticks(axes: Axes, start: float, end: float) -> None:
    """Marks whole seconds or minutes on the time axis of a figure, at most about twelve."""
    span = end - start
    spacing = next((s for s in _TICK_SECONDS if span / s <= 12), math.ceil(span / 12))
    ticks = np.arange(math.ceil(start / spacing), math.floor(end / spacing) + 1) * spacing
    axes.set_xticks(ticks, [clock(tick) for tick in ticks.tolist()])


def binned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns means over neighbours, at most `_MAX_POINTS` of them; NaN where all are NaN."""
    size = -(-len(x) // _MAX_POINTS)
    starts = np.arange(0, len(x), max(size, 1))
    if not len(starts):
        return x, y
    known = np.isfinite(y)
    counts = np.add.reduceat(known.astype(float), starts)
    sums = np.add.reduceat(np.where(known, y, 0), starts)
    means = np.divide(sums, counts, out=np.full(len(starts), np.nan), where=counts > 0)
    return np.add.reduceat(x, starts) / np.diff([*starts, len(x)]), means
