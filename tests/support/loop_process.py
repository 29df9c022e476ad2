"""Trains the toy stage in a process of its own, which tests kill, signal and starve."""

import sys
import threading
from pathlib import Path

import jax

from stormpsr_jax.base import interruption
from stormpsr_jax.training import loop
from tests.support.loop_toy import make_data, run
from tests.support.processes import environment, start


def start_script(workdir, *arguments, devices=1, **options):
    words = [sys.executable, __file__, workdir, *arguments]
    return start(words, env=environment(devices), **options)


def _stuck(workdir, where, there):
    """Never comes back from where the main thread is after a few steps."""

    def compute_for_ever(params, batch_stats):
        Path(there).touch()
        endless = jax.jit(lambda x: jax.lax.while_loop(lambda x: x > 0, lambda x: x + 1e-9, x))
        return {"score": float(endless(1.0))}

    def save_for_ever(*_):
        Path(there).touch()
        threading.Event().wait()

    if where == "saving":
        loop.Checkpoints.save = save_for_ever
    run(workdir, evaluate=compute_for_ever)


def _main(workdir, action, there=None):
    if action in ("saving", "computing"):
        with interruption.handled():
            _stuck(workdir, action, there)

    def said(step):
        print(f"begun after {step}", flush=True)
        return make_data(step)

    try:
        run(workdir, data=said)
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), *sys.argv[2:])
