import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def free_address() -> str:
    return f"localhost:{free_port()}"


def environment(devices: int = 1, **variables: str) -> dict[str, str]:
    """This process's environment, so many virtual devices, and this checkout to import."""
    count = f"--xla_force_host_platform_device_count={devices}"
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {count}".strip(),
        **variables,
    }


def start(words: Sequence, *, env: dict[str, str] | None = None, **options) -> subprocess.Popen:
    """Starts a command; what it writes to either output is its `stdout`, unless options differ."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    words = [str(word) for word in words]
    return subprocess.Popen(words, env=env or environment(), **{"cwd": ROOT, **pipes, **options})


def finish(*processes: subprocess.Popen, code: int = 0, timeout: float = 300) -> list[str]:
    """Waits for processes, whose exit status has to be `code`; returns what they wrote."""
    outputs = []
    for process in processes:
        output, errors = process.communicate(timeout=timeout)
        assert process.returncode == code, f"{output or ''}\n{errors or ''}"[-5000:]
        outputs.append(output)
    return outputs


def is_gone(process: int) -> bool:
    """A zombie is."""
    try:
        return not Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return True


def wait_until(
    condition: Callable[[], object], process: subprocess.Popen | None = None, seconds=120
) -> None:
    """Returns once the condition holds; a process has to go on until then."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def refused(capsys, command: Callable, *arguments, lines: int | None = 1, **options) -> str:
    """What a command that ends with status 2 says on stderr, in so many lines (None for any)."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        command(*arguments, **options)
    said = capsys.readouterr().err.rstrip("\n")
    assert ended.value.code == 2, said
    assert said.rpartition("\n")[2].startswith("error: "), said
    assert lines in (None, said.count("\n") + 1), said
    return said
