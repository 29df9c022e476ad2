"""What a run says to its owner: whether its model can tick a step, and what to record next."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

from stormpsr_jax.psr import analysis, streams, wrong_parts
from stormpsr_jax.psr.events import reports
from stormpsr_jax.psr.learned_beliefs import Weights
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from stormpsr_jax.recordings.procedure import Procedure

NAMED = 3  # steps, or parts, that `record_next` names
CLEARLY = 0.05  # of F1: from there on it is said that validation prefers another stream


def nothing_right(
    where: str, right: float | None, seen: float | None, settings: Mapping[str, Any]
) -> str:
    """Says that steps were seen and none was right, why, and what to do; '' where some was.

    Args:
        where: "In validation", for one.
        right, seen: F1 of what was right, and of what was seen; None of a stream without that.
        settings: of the stream.
    """
    if right or not seen:
        return ""
    bar = settings.get("sure")
    its = "the threshold" if bar is None else f"the threshold of {bar:g}"
    return (
        f"{where} steps were seen (F1 {seen:.3f}) and none was right: no part's own evidence "
        f"passed {its}. So a station cannot tick a step. Record more takes with incorrect "
        "installations, some of which stay, as these choose the threshold; or give recognise a "
        "higher --risk (1 takes what is seen for right)."
    )


def recognises_by(default: str | None, figures: Mapping[str, Any], val: int | None) -> str:
    """Says by which stream a model recognises, whether it can, and if another is clearly better.

    Args:
        default: if that is not the last one of the model.
        figures: by stream, in order, "validation" (with "f1", and "seen_f1" where it says what was
            seen) and, where known, "settings".
        val: how many recordings validate; None: not known.
    """
    of = {stream: its["validation"] for stream, its in figures.items()}
    right, seen = ({s: its.get(key) for s, its in of.items()} for key in ("f1", "seen_f1"))
    f1 = {s: (right[s] if seen[s] is None else seen[s]) or 0.0 for s in of}  # of what was seen
    text = name = default or list(of)[-1]
    if name == streams.METHOD.name and streams.LEARNED.name in of:
        text += ", as its networks were not trained to tell right from incorrect"
    best = max(f1, key=f1.__getitem__)
    if f1[best] - f1[name] > CLEARLY:
        number = "the" if val is None else str(val)
        where = f"{number} validation recording{'' if val == 1 else 's'}"
        of_both = f"{best} has F1 {f1[best]:.2f}, {name} {f1[name]:.2f}"
        text += f"; on {where} {of_both}: --stream={best}"
    settings = figures[name].get("settings", {})
    why = nothing_right("In validation", right[name], seen[name], settings)
    return f"{text}. {why}".removesuffix(". ").removesuffix(".")


def score_recording(
    procedure: Procedure,
    stream: str,
    settings: Any,
    recording: LabelledPredictions,
    weights: Weights | None,
) -> dict[str, Any]:
    """Returns what a stream finds in a recording, for `record_next`: steps as soon as seen.

    `weights` are those of a fitted stream, which have not seen the recording.
    """
    events = streams.find(stream).decode(procedure, recording, settings, weights)
    right = reports(events)
    seen = [event for event in events if event.kind == "seen"] or right
    of, steps = (recording.frames, recording.states), [event[:2] for event in right]
    return {
        "truth": [list(step) for step in sorted(recording.truth)],
        "events": [list(event[:3]) for event in seen],
        "wrong": wrong_parts.score_recording(*of, steps, procedure.fps),
    }


def record_next(result: Mapping[str, Any]) -> list[str]:
    """Returns what further recordings should show, by the results of a run; up to three sentences.

    They name the steps that its stream found worst, the parts whose incorrect installations it
    accepted, and those that are never installed incorrectly; of validation, as the test recordings
    must choose nothing. ValueError: it is not of a run, or of one of an earlier version.
    """
    stream = result.get("default_stream")
    recordings = result.get("validation", {}).get(stream, {}).get("recordings")
    if recordings is None:
        raise ValueError("has no validation recordings; a run of this version has them")
    of_stream = {**result, "streams": {stream: {"recordings": recordings}}}
    steps = analysis.steps_table(of_stream)
    errors = {row["name"]: row["truths"] - row["tp"] + row["fp"] for row in steps}
    of_steps = [
        f"{row['name']} ({row['tp']} of {row['truths']} found"
        f"{f', {false} falsely reported' if (false := row['fp']) else ''})"
        for row in sorted(steps, key=lambda row: -errors[row["name"]])
        if errors[row["name"]]
    ]
    counts, accepted = collections.Counter[str](), collections.Counter[str]()
    for row in wrong_parts.installations_table(of_stream):
        counts[row["part"]] += 1
        accepted[row["part"]] += row["accepted_s"] is not None
    of_parts = [f"{part} {n} of {counts[part]}" for part, n in accepted.most_common() if n]
    known = any(row["wrong"] is not None for row in recordings.values())  # labelled states
    never = [part for part in result["components"] if known and not counts[part]]
    listed = {
        f"Steps of validation that {stream} finds worst": of_steps,
        f"Incorrect installations of validation that {stream} accepted": of_parts,
        "Never installed incorrectly in validation": never,
    }
    return [f"{what}: {_first(names)}." for what, names in listed.items() if names]


def untaught(weights: Weights | None, components: Sequence[str]) -> list[str]:
    """Says of which components pictures never show that they are right; nothing if of none."""
    trust = () if weights is None else weights.trust
    names = [name for name, one in zip(components, trust, strict=False) if not one]
    if not names:
        return []
    return [
        "No training recording shows these parts installed incorrectly, so pictures alone never "
        f"report them as right, a person's word does: {_first(names)}. Film each one installed "
        "incorrectly, or train on renders too."
    ]


def _first(names: Sequence[str]) -> str:
    left = len(names) - NAMED
    return ", ".join([*names[:NAMED], *([f"{left} more"] if left > 0 else [])])
