"""Changed model folders, checkpoints and states are an error of a line, or read right.

Each attempt changes a good file by a seed. `pytest -m slow tests/test_hostile.py` makes thousands.
"""

import json
import os
import pickle
import random
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest

from stormpsr_jax import load_model
from stormpsr_jax.live import station
from stormpsr_jax.live.capture import Clock
from stormpsr_jax.serving.files.unit import Reset
from stormpsr_jax.weights import parameters, torch_files
from tests.support import live_data, model_data, pickles

# What may stand where a name, a number or a list is expected.
VALUES = (
    *("../../outside", "/tmp/outside", "", "x" * 300, "a\nb", "nul\0", "<script>", "nan"),
    *(
        2**63 - 1,
        -1,
        0,
        10**30,
        0.5,
        1e308,
        None,
        True,
        [],
        {},
        ["a"] * 1000,
        [2**62, 4],
        [0, 2**63],
    ),
)


def digest(values):
    """A checksum of arrays in dictionaries and lists."""
    leaves = jax.tree_util.tree_leaves_with_path(values)
    return zlib.crc32(pickle.dumps([(str(p), np.asarray(v).tobytes()) for p, v in leaves]))


def make_weights(folder):
    folder.mkdir()
    state = {f"block.{i}.weight": np.arange(12, dtype=np.float32) + i for i in range(3)}
    tensors = {
        name: pickles.tensor((3, 4), (4, 1), of=pickles.storage(str(i)))
        for i, name in enumerate(state)
    }
    with zipfile.ZipFile(folder / "theirs.pth", "w") as archive:
        content = b"\x80\x02" + pickles.dict_of(**tensors) + pickles.STOP
        archive.writestr("archive/data.pkl", content)
        for i, array in enumerate(state.values()):
            archive.writestr(f"archive/data/{i}", array.tobytes())
    parameters.save_params(folder / "ours.safetensors", {"dense": state})


def read_weights(path):
    safe = path.suffix == ".safetensors"
    return digest(parameters.load_params(path) if safe else torch_files.read_state_dict(path))


def read_model(path):
    model = load_model(path.parent)
    return digest({role: n.variables for role, n in model._content.networks.of.items()})


def station_of(path):
    options = {"clock": Clock(live_data.FPS, 0.0), "reset": Reset("complete"), "state": path}
    return station.Station(live_data.scripted(), "x", tell=json.loads, **options)


def make_state(folder):
    """One in the middle of a unit."""
    folder.mkdir()
    script = live_data.Script(live_data.frames((live_data.SEAL, 4), (live_data.COVER, 12)))
    stop = []
    script.before = lambda script: stop.append(1) if len(script.shown) == 1 else None
    station_of(folder / "state.json").run(script, stop)


def read_state(path):
    restored = station_of(path)
    restored.restore()
    return json.dumps(restored._live.state(), default=str)


READERS = {
    "model folder": (model_data.write, read_model),
    "weights": (make_weights, read_weights),
    "state": (make_state, read_state),
}


def change_values(rng, content):
    """Changes, removes or renames a value somewhere in what a JSON file holds."""
    place, key = content, rng.choice(list(content))
    while rng.random() < 0.6 and isinstance(place[key], dict | list) and place[key]:
        place = place[key]
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
    value = place.pop(key)
    if isinstance(place, dict) and rng.random() < 0.8:
        renamed = rng.random() < 0.2
        place["/tmp/outside" if renamed else key] = value if renamed else rng.choice(VALUES)


def change_bytes(rng, content):
    """Cuts a file, flips bits, overwrites numbers, or puts something else in its place."""
    new, way = bytearray(content), rng.randrange(6)
    if way == 0:
        return content[: rng.randrange(len(content))]
    if way == 1:
        return rng.choice((b"", b"[]", b"null", b"[" * 100_000, rng.randbytes(2000)))
    if way == 2:
        start = rng.randrange(len(new))
        new[start : start + 512] = bytes(len(new[start : start + 512]))
    for _ in range(rng.randrange(1, 4) if way > 2 else 0):
        at = rng.randrange(min(len(new) - 4, rng.choice((400, 4000, 10**9))))
        number = rng.choice(
            (0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, new[at] ^ 1 << rng.randrange(8))
        )
        struct.pack_into("<I", new, at, number)
    return bytes(new)


def damage(rng, path):
    """Changes a file; returns whether what is read may then differ without an error."""
    data, kind = path.read_bytes(), path.suffix if rng.random() < 0.6 else ""
    if kind == ".json":
        content = json.loads(data)
        change_values(rng, content)
        path.write_text(json.dumps(content))
    elif kind == ".safetensors":
        (size,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + size])
        change_values(rng, header)
        text = json.dumps(header).encode()
        length = rng.choice((len(text), len(text), 2**63, 2**40, 0, 7))
        path.write_bytes(struct.pack("<Q", length) + text + data[8 + size :])
    elif kind == ".pth":
        with zipfile.ZipFile(path) as file:
            members = {name: file.read(name) for name in file.namelist()}
        name = rng.choice(list(members))
        bomb = rng.random() < 0.01  # as making one takes a second
        members[name] = bytes(2**27 + 1) if bomb else change_bytes(rng, members[name])
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for member, content in members.items():
                file.writestr(member, content)
    else:
        path.write_bytes(change_bytes(rng, data))
        return False
    return True


@pytest.mark.parametrize(
    "seeds", [range(40), pytest.param(range(40, 1000), marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", READERS)
def test_changed_files_are_an_error_of_a_line_or_read_right(name, seeds, tmp_path, monkeypatch):
    make, read = READERS[name]
    good, here = tmp_path / "good", tmp_path / "here"
    make(good)
    here.mkdir()
    monkeypatch.chdir(here)
    paths = sorted(
        path for path in good.iterdir() if path.suffix in (".json", ".safetensors", ".pth")
    )
    results, errors = {path.name: read(path) for path in paths}, []
    for seed in seeds:
        rng = random.Random(seed)
        shutil.rmtree(tmp_path / "attempt", ignore_errors=True)
        path = Path(shutil.copytree(good, tmp_path / "attempt")) / rng.choice(paths).name
        crafted = damage(rng, path)
        try:
            result = read(path)
        except ValueError as error:
            errors.append(str(error))
        else:
            assert crafted or result == results[path.name], seed
        assert not os.listdir(here), seed
    assert errors
    for error in errors:
        assert all(line.isprintable() and len(line) < 2500 for line in error.split("\n")), error
        assert "attempt" in error, error
