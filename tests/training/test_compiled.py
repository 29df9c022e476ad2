import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stormpsr_jax.training import compiled


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Of a user without programs yet; and no folder of the environment, as tests have."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiled, "MIN_SECONDS", 0.0)
    other = jax.config.values["jax_compilation_cache_dir"]
    compiled._configure({"jax_compilation_cache_dir": None})
    yield tmp_path / "stormpsr_jax" / "compiled" / compiled._machine()
    compiled._configure({"jax_compilation_cache_dir": other})


def compute():
    hits = []

    def listen(event, **_):
        hits.extend([event] if event == "/jax/compilation_cache/cache_hits" else [])

    jax.clear_caches()
    jax.monitoring.register_event_listener(listen)
    try:
        with compiled.kept():
            x = np.arange(12, dtype=np.float32).reshape(3, 4)
            return np.asarray(jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x.T))(x)), len(hits)
    finally:
        jax.monitoring.unregister_event_listener(listen)


@pytest.mark.parametrize("size", [-1, 0, 40])
def test_a_program_is_found_compiled_and_an_unreadable_one_compiled_again(folder, recwarn, size):
    (first, none), (second, one) = compute(), compute()
    assert (none, one) == (0, 1)
    np.testing.assert_array_equal(first, second)
    (path,) = folder.glob("*-cache")
    path.write_bytes(path.read_bytes()[:size])
    again, hits = compute()
    assert hits == 0
    np.testing.assert_array_equal(first, again)
    assert compute()[1] == 1
    assert [w for w in recwarn if "cache" in str(w.message)] == []


def test_old_programs_are_removed_and_others_left_alone(folder):
    compute()
    (path,) = folder.glob("*-cache")
    (other := folder / "notes.txt").write_text("mine")
    for name in (path, other):
        os.utime(name, (time.time() - 40 * 86_400,) * 2)
    assert compute()[1] == 0
    assert other.exists()
