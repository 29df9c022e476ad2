import ctypes
import subprocess
import sys

import pytest

from stormpsr_jax.base import memory


def test_check_start_errors_a_limit_that_jax_does_not_fit_in(monkeypatch):
    limits = (2**31, memory.resource.RLIM_INFINITY)
    monkeypatch.setattr(memory.resource, "getrlimit", lambda _: limits)
    with pytest.raises(MemoryError, match=r"ulimit -v\) is 2.0 GiB; .* need at least 4 GiB"):
        memory.check_start()


def test_freed_memory_is_kept_for_what_is_taken_next():
    code = """
import resource, sys
import numpy as np
from stormpsr_jax.base import memory
if sys.argv[1] == "keep":
    memory.keep_freed()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(2**26, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("the C library is not glibc")

    def count(argument):
        command = [sys.executable, "-c", code, argument]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert count("keep") < 100 < count("default")
