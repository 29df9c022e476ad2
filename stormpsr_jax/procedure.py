"""Procedure files: ``python -m stormpsr_jax.procedure check|template|show``."""

import argparse
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from stormpsr_jax.files import read_json
from stormpsr_jax.psr import labels
from stormpsr_jax.psr.cli import OneLineParser, fail
from stormpsr_jax.psr.procedure import Procedure, load_procedure, procedure_path
from stormpsr_jax.psr.procedure_check import find_mistakes

_LABEL_FILES = ("PSR_labels.csv", "PSR_labels_with_errors.csv", "PSR_labels_raw.csv")


def check(name_or_path: str, labels_dir: str | None = None) -> tuple[list[str], list[str]]:
    """Checks a procedure file, and with labels also whether the two fit.

    Args:
        name_or_path: as for `load_procedure`.
        labels_dir: a folder per recording.

    Returns:
        The mistakes and the doubts, each "place: what is wrong".

    Raises:
        ValueError: the file cannot be read or is not JSON.
    """
    path = procedure_path(name_or_path)
    data = read_json(path)
    mistakes = [f"{path}: {mistake}" for mistake in find_mistakes(data)]
    if mistakes:
        return mistakes, []
    procedure = Procedure.from_json(data)
    doubts = [f"{path}: {doubt}" for doubt in _doubts(procedure)]
    if labels_dir is not None:
        mistakes += _label_mistakes(procedure, pathlib.Path(labels_dir))
    return mistakes, doubts


def _doubts(procedure: Procedure) -> list[str]:
    """What a file may say, but hardly means."""
    doubts = []
    for variant in procedure.variants.values():
        for step in variant.expected:
            k, removal = step // 3, step % 3 == 2
            if variant.initial_state[k] != removal and 3 * k + 2 - step % 3 not in variant.expected:
                doubts.append(
                    f"variants.{variant.name}.expected: step {step} "
                    f"({procedure.step_name(step)}) can never complete: the component starts "
                    f"{'absent' if removal else 'installed'} and the opposite is not expected"
                )
        for pair in variant.precedence:
            for step in pair:
                if step not in variant.expected:
                    doubts.append(
                        f"variants.{variant.name}.precedence: {list(pair)}: step {step} "
                        f"({procedure.step_name(step)}) is not expected"
                    )
    return doubts


def _label_mistakes(procedure: Procedure, root: pathlib.Path) -> list[str]:
    if not root.is_dir():
        return [f"{root}: is not a folder; --labels takes one with a folder per recording"]
    mistakes = []
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
        try:
            variant = procedure.variant_for(folder.name)
        except ValueError as error:
            mistakes.append(str(error))
            variant = None
        for name in _LABEL_FILES:
            path = folder / name
            if not path.exists():
                continue
            try:
                if name != "PSR_labels_raw.csv":
                    labels.read_steps(path, procedure)
                    continue
                first = labels.read_states(path, procedure)[1][0]
            except ValueError as error:
                mistakes.append(str(error))
                continue
            if variant is not None and tuple(first.tolist()) != variant.initial_state:
                mistakes.append(
                    f"{path}: line 1: the first state is not the initial state of variant "
                    f"{variant.name!r}"
                )
    return mistakes


def template(name: str, components: Sequence[str], fps: float) -> dict[str, Any]:
    """Returns a procedure file to start from: assembly in the order of the components.

    Raises:
        ValueError: a name or a number that no procedure may have.
    """
    num = len(components)
    data = {
        "name": name,
        "fps": fps,
        "components": list(components),
        "states": ["1" * k + "0" * (num - k) for k in range(1, num + 1)],
        "variants": {
            "assembly": {
                "initial_state": "0" * num,
                "expected": [3 * k for k in range(num)],
                "recordings": ["*"],
                "precedence": [[3 * k, 3 * k + 3] for k in range(num - 1)],
            }
        },
    }
    return Procedure.from_json(data, "template").to_json()


def show(procedure: Procedure) -> str:
    """Returns a description of a procedure for people."""
    names = procedure.components
    width = max(map(len, names))
    lines = [f"{procedure.name}: {len(names)} components, {procedure.fps:g} frames per second", ""]
    lines.append(f"{'component':<{width}}  install  incorrect  remove")
    for k, name in enumerate(names):
        lines.append(f"{name:<{width}}  {3 * k:>7}  {3 * k + 1:>9}  {3 * k + 2:>6}")
    lines += ["", "catalogued states (0 is background, the last is the error state)"]
    for c, state in enumerate(procedure.states.tolist(), start=1):
        present = [name for name, bit in zip(names, state, strict=True) if bit]
        digits = "".join(map(str, state))
        lines.append(f"{c:>4}  {digits}  {', '.join(present) or 'nothing'}")
    lines.append(f"{procedure.error_class:>4}  any component incorrectly installed")
    for variant in procedure.variants.values():
        lines += ["", f"variant {variant.name}: recordings {', '.join(variant.recordings)}"]
        lines.append(f"  starts with {''.join(map(str, variant.initial_state))}")
        for step in variant.expected:
            lines.append(f"  expects {step:>3}  {procedure.step_name(step)}")
        for before, after in variant.precedence:
            lines.append(
                f"  {procedure.step_name(before)} before {procedure.step_name(after).lower()}"
            )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """The command; exit code 2 for a file with mistakes, one line each."""
    args = _parser().parse_args(argv)
    try:
        if args.action == "show":
            print(show(load_procedure(args.procedure)))
        elif args.action == "template":
            components = [name.strip() for name in args.components.split(",")]
            text = _dump(template(args.name, components, args.fps))
            if args.out is None:
                print(text)
            else:
                with pathlib.Path(args.out).open("x", encoding="utf-8") as file:
                    file.write(text + "\n")
        else:
            mistakes, doubts = check(args.procedure, args.labels)
            for doubt in doubts:
                print(f"doubt: {doubt}")
            if mistakes:
                fail(*mistakes)
            print(f"{args.procedure}: no mistakes")
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")
    except ValueError as error:
        fail(str(error))


def _dump(data: dict[str, Any]) -> str:
    """JSON with each list of numbers on one line."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    return re.sub(r"\[[\s\d,]*\d\s*\]", _on_one_line, text)


def _on_one_line(numbers: re.Match) -> str:
    return f"[{', '.join(re.findall('[0-9]+', numbers[0]))}]"


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="python -m stormpsr_jax.procedure", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    add = actions.add_parser("check", help="name every mistake in a file").add_argument
    add("procedure", help="a procedure file, or a packaged procedure's name")
    add("--labels", help="folder with a folder of label files per recording, to check against it")
    add = actions.add_parser("template", help="write a file to start from").add_argument
    add("--name", required=True)
    add("--components", required=True, help="their names, with commas between them")
    add("--fps", type=float, default=10.0, help="frames per second (%(default)s)")
    add("--out", help="the file to write, which must not exist; otherwise it is printed")
    add = actions.add_parser("show", help="components, step ids, states and variants").add_argument
    add("procedure", help="a procedure file, or a packaged procedure's name")
    return parser


if __name__ == "__main__":
    main()
