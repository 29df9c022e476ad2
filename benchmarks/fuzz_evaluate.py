"""Feeds `evaluate` with broken files: ``python benchmarks/fuzz_evaluate.py --num=10000``.

Each case breaks one file of a small valid input in one random way. Either the command gives a
result with every recording in every stream, or it exits with code 2 and lines that name the
file, one a mistake. With ``--report`` each case also draws its report, which takes much longer.
"""

import argparse
import collections
import contextlib
import io
import json
import pathlib
import random
import re
import tempfile

from stormpsr_jax import evaluate
from stormpsr_jax.psr.evaluation.scoring import PROTOCOLS
from stormpsr_jax.psr.procedure import load_procedure

RECORDINGS = ("01_assy_a", "07_main_b")
NASTY = (
    "",
    " ",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "-1",
    "-0",
    "0.5",
    "1e300",
    "9" * 30,
    "9" * 5000,
    "1_0",
    "0x10",
    "²",
    "٣",
    "None",
    "[]",
    "[1",
    '"',
    "'",
    "\x00",
    "\ufeff",
    "\t",
    "é",
    ",",
    "\n",
    "\r",
    "[[0, 1]]",
    "-5.jpg",
    "../../x.jpg",
    "true",
    "1,5",
)


def make_input(root: pathlib.Path) -> None:
    """Writes a valid input of two short recordings."""
    data = load_procedure("industreal").to_json()
    for kind in ("asd", "temporal", "visibility"):
        (root / kind).mkdir(parents=True)
    (root / "procedure.json").write_text(json.dumps(data, indent=1))
    for name in RECORDINGS:
        start = data["variants"]["assembly" if "assy" in name else "maintenance"]["initial_state"]
        flip = (9, 18) if "assy" in name else (32, 20)
        state = list(start)
        folder = root / "labels" / name
        folder.mkdir(parents=True)
        raw = ["000000.jpg," + ",".join(state)]
        steps = []
        for frame, step in zip((6, 12), flip, strict=True):
            state[step // 3] = "0" if step % 3 else "1"
            raw.append(f"{frame:06d}.jpg," + ",".join(state))
            steps.append(f"{frame:06d}.jpg,{step},Step {step}")
        (folder / "PSR_labels_raw.csv").write_text("\r\n".join(raw) + "\r\n")
        (folder / "PSR_labels.csv").write_text("\r\n".join(steps) + "\r\n")
        asd = ["name,frame,class,conf,x,y,w,h"]
        asd += [f"{name},{frame},{1 + frame // 5},0.8125,.5,.5,.25,.25" for frame in range(20)]
        (root / "asd" / f"{name}_results_pred.csv").write_text("\n".join(asd) + "\n")
        zeros, conf = str([0] * 11), str([0.125] * 3 + [0.75] + [0.125] * 7)
        temporal = [",clip,framenr,GT,Pred,Conf"]
        temporal += [
            f'{i},{name},{frame},"{zeros}","{zeros}","{conf}"' for i, frame in enumerate(range(20))
        ]
        (root / "temporal" / f"{name}_results_pred.csv").write_text("\n".join(temporal) + "\n")
        visible = ["frame,visible", *(f"{frame},0.5" for frame in range(20))]
        (root / "visibility" / f"{name}.csv").write_text("\n".join(visible) + "\n")


def break_file(path: pathlib.Path, rng: random.Random) -> str:
    """Breaks a file in one way and returns its name."""
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    i = rng.randrange(len(lines))
    fields = lines[i].rstrip(b"\r\n").split(b",")
    j = rng.randrange(len(fields))
    nasty = rng.choice(NASTY).encode()

    def join() -> bytes:
        lines[i] = b",".join(fields) + b"\n"
        return b"".join(lines)

    def changed(action) -> bytes:
        action()
        return join()

    ways = {
        "truncated": lambda: data[: rng.randrange(len(data))],
        "field replaced": lambda: changed(lambda: fields.__setitem__(j, nasty)),
        "field inserted": lambda: changed(lambda: fields.insert(j, nasty)),
        "field removed": lambda: changed(lambda: fields.pop(j)),
        "text inserted": lambda: data[: (k := rng.randrange(len(data)))] + nasty + data[k:],
        "byte replaced": lambda: (
            data[: (k := rng.randrange(len(data)))] + bytes([rng.randrange(256)]) + data[k + 1 :]
        ),
        "line repeated": lambda: b"".join([*lines[:i], lines[i], *lines[i:]]),
        "line removed": lambda: b"".join(lines[:i] + lines[i + 1 :]),
        "lines shuffled": lambda: b"".join(rng.sample(lines, len(lines))),
        "header removed": lambda: b"".join(lines[1:]),
        "empty": lambda: b"",
        "blank lines": lambda: b"\n\n" + data.replace(b"\n", b"\n\n"),
        "CRLF": lambda: b"\r\n".join(data.splitlines()),
        "CR": lambda: b"\r".join(data.splitlines()),
        "BOM": lambda: b"\xef\xbb\xbf" + data,
        "UTF-16": lambda: data.decode().encode("utf-16"),
        "Latin-1": lambda: data.replace(b"0", "é".encode("latin-1"), 1),
        "random bytes": lambda: rng.randbytes(rng.randrange(200)),
        "digits made large": lambda: re.sub(rb"\d+", rb"\g<0>00000000000", data, count=i + 1),
        "minus signs": lambda: re.sub(rb"(\d+)", rb"-\1", data, count=1 + rng.randrange(9)),
        "semicolons": lambda: data.replace(b",", b";"),
        "directory": lambda: None,
        "removed": lambda: None,
    }
    way = rng.choice(list(ways))
    content = ways[way]()
    if content is not None:
        path.write_bytes(content)
    else:
        path.unlink()
        if way == "directory":
            path.mkdir()
    return way


def run_case(root: pathlib.Path, seed: int, report: bool = False) -> tuple[str, str]:
    """Breaks one file of an input, runs the command and mends the file.

    Returns:
        What was broken and how, and what came out: "result" or the lines of errors.

    Raises:
        AssertionError: neither a whole result nor a proper error.
    """
    rng = random.Random(seed)
    path = rng.choice(sorted(p for p in root.rglob("*") if p.is_file()))
    content = path.read_bytes()
    case = f"{path.relative_to(root)}: {break_file(path, rng)}"
    try:
        code, said, result = _evaluate(root, rng, report)
    finally:
        if path.is_dir():
            path.rmdir()
        path.write_bytes(content)
    if code == 0:
        for stream, s in result["streams"].items():
            assert sorted(s["recordings"]) == list(RECORDINGS), (seed, case, stream)
        return case, "result"
    assert code == 2, (seed, case, code)
    assert re.fullmatch(r"(error: [^\n]+\n)+", said), (seed, case, said)
    named = path.stem if "labels" not in case else path.parent.name
    assert named in said, (seed, case, said)
    return case, said.strip().replace(str(root), "")


def _evaluate(root: pathlib.Path, rng: random.Random, report: bool) -> tuple[int, str, dict | None]:
    """Runs the command: exit code, what it said on stderr, and its result."""
    target = root.parent / "out.json"
    arguments = [f"--{kind}={root / kind}" for kind in ("labels", "asd", "temporal", "visibility")]
    arguments += [
        f"--procedure={root / 'procedure.json'}",
        f"--protocol={rng.choice(PROTOCOLS)}",
        f"--decoder={rng.choice(['naive', 'confidence', 'expected'])}",
        "--threshold=1.5",
        f"--out={target}",
        *([f"--report={root.parent / 'report.html'}"] if report else []),
    ]
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            evaluate.main(arguments)
        except SystemExit as error:
            return error.code, said.getvalue(), None
    return 0, said.getvalue(), json.loads(target.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=10000, help="cases (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first case (%(default)s)")
    parser.add_argument("--report", action="store_true", help="draw reports too")
    parser.add_argument("--verbose", action="store_true", help="print every case")
    args = parser.parse_args()
    counts: collections.Counter = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        valid = pathlib.Path(folder) / "valid"
        make_input(valid)
        for seed in range(args.seed, args.seed + args.num):
            case, outcome = run_case(valid, seed, args.report)
            counts["result" if outcome == "result" else "error"] += 1
            if args.verbose:
                print(seed, case, outcome, sep=" | ")
    print(f"{args.num} cases: {counts['result']} results, {counts['error']} errors")


if __name__ == "__main__":
    main()
