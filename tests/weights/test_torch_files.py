"""The reader of `.pth` files, on archives whose pickles are written here opcode by opcode."""

import collections
import json
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from stormpsr_jax.base import memory
from stormpsr_jax.weights import torch_files
from tests.support.pickles import (
    BROKEN,
    CALLS,
    MARK,
    STOP,
    call,
    dict_of,
    integer,
    old_file,
    storage,
    tensor,
    text,
    tuple_of,
    ways_to_call,
)

TWELVE = np.arange(12, dtype=np.float32)


@pytest.fixture
def write(tmp_path):
    def write(content: bytes, data=None, compression=zipfile.ZIP_STORED, **members: bytes):
        path = tmp_path / "checkpoint.pth"
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02" + content + STOP)
            for key, value in {"0": TWELVE.tobytes()}.items() if data is None else data.items():
                archive.writestr(f"archive/data/{key}", value)
            for name, value in members.items():
                archive.writestr(f"archive/{name}", value)
        return path

    return write


@pytest.mark.parametrize(
    ("size", "stride", "offset", "expected"),
    [
        ((3, 4), (4, 1), 0, TWELVE.reshape(3, 4)),
        ((4, 3), (1, 4), 0, TWELVE.reshape(3, 4).T),
        ((2, 2), (8, 2), 1, TWELVE.reshape(3, 4)[::2, 1::2]),
        ((), (), 5, np.float32(5)),
        ((0, 3), (3, 1), 0, np.zeros((0, 3))),
    ],
    ids=["plain", "transposed", "strided", "scalar", "empty"],
)
def test_read_pth_views_have_their_strides_and_offset(write, size, stride, offset, expected):
    array = torch_files.read_pth(write(dict_of(w=tensor(size, stride, offset))))["w"]
    assert array.shape == np.shape(expected)
    np.testing.assert_array_equal(array, expected)


def test_read_pth_every_storage_type(write):
    for kind, dtype in torch_files.STORAGE_DTYPES.items():
        values = np.array([1, 0, 1]).astype(dtype)
        content = tensor((3,), (1,), of=storage(kind=kind.removeprefix("torch."), numel=3))
        array = torch_files.read_pth(write(content, {"0": values.tobytes()}))
        assert array.dtype == dtype
        np.testing.assert_array_equal(array, values)


def test_read_pth_parameters_and_no_big_endian_files(write):
    parameter = call("torch._utils", "_rebuild_parameter", tensor((12,), (1,)), b"\x88", b"}")
    path = write(dict_of(w=parameter), byteorder=b"little")
    np.testing.assert_array_equal(torch_files.read_pth(path)["w"], TWELVE)
    with pytest.raises(ValueError, match="byte order 'big', not 'little'"):
        torch_files.read_pth(write(dict_of(w=parameter), byteorder=b"big"))


def test_read_pth_any_other_name_is_refused_by_name_whatever_way_it_is_called(write, tmp_path):
    trace = tmp_path / "trace"
    for module, name, arguments in CALLS:
        given = [text(argument.format(trace)) for argument in arguments]
        for way, attack in ways_to_call(module, name, *given).items():
            with pytest.raises(ValueError, match=rf"refused to load {module}\.{name}|opcode"):
                torch_files.read_pth(write(dict_of(w=tensor((12,), (1,)), x=attack)))
            assert not trace.exists(), way


def test_read_pth_damaged_or_hostile_pickles_are_one_line(write):
    for content in BROKEN:
        with pytest.raises(ValueError, match=r"checkpoint\.pth: ") as error:
            torch_files.read_pth(write(b"0".join([content, dict_of()])))
        assert str(error.value).isprintable(), content
    assert np.dtype(ml_dtypes.bfloat16).itemsize == 2


def test_read_pth_bombs_stay_small(write, monkeypatch):
    # A tuple of itself twice, forty times over: 2⁴⁰ leaves, but forty tuples.
    doubled = b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(40))
    assert len(torch_files.read_pth(write(doubled))) == 2
    # Deep nesting is taken down without recursion, and never hashed, which would recurse.
    torch_files.read_pth(write(b")" + b"\x85" * 200_000))
    # Each tensor fits its storage, but it is a hundred times the same one.
    many = [tensor((250_000,), (1,)) for _ in range(100)]
    path = write(tuple_of(*many), {"0": bytes(1_000_000)})
    with pytest.raises(ValueError, match="over 8 times as large as the file"):
        torch_files.read_pth(path)
    monkeypatch.setattr(torch_files, "MAX_PICKLE", 100)
    with pytest.raises(ValueError, match=r"'data\.pkl' has over 100 bytes"):
        torch_files.read_pth(write(b"}" * 100))


@pytest.mark.parametrize("protocol", [2, 4])
def test_read_pth_what_pythons_pickle_writes_is_read(tmp_path, protocol):
    """A checkpoint with everything around the state dict, in the opcodes of the real pickler."""
    checkpoint = {
        "epoch": 300,
        "state_dict": collections.OrderedDict(),
        "optimizer": {
            "state": {0: {"step": 7.0}, 300: {}},
            "groups": [{"lr": 1e-3, "amsgrad": False}],
        },
        "history": [*range(1000), 2**40, -5, 70_000, None, True],
        "shape": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "note é": "é" * 300,
    }
    checkpoint["state_dict"]._metadata = collections.OrderedDict({"": {"version": 1}})
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(checkpoint, protocol))
    read = torch_files.read_pth(path)
    assert read == checkpoint


def old_tensor(size=(3, 4), stride=(4, 1), offset=0, **of):
    return tensor(size, stride, offset, storage(**{"further": b"N", **of}))


def test_read_pth_before_pytorch_1_6(tmp_path):
    count = old_tensor((), (), key="9", kind="LongStorage", numel=1)
    content = dict_of(w=old_tensor(), half=old_tensor((2, 4), (4, 1), 4), count=count)
    data = {"9": (1, np.int64(7).tobytes()), "0": (12, TWELVE.tobytes())}
    (tmp_path / "a.pth").write_bytes(old_file(content, data))
    state = torch_files.read_state_dict(tmp_path / "a.pth")
    np.testing.assert_array_equal(state["w"], TWELVE.reshape(3, 4))
    np.testing.assert_array_equal(state["half"], TWELVE.reshape(3, 4)[1:])
    assert state["count"].dtype == np.int64
    assert state["count"] == 7


GOOD, DATA = dict_of(w=old_tensor()), {"0": (12, TWELVE.tobytes())}
OLD = {
    "cut": (old_file(GOOD, DATA)[:-1], "ends within storage '0'"),
    "cut in a pickle": (old_file(GOOD, DATA)[:90], "damaged"),
    "another name": (
        old_file(dict_of(w=old_tensor(), x=call("os", "system", text("true"))), DATA),
        r"refused to load os\.system",
    ),
    "a call in the keys": (old_file(GOOD, DATA, keys=call), "refused to load"),
    "another size": (old_file(GOOD, {"0": (11, TWELVE.tobytes())}), "'0' has 11 elements, not 12"),
    "a size below 0": (old_file(GOOD, {"0": (-1, TWELVE.tobytes())}), "has -1 elements"),
    "beyond the file": (
        old_file(dict_of(w=old_tensor(numel=2**45)), {"0": (2**45, b"")}),
        "larger than the file",
    ),
    "beyond its storage": (old_file(dict_of(w=old_tensor((4, 4))), DATA), "does not fit its stor"),
    "two types": (
        old_file(dict_of(w=old_tensor(), x=old_tensor(kind="IntStorage")), DATA),
        "two sizes or types",
    ),
    "other keys": (old_file(GOOD, DATA, keys=["1"]), "list of storages"),
    "a part of a storage": (old_file(dict_of(w=old_tensor(further=b")")), DATA), "no storage"),
    "big-endian": (old_file(GOOD, DATA, little=False), "little-endian"),
}


@pytest.mark.parametrize("how", OLD)
def test_read_pth_before_pytorch_1_6_damaged_or_hostile_is_a_line(how, tmp_path):
    content, message = OLD[how]
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.pth: .*{message}") as error:
        torch_files.read_pth(tmp_path / "a.pth")
    assert str(error.value).isprintable()


def test_read_state_dict_wrappers_and_nesting_are_taken_off(write):
    w = tensor((12,), (1,))
    inner = b"}" + MARK + text("module.a.w") + w + text("module.b.w") + w + b"u"
    for key in ("state_dict", "model", "model_state_dict"):
        path = write(dict_of(epoch=integer(3), **{key: inner}, note=text("x")))
        state = torch_files.read_state_dict(path)
        assert list(state) == ["a.w", "b.w"]
        np.testing.assert_array_equal(state["b.w"], TWELVE)


def test_read_state_dict_what_is_none_is_an_error(write, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"no state dict.*its keys: epoch, best"):
        torch_files.read_state_dict(write(dict_of(epoch=integer(1), best=integer(2))))
    with pytest.raises(ValueError, match="no state dict"):
        torch_files.read_state_dict(write(tensor((12,), (1,))))
    with pytest.raises(ValueError, match=r"cannot be read \(No such file"):
        torch_files.read_state_dict(tmp_path / "absent.pth")
    for name in ("a.safetensors", "a.npz", "a.h5"):
        (tmp_path / name).write_bytes(b"no such thing")
        with pytest.raises(ValueError, match=name):
            torch_files.read_state_dict(tmp_path / name)
    np.savez_compressed(tmp_path / "bomb.npz", w=np.zeros(2**20))
    monkeypatch.setattr(memory, "available_bytes", lambda: 2**20)
    with pytest.raises(ValueError, match=r"bomb.npz needs 0.0 GiB"):
        torch_files.read_state_dict(tmp_path / "bomb.npz")
    monkeypatch.undo()
    monkeypatch.setattr(torch_files, "FREE_BYTES", 2**20)
    with pytest.raises(ValueError, match=r"bomb.npz .*: what is in it has 8,388,736 bytes, more"):
        torch_files.read_state_dict(tmp_path / "bomb.npz")
    np.savez(tmp_path / "b.npz", w=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"b\.npz.*allow_pickle"):
        torch_files.read_state_dict(tmp_path / "b.npz")


def write_safetensors(path, dtype: str, shape: list[int], num_bytes: int):
    header = {"some/w": {"dtype": dtype, "shape": shape, "data_offsets": [0, num_bytes]}}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(num_bytes))
    return path


@pytest.mark.parametrize(
    ("dtype", "shape", "num_bytes", "message"),
    [
        ("F8_E4M3", [4], 4, r"array 'some/w' is of type F8_E4M3,"),
        ("C64", [4], 32, r"array 'some/w' is of type C64,"),
        ("F32", [2**40], 4, ""),
        ("F32", [2**63, 0], 0, ""),
        ("F32", [2**18], 2**20, r"needs 0\.0 GiB"),
    ],
)
def test_read_safetensors_errors(tmp_path, monkeypatch, dtype, shape, num_bytes, message):
    monkeypatch.setattr(memory, "available_bytes", lambda: 2**20)
    path = write_safetensors(tmp_path / "a.safetensors", dtype, shape, num_bytes)
    with pytest.raises(ValueError, match=rf"a\.safetensors is not a readable.*{message}"):
        torch_files.read_safetensors(path)
