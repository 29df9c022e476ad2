"""Compiled programs are found again, and only those that this user made on this processor."""

import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stormpsr_jax.training import compiled
from tests.support.processes import finish, start

MOST = 2**24


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Of a user without a key yet; and no store of the environment, as tests have."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(compiled, "MIN_SECONDS", 0.0)
    others = jax.config.values["jax_compilation_cache_dir"], compiled._jax_cache._cache
    jax.config.update("jax_compilation_cache_dir", None)
    yield tmp_path / "home"
    jax.config.update("jax_compilation_cache_dir", others[0])
    compiled._jax_cache._cache = others[1]
    compiled._jax_cache._cache_initialized = others[1] is not None


def compute(folder, most=MOST):
    """What a program computes, and how often it was found compiled."""
    hits = []

    def listen(event, **_):
        hits.extend([event] if event == "/jax/compilation_cache/cache_hits" else [])

    jax.clear_caches()
    jax.monitoring.register_event_listener(listen)
    try:
        with compiled.kept(folder, most):
            x = np.arange(12, dtype=np.float32).reshape(3, 4)
            return np.asarray(jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x.T))(x)), len(hits)
    finally:
        jax.monitoring.unregister_event_listener(listen)


def test_a_program_is_found_compiled_the_second_time_and_computes_the_same(home, tmp_path):
    folder = tmp_path / "run" / "compiled"
    (first, none), (second, one) = compute(folder), compute(folder)
    assert (none, one) == (0, 1)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, compute(tmp_path / "off", 0)[0])
    assert not (tmp_path / "off").exists()
    (key,) = home.rglob("*.key")
    assert key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-9] + b"x" + path.read_bytes()[-8:]),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: path.chmod(0),
    ],
    ids=["cut", "empty", "changed", "pipe", "forbidden"],
)
def test_a_damaged_program_is_compiled_again_and_then_sound(home, tmp_path, recwarn, damage):
    result, _ = compute(tmp_path)
    (path,) = tmp_path.glob("jit_*")
    damage(path)
    again, hits = compute(tmp_path)
    # To root, nothing is forbidden.
    assert hits == (os.getuid() == 0 and path.stat().st_mode & 0o777 == 0)
    np.testing.assert_array_equal(result, again)
    assert compute(tmp_path)[1] == 1
    assert [w for w in recwarn if "cache" in str(w.message)] == []


def test_a_program_of_another_user_or_processor_is_not_loaded(home, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    compute(folder)
    monkeypatch.setattr(compiled, "_processor", lambda: b"another one")
    assert compute(folder)[1] == 0
    assert compute(folder)[1] == 1
    next(home.rglob("*.key")).unlink()
    assert compute(folder)[1] == 0


def test_a_key_that_others_can_read_is_not_used(home, tmp_path, capsys):
    compute(tmp_path / "run")
    (key,) = home.rglob("*.key")
    key.chmod(0o644)
    assert compute(tmp_path / "run")[1] == 0
    assert "others can read it; remove it" in capsys.readouterr().err


def test_the_folder_stays_within_its_bound_and_loses_what_was_not_used_for_longest(tmp_path):
    a, b, c, d, large = (f"jit_f-{letter * 64}" for letter in "abcde")
    store = compiled.Store(tmp_path, 1000, b"key")
    for i, name in enumerate((a, b, c)):
        store.put(name, bytes(268))  # 300 with the seal
        os.utime(tmp_path / name, (i, i))
    assert store.get(a) == bytes(268)
    store.put(d, bytes(268))
    assert sorted(path.name for path in tmp_path.iterdir()) == [a, c, d]
    store.put(large, bytes(1000))
    assert store.get(large) is None
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1000


def test_files_of_others_in_the_folder_stay_and_do_not_count(home, tmp_path):
    """A folder that runs share may be one that is there for something else too."""
    (tmp_path / "thesis.tex").write_bytes(bytes(MOST))
    os.utime(tmp_path / "thesis.tex", (0, 0))
    compute(tmp_path)
    assert compute(tmp_path)[1] == 1
    (program,) = tmp_path.glob("jit_*")
    store = compiled.Store(tmp_path, program.stat().st_size + 100, b"key")
    left = tmp_path / f"{program.name}.77-01234567.part"  # by a process that was killed
    left.write_bytes(bytes(100))
    os.utime(left, (1, 1))
    store.put(f"jit_g-{'0' * 64}", bytes(60))
    assert sorted(p.name for p in tmp_path.glob("jit_*")) == sorted(
        [program.name, "jit_g-" + 64 * "0"]
    )
    assert (tmp_path / "thesis.tex").stat().st_size == MOST


def test_a_full_disk_only_means_that_nothing_is_kept(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    store = compiled.Store(tmp_path, 1000, b"key")
    monkeypatch.setattr(compiled.os, "replace", full)
    store.put("a", b"program")
    assert store.get("a") is None
    assert list(tmp_path.iterdir()) == []


PROCESS = """
import sys, pathlib
from stormpsr_jax.training.compiled import Store
store = Store(pathlib.Path(sys.argv[1]), 20_000, b"key")
for i in range(300):
    name = str(i % 7)
    store.put(name, name.encode() * 3_000)
    found = store.get(name)
    assert found in (None, name.encode() * 3_000), found[:20]
"""


def test_several_processes_write_read_and_remove_in_one_folder(tmp_path):
    words = [sys.executable, "-c", PROCESS, tmp_path]
    finish(*[start(words) for _ in range(3)])
    assert not list(tmp_path.glob("*.part"))
