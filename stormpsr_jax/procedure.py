"""Procedure files: ``python -m stormpsr_jax.procedure check|template|draft|show``."""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from stormpsr_jax.base.errors import first_of, one_line, raise_all, visible
from stormpsr_jax.base.files import read_json
from stormpsr_jax.psr import monitor
from stormpsr_jax.psr.cli import OneLineParser, add_label_flags, fail_for
from stormpsr_jax.recordings import find, words
from stormpsr_jax.recordings.labels import STATES
from stormpsr_jax.recordings.procedure import Procedure, find_errors, load_procedure, procedure_path

_FILE = "a procedure file, or a packaged procedure's name"


def check(args: argparse.Namespace) -> None:
    """Checks a procedure file, and with labels also whether the two fit; prints what it finds.

    Raises:
        ValueError: every error of the file, and of the labels.
    """
    if args.variant is not None and args.labels is None:
        raise ValueError("--variant needs --labels: it names the variant of those recordings")
    path = procedure_path(args.procedure)
    data = read_json(path)
    raise_all([f"{path}: {error}" for error in find_errors(data)])
    procedure = Procedure.from_json(data)
    warnings = _warnings(procedure)
    if "draft" in data:
        warnings += [f"draft: {note}" for note in data["draft"]]
        warnings.append("is a draft: check what it says, then remove the key 'draft'")
    _print_warnings(f"{path}: {warning}" for warning in warnings)
    if args.labels is None:
        print(f"{args.procedure}: no errors")
        return
    terms = words.terms(args.words, args.labels_fps, procedure)
    places = find.find(args.labels)
    if args.variant is not None:
        procedure.variant_for("", args.variant)  # which it has to have, said once
    errors: list[str] = []
    odd: list[tuple[str, monitor.LabelWarning]] = []
    for name, place in places.items():
        try:
            variant = None
            variant = procedure.variant_for(name, args.variant)
        except ValueError as error:
            errors.append(f"{path}: {error}")
        try:
            labelled = place.read(procedure, variant, terms=terms, recording=name)
        except ValueError as error:
            errors += first_of(error, place)
            continue
        if variant is None:
            continue
        if len(labelled.states) and tuple(labelled.states[0].tolist()) != variant.initial_state:
            where = f"{place}/{STATES}: line 1" if place.path.is_dir() else place
            what = f"the first state is not the initial state of variant {variant.name!r} in {path}"
            errors.append(f"{where}: {what}")
            continue
        doubtful = monitor.check_labels(procedure, variant, labelled)
        odd += [(name, warning) for warning in doubtful]
    _print_warnings(monitor.group_warnings(odd, procedure.fps))
    raise_all(errors)
    print(f"{args.procedure}: no errors")
    recordings = f"{len(places)} recording{'s' if len(places) != 1 else ''}"
    fit = "can be read, with warnings" if odd else "fit"
    print(f"{args.labels}: the labels of {recordings} {fit}")


def _print_warnings(warnings: Iterable[str]) -> None:
    for warning in warnings:
        print(f"warning: {one_line(warning)}")


def _warnings(procedure: Procedure) -> list[str]:
    """What a file may say, but hardly means."""
    warnings = []
    for variant in procedure.variants.values():
        for key, steps, possible in (
            ("expected", variant.expected, variant.expected),
            ("allowed", variant.allowed or (), variant.possible),
        ):
            for step in steps:
                k, removal = step // 3, step % 3 == 2
                if variant.initial_state[k] != removal and 3 * k + 2 - step % 3 not in possible:
                    warnings.append(
                        f"variants.{variant.name}.{key}: step {step} "
                        f"({procedure.step_name(step)}) can never complete: the component starts "
                        f"{'absent' if removal else 'installed'} and the opposite is not {key}"
                    )
        warnings += [
            f"variants.{variant.name}.precedence: {list(pair)}: step {step} "
            f"({procedure.step_name(step)}) is not expected"
            for pair in variant.precedence
            for step in pair
            if step not in variant.expected
        ]
    return warnings


def template(name: str, components: Sequence[str], fps: float) -> dict[str, Any]:
    """Returns a procedure file to start from: assembly in the order of the components.

    Raises:
        ValueError: a name or a number that no procedure may have.
    """
    num = len(components)
    data: dict[str, Any] = {
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


def _draft(words: Sequence[str]) -> None:
    """Begins one from meshes; a process of data_prep's, as reading meshes is an extra."""
    command = [sys.executable, "-m", "data_prep.draft", *words]
    if status := subprocess.run(command, check=False).returncode:
        sys.exit(status)


def _show(args: argparse.Namespace) -> None:
    """Prints what a procedure is, or has its page written with the meshes of its parts."""
    if bool(args.meshes) != bool(args.page):
        raise ValueError("--meshes and --page go together")
    if args.page:
        of = f"--of={args.procedure}", f"--up={args.up}"
        _draft([f"--meshes={args.meshes}", f"--page={args.page}", *of])
    else:
        print(show(load_procedure(args.procedure)))


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
        if variant.allowed is None:
            lines.append("  allows every part to come off and go on again")
        for step in variant.allowed or ():
            lines.append(f"  allows  {step:>3}  {procedure.step_name(step)}")
        for before, after in variant.precedence:
            lines.append(
                f"  {procedure.step_name(before)} before {procedure.step_name(after).lower()}"
            )
    return "\n".join(map(visible, lines))


def main(argv: Sequence[str] | None = None) -> None:
    """The command; exit code 2 for a file with errors, one line each."""
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] == "draft":
        return _draft(words[1:])
    args = _parser().parse_args(words)
    try:
        args.run(args)
    except (OSError, ValueError) as error:
        fail_for(error)


def _template(args: argparse.Namespace) -> None:
    components = [name.strip() for name in args.components.split(",")]
    content = template(args.name, components, args.fps)
    if args.out is None:
        print(_dump(content))
    else:
        write_new(args.out, content)


def write_new(out: str, content: dict[str, Any]) -> None:
    """Writes a procedure's content as a file; ValueError if there is one."""
    if os.path.lexists(out):
        raise ValueError(f"--out={out}: is there already; give a file that is not, or delete it")
    with pathlib.Path(out).open("x", encoding="utf-8") as file:
        file.write(_dump(content) + "\n")


def _dump(data: dict[str, Any]) -> str:
    """JSON with each list of numbers on one line; a text is left as it is."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    return re.sub(r'"(?:[^"\\]|\\.)*"|\[[\s\d,]*\d\s*\]', _on_one_line, text)


def _on_one_line(found: re.Match) -> str:
    text = found[0]
    return text if text[0] == '"' else f"[{', '.join(re.findall('[0-9]+', text))}]"


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="python -m stormpsr_jax.procedure", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)

    def action(name: str, run: Callable[..., None], text: str) -> Callable[..., Any]:
        made = actions.add_parser(name, help=text)
        made.set_defaults(run=run)
        return made.add_argument

    add = action("check", check, "list every error in a file")
    add("procedure", help=_FILE)
    add("--labels", help="folder of the recordings' labels, of any kind, to check against it")
    add("--variant", help="of all these recordings; otherwise found by their names")
    add_label_flags(add)
    add = action("template", _template, "write a file to start from")
    add("--name", required=True)
    add("--components", required=True, help="their names, with commas between them")
    add("--fps", type=float, default=5.0, help="frames per second (%(default)s)")
    add("--out", help="the file to write, which must not exist; otherwise it is printed")
    actions.add_parser("draft", help="begin one with the parts that have meshes")
    add = action("show", _show, "components, step ids, states and variants")
    add("procedure", help=_FILE)
    add("--meshes", metavar="DIR", help="a mesh for each component, for --page")
    text = "write a page with pictures of states and incorrect installations, instead of printing"
    add("--page", metavar="FILE.html", help=text)
    add("--up", choices=("z", "y"), default="z", help="axis of the meshes that points up (z)")
    return parser


if __name__ == "__main__":
    main()
