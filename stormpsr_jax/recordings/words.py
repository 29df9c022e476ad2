"""Words of a labelling tool for the steps of a procedure, as a file `word,step` says."""

import dataclasses
import difflib
import os
import re
from collections.abc import Mapping

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import for_each
from stormpsr_jax.recordings import csvfile
from stormpsr_jax.recordings.procedure import Procedure

HEADER = ["word", "step"]


class Steps:
    """The steps of a procedure by what labels may call them, in any case.

    Their ids and their names, and the words of a mapping file, which go first; such a word may
    stand for no step, and is then left out.
    """

    def __init__(self, procedure: Procedure, words: Mapping[str, int | None] | None = None):
        self._procedure = procedure
        self._words = words or {}
        self._names = {procedure.step_name(i): i for i in range(3 * procedure.num_components)}
        self._folded: dict[str, list[int]] = {}
        for name, step_id in self._names.items():
            self._folded.setdefault(name.casefold(), []).append(step_id)

    def find(self, text: str, place: str) -> int | None:
        """Returns the id of a step, given as id, name or word; None of a word that stands for none.

        Raises ValueError with the place, file and where in it, if it is none of these.
        """
        if text.casefold() in self._words:
            return self._words[text.casefold()]
        return self.of_procedure(text, place)

    def of_procedure(self, text: str, place: str) -> int:
        """Returns the id of a step given as id or name; ValueError if it is neither."""
        if re.fullmatch("[+-]?[0-9]{1,4000}", text, re.ASCII):
            if not 0 <= int(text) < len(self._names):
                raise ValueError(
                    f"{place}: {files.shorten(text)} is not in 0…{len(self._names) - 1}"
                )
            return int(text)
        if text in self._names:
            return self._names[text]
        if len(same := self._folded.get(text.casefold(), [])) == 1:
            return same[0]
        by_fold = {name.casefold(): name for name in self._names}
        matches = difflib.get_close_matches(text[:200].casefold(), by_fold, 3, 0.5)
        near = [by_fold[name] for name in matches]
        hint = f"; near it are {', '.join(map(repr, near))}" if near else ""
        raise ValueError(
            f"{place}: {files.shorten(text)} is no step of procedure {self._procedure.name!r}{hint}"
            " (python -m stormpsr_jax.procedure show FILE lists them, --words maps words to them)"
        )


@dataclasses.dataclass(frozen=True)
class Terms:
    """What a command line says about labels by the clock.

    Attributes:
        words: by word in small letters, the step it stands for, None for one that is no step.
        fps: rate at which the labelling tool counted frames; None if it is not known.
    """

    words: Mapping[str, int | None] = dataclasses.field(default_factory=dict)
    fps: float | None = None

    @property
    def fingerprint(self) -> str:
        """A text that another mapping or rate does not have; '' where nothing was said."""
        said = sorted(self.words.items())
        return repr((said, self.fps)) if said or self.fps is not None else ""


def terms(words: str | os.PathLike | None, fps: float | None, procedure: Procedure) -> Terms:
    """Returns what --words and --labels_fps say; ValueError as of `read`, or for the rate."""
    if fps is not None:
        files.number(fps, "--labels_fps", files.MIN_FPS, files.MAX_FPS)
    return Terms({} if words is None else read(words, procedure), fps)


def read(path: str | os.PathLike, procedure: Procedure) -> dict[str, int | None]:
    """Reads a mapping file: CSV with the columns word and step.

    A step is an id or a name, or empty for words that are no step. ValueError has every error, with
    file and line.
    """
    steps = Steps(procedure)
    steps_of: dict[str, int | None] = {}
    rows = csvfile.read_rows(path)
    names = [name.strip().lower() for name in rows[0][1]] if rows else []
    if not set(HEADER) <= set(names):
        found_names = files.shorten(",".join(names))
        raise ValueError(f"{path}: line 1: header: {found_names} is not word,step")
    at = [names.index(name) for name in HEADER]

    def parse(line: csvfile.Line, row: list[str]) -> None:
        line.check_width(row[: len(names)], names)
        word, step = (row[i].strip() for i in at)
        # A word like a formula is written with ' in front.
        word = word[1:] if csvfile.plain(word[1:]) == word else word
        if not word:
            raise line.error("word", "is empty")
        if word.casefold() in steps_of:
            raise line.error("word", f"{files.shorten(word)} is given twice")
        place = f"{path}: line {line}: step"
        steps_of[word.casefold()] = steps.of_procedure(step, place) if step else None

    for_each(rows[1:], parse)
    return steps_of
