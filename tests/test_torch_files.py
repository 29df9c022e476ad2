"""The reader of `.pth` files, on archives whose pickles are written here opcode by opcode."""

import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from stormpsr_jax import torch_files

# --- A small assembler for pickles, protocol 2 ----------------------------------------------------

MARK, TUPLE, EMPTY_TUPLE, REDUCE, PERSISTENT, BUILD, STOP = b"(", b"t", b")", b"R", b"Q", b"b", b"."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    raw = value.to_bytes(16, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def tuple_of(*items: bytes) -> bytes:
    return MARK + b"".join(items) + TUPLE


def call(module: str, name: str, *arguments: bytes) -> bytes:
    return f"c{module}\n{name}\n".encode() + tuple_of(*arguments) + REDUCE


def dict_of(**items: bytes) -> bytes:
    return b"}" + MARK + b"".join(text(k) + v for k, v in items.items()) + b"u"


def storage(key="0", kind="FloatStorage", numel=12) -> bytes:
    reference = (text("storage"), f"ctorch\n{kind}\n".encode(), text(key), text("cpu"))
    return tuple_of(*reference, integer(numel)) + PERSISTENT


def tensor(size, stride, offset=0, of=None) -> bytes:
    return call(
        "torch._utils",
        "_rebuild_tensor_v2",
        of or storage(),
        integer(offset),
        tuple_of(*map(integer, size)),
        tuple_of(*map(integer, stride)),
        b"\x89",
        call("collections", "OrderedDict"),
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


# --- Tensors --------------------------------------------------------------------------------------


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
def test_read_pth_property_views_have_their_strides_and_offset(
    write, size, stride, offset, expected
):
    array = torch_files.read_pth(write(dict_of(w=tensor(size, stride, offset))))["w"]
    assert array.shape == np.shape(expected)
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("DoubleStorage", np.float64),
        ("HalfStorage", np.float16),
        ("BFloat16Storage", ml_dtypes.bfloat16),
        ("LongStorage", np.int64),
        ("ByteStorage", np.uint8),
        ("BoolStorage", np.bool_),
    ],
)
def test_read_pth_property_every_storage_type(write, kind, dtype):
    values = np.array([1, 0, 1]).astype(dtype)
    content = dict_of(w=tensor((3,), (1,), of=storage(kind=kind, numel=3)))
    array = torch_files.read_pth(write(content, {"0": values.tobytes()}))["w"]
    assert array.dtype == dtype
    np.testing.assert_array_equal(array, values)


def test_read_pth_property_big_endian_files_and_parameters(write):
    parameter = call("torch._utils", "_rebuild_parameter", tensor((12,), (1,)), b"\x88", b"}")
    path = write(dict_of(w=parameter), {"0": TWELVE.astype(">f4").tobytes()}, byteorder=b"big")
    np.testing.assert_array_equal(torch_files.read_pth(path)["w"], TWELVE)


def test_read_pth_property_ordered_dict_with_attributes(write):
    # state_dict() is an OrderedDict with an attribute _metadata.
    pairs = call("collections", "OrderedDict") + MARK + text("w") + tensor((12,), (1,)) + b"u"
    path = write(pairs + dict_of(_metadata=dict_of(version=integer(1))) + BUILD)
    assert list(torch_files.read_pth(path)) == ["w"]


# --- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "name", "arguments"),
    [
        ("os", "system", ["touch {}"]),
        ("posix", "system", ["touch {}"]),
        ("builtins", "eval", ["open('{}', 'w')"]),
        ("builtins", "exec", ["open('{}', 'w')"]),
        ("__builtin__", "open", ["{}", "w"]),
        ("builtins", "getattr", ["", "__class__"]),
        ("subprocess", "Popen", ["touch {}"]),
        ("importlib", "import_module", ["antigravity"]),
        ("torch", "load", ["{}"]),
        ("torch._utils", "_rebuild_tensor_v2.__globals__", []),
        ("collections", "OrderedDict.fromkeys", []),
        ("numpy.core.multiarray", "scalar", []),
        ("argparse", "Namespace", []),
    ],
)
def test_read_pth_property_any_other_name_is_refused_by_name(
    write, tmp_path, module, name, arguments
):
    trace = tmp_path / "trace"
    attack = call(module, name, *(text(a.format(trace)) for a in arguments))
    path = write(dict_of(w=tensor((12,), (1,)), x=attack))
    with pytest.raises(ValueError, match=rf"refused to load {module}\.{name}"):
        torch_files.read_pth(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "opcodes",
    [
        b"(ios\nsystem\n" + b".",  # INST
        b"(cos\nsystem\n" + text("true") + b"o",  # OBJ
        b"cos\nsystem\n)\x81",  # NEWOBJ
        text("os") + text("system") + b"\x93" + tuple_of(text("true")) + REDUCE,  # STACK_GLOBAL
    ],
    ids=["inst", "obj", "newobj", "stack_global"],
)
def test_read_pth_property_every_way_to_name_a_callable_is_refused(write, opcodes):
    with pytest.raises(ValueError, match=r"refused to load os\.system"):
        torch_files.read_pth(write(opcodes))


def test_read_pth_property_a_real_exploit_made_by_pickle_is_refused(tmp_path):
    class Exploit:
        def __reduce__(self):
            return (eval, (f"open({str(tmp_path / 'trace')!r}, 'w')",))

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path = tmp_path / "exploit.pth"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({"w": Exploit()}, protocol))
        with pytest.raises(ValueError, match="eval"):
            torch_files.read_pth(path)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tensor((13,), (1,)), r"\(13,\) does not fit its storage of 12"),
        (tensor((2,), (12,)), "does not fit"),
        (tensor((1,), (1,), 12), "does not fit"),
        (tensor((10**9, 12), (0, 1)), "does not fit"),
        (tensor((2,), (-1,), 5), "malformed"),
        (tensor((2,), (1,), -1), "malformed"),
        (tensor((2, 2), (1,)), "malformed"),
        (tensor((2**100,), (0,)), "malformed"),
        (tensor((1,) * 9, (1,) * 9), "malformed"),
        (tensor((1,), (1,), of=text("no storage")), "malformed"),
        (storage(key="7"), "'data/7' is missing"),
        (storage(key="../data.pkl"), "is missing"),
        (text("storage") + PERSISTENT, "no storage"),
        (integer(1) + BUILD, "damaged"),
        (b"h\x05", "damaged"),  # a memo entry that was never written
        (b"]r\xff\xff\xff\x7f", "memo is larger"),  # one that asks for 16 GB
        (b"\x96" + struct.pack("<Q", 2**40), "damaged"),  # a bytearray of 1 TB
        (b"\x82\x01", "damaged"),  # the extension registry
    ],
)
def test_read_pth_property_damaged_or_hostile_pickles_are_errors(write, content, message):
    with pytest.raises(ValueError, match=message):
        torch_files.read_pth(write(content))


def test_read_pth_property_attributes_set_by_one_file_do_not_reach_the_next(write):
    poison = b"ctorch._utils\n_rebuild_tensor_v2\n" + dict_of(poison=integer(1)) + BUILD
    assert torch_files.read_pth(write(poison)).poison == 1
    clean = torch_files.read_pth(write(b"ctorch._utils\n_rebuild_tensor_v2\n"))
    assert not hasattr(clean, "poison")


def test_read_pth_property_archives_that_are_not_pytorchs_are_errors(write, tmp_path):
    with pytest.raises(ValueError, match="compressed"):
        torch_files.read_pth(write(dict_of(), compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match="whole number of float32"):
        torch_files.read_pth(write(tensor((1,), (1,)), {"0": b"abcde"}))
    with pytest.raises(ValueError, match="byte order 'middle'"):
        torch_files.read_pth(write(dict_of(), byteorder=b"middle"))
    path = write(dict_of(w=tensor((12,), (1,))))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="not a zip-based PyTorch file, or damaged"):
        torch_files.read_pth(path)
    legacy = tmp_path / "legacy.pth"
    legacy.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2))
    with pytest.raises(ValueError, match=r"not a zip-based PyTorch file.*torch\.save"):
        torch_files.read_pth(legacy)
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match=r"one \*/data.pkl, this has 0"):
        torch_files.read_pth(tmp_path / "other.pth")


# --- State dicts ----------------------------------------------------------------------------------


def test_read_state_dict_property_wrappers_and_nesting_are_taken_off(write):
    w = tensor((12,), (1,))
    inner = b"}" + MARK + text("module.a.w") + w + text("module.b.w") + w + b"u"
    for key in ("state_dict", "model", "model_state_dict"):
        path = write(dict_of(epoch=integer(3), **{key: inner}, note=text("x")))
        state = torch_files.read_state_dict(path)
        assert list(state) == ["a.w", "b.w"]
        np.testing.assert_array_equal(state["b.w"], TWELVE)


def test_read_state_dict_property_formats_agree(write, tmp_path):
    safetensors.numpy.save_file({"w": TWELVE}, tmp_path / "a.safetensors")
    np.savez(tmp_path / "a.npz", w=TWELVE)
    for path in (
        tmp_path / "a.safetensors",
        tmp_path / "a.npz",
        write(dict_of(w=tensor((12,), (1,)))),
    ):
        state = torch_files.read_state_dict(path)
        assert list(state) == ["w"]
        np.testing.assert_array_equal(state["w"], TWELVE)


def test_read_state_dict_property_what_is_none_is_an_error(write, tmp_path):
    with pytest.raises(ValueError, match=r"no state dict.*its keys: epoch, best"):
        torch_files.read_state_dict(write(dict_of(epoch=integer(1), best=integer(2))))
    with pytest.raises(ValueError, match="no state dict"):
        torch_files.read_state_dict(write(tensor((12,), (1,))))
    with pytest.raises(ValueError, match="there is no file"):
        torch_files.read_state_dict(tmp_path / "absent.pth")
    for name in ("a.safetensors", "a.npz", "a.h5"):
        (tmp_path / name).write_bytes(b"no such thing")
        with pytest.raises(ValueError, match=name):
            torch_files.read_state_dict(tmp_path / name)
    np.savez(tmp_path / "b.npz", w=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"b\.npz.*allow_pickle"):
        torch_files.read_state_dict(tmp_path / "b.npz")
