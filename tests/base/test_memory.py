import pytest

from stormpsr_jax.base import memory


def test_check_start_errors_a_limit_that_jax_does_not_fit_in(monkeypatch):
    limits = (2**31, memory.resource.RLIM_INFINITY)
    monkeypatch.setattr(memory.resource, "getrlimit", lambda _: limits)
    with pytest.raises(MemoryError, match=r"ulimit -v\) is 2.0 GiB; .* need at least 4 GiB"):
        memory.check_start()
