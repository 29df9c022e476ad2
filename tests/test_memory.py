import pytest

from stormpsr_jax import memory


def test_available_property_is_what_the_system_says(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    assert memory.available_bytes() > 2**28, "all there is, where no file says what is left"
    (tmp_path / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:    3072 kB\n")
    assert memory.available_bytes() == 3 * 2**20
    memory.check_fits(3 * 2**20, "it")
    with pytest.raises(MemoryError, match=r"a step needs 4\.0 GiB, 0\.0 GiB are free"):
        memory.check_fits(2**32, "a step")
