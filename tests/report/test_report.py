import base64
import html.parser
import re

import numpy as np
import pytest

from stormpsr_jax.psr import headline, wrong_parts
from stormpsr_jax.psr.metrics import score_recording, scored_steps, summarise
from stormpsr_jax.recordings.procedure import load_procedure
from stormpsr_jax.report import pages, report

HOSTILE = '<script>alert("1")</script> & $x^2$ #000000'
FPS = 5.0
JPEG = b"\xff\xd8 not really a picture \xff\xd9"
# Of component 0 … 4: the installs 0, 3, 6, 9; removal 8 and again 6.
TRUTH = [(50, 0), (50, 3), (100, 6), (150, 8), (170, 6), (400, 9)]
EVENTS = {
    "asd": [[70, 0, 0.9], [45, 3, 0.9], [110, 6, 0.9], [200, 12, 0.3]],
    "temporal": [[50, 0, 0.9]],
    "storm": [[55, 0, 0.9], [51, 3, 0.9], [104, 6, 0.9], [152, 8, 0.8], [171, 6, 0.8]],
}


class Page(html.parser.HTMLParser):
    """Collects what the tests look at, and checks that every tag is closed in its place."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.ids, self.targets = [], [], [], [], []
        self.cards = []  # texts of the pictures' captions
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in {"meta", "img", "br", "link"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if "id" in attrs:
            self.ids.append(attrs["id"])
        self.targets += re.findall(r"url\(#([^)]+)\)", " ".join(v or "" for v in attrs.values()))
        if attrs.get("href", "").startswith("#"):
            self.targets.append(attrs["href"][1:])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            if "figcaption" in self.open:
                self.cards.append(data.strip())
            self.texts.append((self.open[-1] if self.open else "", " ".join(data.split())))

    def attributes(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def make(path, recordings, more=(), **changes):
    """Writes and reads back a report on {name: (truth, {stream: events})}; `more` metrics."""
    streams = {}
    for stream in next(iter(recordings.values()))[1]:
        rows = {
            name: score_recording(truth, [(e[0], e[1]) for e in events[stream]], FPS)
            | {"events": events[stream]}
            for name, (truth, events) in recordings.items()
        }
        streams[stream] = summarise(rows) | {"recordings": rows}
    arguments = {
        "title": "Test split",
        "metrics": {"protocol": "paper", "decoder": "expected", "streams": streams, **dict(more)},
        "procedure": load_procedure("synthetic"),
        "truth": {name: truth for name, (truth, _) in recordings.items()},
    }
    report.write_report(path, **arguments | changes)
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A report with everything in it, and the frames that pictures were asked for."""
    asked = []

    def thumbnails(recording, frame):
        asked.append((recording, frame))
        return None if frame == 400 else JPEG

    visible = np.linspace(0, 1, 420)
    visible[100:200] = np.nan
    rows = [{"step": i, "loss": 1 / i, "lr": None, "bad": float("nan")} for i in range(1, 900)]
    rows.insert(500, {"step": 500, "val/loss": 0.1, "val/f1": 0.7})
    with pages.style():
        from matplotlib.figure import Figure

        figure = Figure()
        figure.add_subplot().plot([0, 1], color=pages.PALETTE["green"])
        drawn = pages.svg(figure)
    text, page = make(
        tmp_path_factory.mktemp("report") / "report.html",
        {
            HOSTILE: (TRUTH, EVENTS),
            "second": ([(3, 0)], {stream: [[9, 0, 1.0]] for stream in EVENTS}),
        },
        visible={HOSTILE: (np.arange(420), visible)},
        thumbnails=thumbnails,
        curves={"pretrain": rows},
        notes=["Fast <i>and</i> good."],
        figures=[("Delays & more", "How <late>.", drawn)] * 2,
    )
    return text, page, asked


def test_report_is_html_that_needs_nothing_from_elsewhere_and_escapes_what_it_is_given(full):
    text, page, _ = full  # Page() checks the balance
    assert len(page.ids) == len(set(page.ids))
    assert set(page.targets) <= set(page.ids)
    links = {attrs["href"] for attrs in page.attributes("a") if not attrs["href"].startswith("#")}
    assert links == {
        "https://arxiv.org/abs/2510.12385",
        "https://timschoonbeek.github.io/industreal.html",
    }
    assert len(re.findall("https?:", text)) == len(links)
    assert not {"script", "link", "iframe", "object", "i"} & {tag for tag, _ in page.tags}
    assert all(a["src"].startswith("data:image/jpeg;base64,") for a in page.attributes("img"))
    assert "@import" not in text
    given = {HOSTILE, "Fast <i>and</i> good.", "Delays & more", "How <late>."}
    assert given <= {text for _, text in page.texts}
    labels = [a.get("aria-label") for a in page.attributes("svg")]
    assert f"Timeline of recording {HOSTILE}" in labels


def test_report_golden_outcome_of_every_step_and_event(full):
    text, page, _ = full
    # By hand: ASD at 5 frames/s is 20 frames late, 5 early, 10 late; misses three; 12 is wrong.
    timeline = text[text.index("Timeline of recording") :]
    drawn = re.findall(r"<text[^>]*>([^<]*)</text>", timeline[: timeline.index("</svg>")])
    outcomes = [t for t in drawn if re.match(r"\+|early|wrong|missed", t)]
    assert sorted(outcomes) == sorted(
        ["+4.0 s", "early −1.0 s", "+2.0 s", "missed", "missed", "missed", "wrong"]
        + ["+0.0 s"] + ["missed"] * 5
        + ["+1.0 s", "+0.2 s", "+0.8 s", "+0.4 s", "+0.2 s", "missed"]
    )  # fmt: skip
    # The cards say the same but for the wrong event, which has no completion to stand at.
    cards = [text for text in page.cards if re.match(r"\+|early|missed", text)]
    assert sorted(cards) == sorted([o for o in outcomes if o != "wrong"] + ["+1.2 s"] * 3)


def test_report_golden_wrong_parts(tmp_path):
    frames, states = [0, 20, 100, 120], np.array([[0, 0], [-1, 0], [1, 0], [1, -1]])
    truth = [(100, 0)]
    events = {
        "asd": [[30, 0, 0.9], [40, 4, 0.9]],
        "storm": [[45, 1, 0.9], [101, 0, 0.9], [131, 4, 0.9]],
    }
    rows = {
        stream: {
            **score_recording(truth, scored_steps(found), FPS),
            "events": found,
            "wrong": wrong_parts.score_recording(frames, states, [e[:2] for e in found], FPS),
        }
        for stream, found in events.items()
    }
    streams = {
        stream: summarise({"a": row})
        | {"recordings": {"a": row}, "wrong": wrong_parts.summarise([row["wrong"]])}
        for stream, row in rows.items()
    }
    metrics = {"protocol": "paper", "decoder": "expected", "fps": FPS, "streams": streams}
    text, page = make(tmp_path / "r.html", {"a": (truth, {"asd": []})}, metrics=metrics)
    texts = [t for _, t in page.texts]
    table = texts[texts.index("Part") :]
    parts = load_procedure("synthetic").components
    # Part 1 is incorrect until the end.
    first, second = table.index(parts[0]), table.index(parts[1])
    assert table[first + 1 : first + 5] == [
        "0:04",
        "0:20",
        "as installed at 0:06",
        "as incorrect at 0:09",
    ]
    assert table[second + 2 : second + 5] == ["the end", "as neither", "as incorrect at 0:26"]
    assert f"False alarm of ASD: {parts[1]} reported as incorrect at 0:08." in texts
    assert texts[texts.index("False acceptances · STORM-PSR") + 1] == "0"
    assert wrong_parts.UNTESTED not in texts
    timeline = text[text.index("Timeline of recording") :]
    timeline = timeline[: timeline.index("</svg>")]
    drawn = re.findall(r"<text[^>]*>([^<]*)</text>", timeline)
    assert {"false alarm", "as incorrect +5.0 s", "as incorrect +2.2 s"} <= set(drawn)
    assert "wrong" not in drawn  # a report of an incorrect installation is no false positive
    assert f"Install {parts[1]}" in drawn  # the part's row, although nobody ever installs it
    assert timeline.count("var(--bad)") >= 5  # two intervals, and marks
    (described,) = [a["aria-describedby"] for _, a in page.tags if "aria-describedby" in a]
    assert described in page.ids


def test_report_pictures_stand_at_completions_and_colours_follow_the_mode(full):
    text, page, asked = full
    assert asked == [(HOSTILE, f) for f in (50, 100, 150, 170, 400)] + [("second", 3)]
    images = page.attributes("img")
    assert len(images) == 5
    assert all(base64.b64decode(a["src"].partition(",")[2]) == JPEG for a in images)
    assert ("div", "no picture") in page.texts
    drawn = "".join(re.findall(r"<svg viewBox.*?</svg>", text, re.S))
    assert "var(--green)" in drawn
    assert "var(--ink)" in drawn
    # Whatever is left as a number would stay as it is in the dark.
    assert set(re.findall(r"(?:fill|stroke): (#\w+)", drawn)) == set()
    light, dark = text[text.index(":root") :].split("prefers-color-scheme: dark")[:2]
    for name in set(re.findall(r"var\(--(\w+)\)", drawn)):
        assert f"--{name}:" in light
        assert f"--{name}:" in dark


def test_report_undefined_figures_are_dashes(tmp_path):
    recordings = {"nothing": ([], {"asd": []}), "missed": ([(5, 0)], {"asd": []})}
    _, page = make(tmp_path / "report.html", recordings)
    texts = [text for _, text in page.texts]
    assert "(1 undefined)" in texts  # POS, F1
    assert "(2 undefined)" in texts  # delay
    assert "–" in texts
    assert not any("nan" in text.lower().split() or text == "None" for text in texts)
    _, page = make(tmp_path / "report.html", {"nothing": ([], {"asd": [[3, 0, 0.9]]})})
    cells = [text for tag, text in page.texts if tag == "td"]
    assert "0.000" not in cells  # neither F1 nor pooled F1


def test_headline_is_of_the_stream_that_the_model_recognises_by(tmp_path):
    for default, title in (({"default_stream": "asd"}, "ASD only"), ({}, "STORM-PSR")):
        _, page = make(tmp_path / "r.html", {"one": (TRUTH, EVENTS)}, more=default)
        assert ("div", f"F1 · {title}") in page.texts
    _, page = make(tmp_path / "r.html", {"one": (TRUTH, EVENTS)}, more={"recognises_by": "asd"})
    assert ("p", "The model recognises by asd.") in page.texts


def test_what_was_seen_has_a_row_above_what_is_right_and_a_line_says_which_is_for_whom(tmp_path):
    right, seen = (score_recording(TRUTH, steps, FPS) for steps in (TRUTH[:2], TRUTH[:4]))
    entry = summarise({"a": right}) | {"recordings": {"a": right | {"events": [], "seen": seen}}}
    entry["wrong"] = dict.fromkeys((figure.key for figure in headline.WRONG), 0)
    entry["seen"] = seen | {"wrong": entry["wrong"] | {"accepted": 7}}
    more = {"streams": {"learned": entry}}
    _, page = make(tmp_path / "r.html", {"a": (TRUTH, {"learned": []})}, more)
    titles = [text for tag, text in page.texts if tag == "th" and "fusion" in text]
    assert titles == 2 * ["Learned fusion (seen)", "Learned fusion"]
    cells = [text for tag, text in page.texts if tag == "td"]
    assert cells.index("4") < cells.index("2") < cells.index("7")
    assert any("is comparable with the papers" in text for _, text in page.texts)
    tiles = [text for tag, text in page.texts if tag == "div"]
    at = tiles.index("F1 · Learned fusion, seen")
    assert tiles[at + 1 : at + 3] == [f"{seen['f1']:.3f}", f"right: {right['f1']:.3f}"]
    assert not any("none was right" in text for _, text in page.texts)
    none = score_recording(TRUTH, [], FPS)
    entry |= {key: none[key] for key in ("pos", "f1", "delay_s", "tp", "fp", "fn")}
    _, page = make(tmp_path / "r.html", {"a": (TRUTH, {"learned": []})}, more)
    texts = [text for _, text in page.texts]
    at = next(i for i, text in enumerate(texts) if "none was right: no part's own ev" in text)
    assert at < texts.index("F1 · Learned fusion, seen"), "above the tiles"
    never = [tag for tag, text in page.texts if text == wrong_parts.UNTESTED]
    assert never == ["div", "b"]  # in place of 0 of 0, and above the table of them
