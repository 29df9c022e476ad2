"""A sweep over config fields: its runs, and the table of what comes of them."""

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from stormpsr_jax.experiments.result_tables import KEYS, spread
from stormpsr_jax.experiments.runs import Changes, Run, planned
from stormpsr_jax.psr import analysis
from stormpsr_jax.stages import config_flag

COLUMNS = (*(f"validation_{key}" for key in KEYS), *KEYS, "accepted")
_SEPARATE = {"seed": "--seeds", "data.dir": "a sweep a data folder"}


def parse(words: Sequence[str], config: ConfigDict) -> dict[str, list[Any]]:
    """The values of each field that words FIELD=VALUE,VALUE… name, by field.

    Commas inside of brackets belong to a value. ValueError of a word of another form, of no such
    field, or of a value that it cannot have.
    """
    usual, found = config_flag.flat(config), {}
    if not words:
        raise ValueError("no field to vary; give FIELD=VALUE,VALUE…, such as temporal.delta=40,80")
    for word in words:
        field, sign, texts = word.partition("=")
        if not sign or not texts:
            raise ValueError(f"{word!r} is not FIELD=VALUE,VALUE…, such as temporal.delta=40,80")
        if field not in usual:
            raise ValueError(f"{field}: there is no such field; see configs/default.py")
        if field in found:
            raise ValueError(f"{field} is given twice")
        if field in _SEPARATE:
            raise ValueError(f"{field} cannot be varied here; use {_SEPARATE[field]}")
        values = [config_flag.value_of(field, text) for text in re.split(r",(?![^(]*\))", texts)]
        found[field] = list(dict.fromkeys(values))
    return found


def runs_of(
    values: Mapping[str, Sequence[Any]], config: ConfigDict, root: Path, seeds: Sequence[int]
) -> dict[tuple[str, int], Run]:
    """The runs of a sweep, by (what differs, seed)."""
    variants: dict[str, Changes] = {}
    for combination in itertools.product(*values.values()):
        differs = dict(zip(values, combination, strict=True))
        text = ", ".join(f"{field}={value}" for field, value in differs.items())
        variants[text] = differs
    return planned(config, variants, root, seeds)


def content(runs: Mapping[tuple[str, int], Run], seeds: Sequence[int]) -> dict[str, Any]:
    """The table as sweep.json has it; see `result_tables.markdown`."""
    results: dict[str, list[dict]] = {}
    for (text, _), run in runs.items():
        results.setdefault(text, []).append(analysis.load_result(run.folder / "metrics.json"))
    rows = []
    for text, found in results.items():
        for stream in found[0]["streams"]:
            rows.append(spread(f"{text}: {stream}", [_figures(r, stream) for r in found], COLUMNS))
    return {
        "title": "Sweep",
        "note": "Choose by the validation figures; those of test say what the choice is worth.",
        "seeds": list(seeds),
        "columns": list(COLUMNS),
        "rows": rows,
    }


def _figures(result: Mapping[str, Any], stream: str) -> dict[str, float | None]:
    test, validation = result["streams"][stream], result["validation"][stream]
    return {
        **{f"validation_{key}": validation[key] for key in KEYS},
        **{key: test[key] for key in KEYS},
        "accepted": test["wrong"]["accepted"] if test["wrong"] else None,
    }
