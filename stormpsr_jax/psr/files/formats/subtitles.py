"""Subtitles: SubRip (.srt) and WebVTT (.vtt). A cue is a step, complete at the cue's end."""

import html
import pathlib
import re
from collections.abc import Iterator, Sequence

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import for_each
from stormpsr_jax.psr.files.formats import form

_TIME = r"(?:([0-9]{1,6}):)?([0-5]?[0-9]):([0-5][0-9])[,.]([0-9]{1,3})"
_CUE = re.compile(rf"\s*{_TIME}\s+-->\s+{_TIME}(?:\s.*)?", re.ASCII)
_TAG = re.compile(r"</?(?:[biuvc]|font|lang|ruby|rt)(?:[ .][^>]*)?>|\{\\[^}]*\}", re.IGNORECASE)
_BEGUN = re.compile(r"\s*[0-9:.,]+\s+-->", re.ASCII)
_NO_CUE = ("WEBVTT", "NOTE", "STYLE", "REGION")
_BLOCK = list[tuple[int, str]]


def _blocks(text: str) -> Iterator[tuple[_BLOCK]]:
    """Yields the lines of each block between empty ones, with their numbers."""
    block: _BLOCK = []
    for line, content in enumerate([*text.splitlines(), ""], start=1):
        if content.strip():
            block.append((line, content))
        elif block:
            yield (block,)
            block = []


def _read(sample: form.Sample) -> list[form.Entry]:
    def parse(block: _BLOCK) -> list[form.Entry]:
        if block[0][1].split(maxsplit=1)[0] in _NO_CUE:
            # A cue that no empty line sets apart begins with its times, as in a browser.
            times = (i for i, (_, content) in enumerate(block) if _BEGUN.match(content))
            block = block[next(times, len(block)) :]
            if not block:
                return []
        number = block[0][0]
        # The number or name of a cue may stand above its times.
        at = next((i for i, (_, content) in enumerate(block[:2]) if "-->" in content), None)
        if at is None:
            what = "has no times such as 00:00:05,200 --> 00:00:06,200 in its first two lines"
            raise sample.error(f"line {number}", what)
        line, content = block[at]
        match = _CUE.fullmatch(content)
        if not match:
            what = f"time: {files.shorten(content)} is not 00:00:05,200 --> 00:00:06,200"
            raise sample.error(f"line {line}", what)
        start, end = (_seconds(*match.groups()[i : i + 4]) for i in (0, 4))
        end = sample.ordered(start, end, f"line {line}")
        if at + 1 == len(block):
            raise sample.error(f"line {line}", "step: the cue is empty; write the step below it")
        return [
            form.Entry(_plain(text, sample), end, form.Unit.SECONDS, f"line {n}")
            for n, text in block[at + 1 :]
        ]

    return [entry for entries in for_each(_blocks(sample.text), parse) for entry in entries]


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str) -> float:
    whole = 3600 * int(hours or 0) + 60 * int(minutes) + int(seconds)
    return (1000 * whole + int(fraction.ljust(3, "0"))) / 1000


def _plain(text: str, sample: form.Sample) -> str:
    text = _TAG.sub("", text).strip()
    return html.unescape(text) if sample.text.startswith("WEBVTT") else text


def _has_times(sample: form.Sample) -> bool:
    lines = [line for line in sample.text[:4096].splitlines() if line.strip()][:2]
    return any(_BEGUN.match(line) for line in lines)


def _write(
    path: pathlib.Path, steps: Sequence[form.Written], video: pathlib.Path, fps: float
) -> None:
    cues = []
    for number, step in enumerate(steps, start=1):
        end = round(1000 * step.frame / fps)
        start = max(0, end - 1000)  # the second before the step, to be shown
        # A name that looks like markup would not be read back.
        text = step.name if _TAG.sub("", step.name) == step.name else str(step.step_id)
        cues.append(f"{number}\n{_stamp(start)} --> {_stamp(end)}\n{text}\n")
    # A file without any cue says nothing of what it is; of WebVTT the head alone does.
    files.write_text(path, "\n".join(cues) or "WEBVTT\n")


def _stamp(time: int) -> str:
    minutes, rest = divmod(time, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d},{rest % 1000:03d}"


FORMAT = form.Format(
    key="srt",
    name="subtitles (SRT, WebVTT)",
    clock="milliseconds of the video; a step is complete at the end of its cue",
    forms=(
        form.Form(
            (form.IS_TABLE, form.Mark("WEBVTT at its head", lambda s: s.text.startswith("WEBVTT"))),
            _read,
        ),
        form.Form((form.IS_TABLE, form.Mark("a cue with times (-->)", _has_times)), _read),
    ),
    ending=".srt",
    write=_write,
)
