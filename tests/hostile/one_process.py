"""A process that recognises one source after the other, as one command would."""

import contextlib
import io
import multiprocessing

from stormpsr_jax import recognise
from tests.support.peak_memory import forget_peak, peak_mebibytes

LIMIT = 20  # seconds of a source, before it counts as a hang


def recognise_all(connection, model, out):
    """The process: recognises one source after the other."""
    while True:
        name, word = connection.recv()
        said = io.StringIO()
        words = [f"--model={model}", word, f"--out={out}/{name}"]
        forget_peak()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                status = recognise.main([*words, "--variant=assembly", "--stream=asd"])
            except SystemExit as error:
                status = error.code
            except BaseException as error:
                status = f"{type(error).__name__}: {error}"
        told = {"status": status, "said": said.getvalue(), "mebibytes": peak_mebibytes()}
        connection.send(told)


class Runner:
    """That process, and another one where it hangs or crashes."""

    def __init__(self, *arguments):
        self._arguments, self._process = arguments, None

    def run(self, name, word, limit=LIMIT):
        if not self._process:
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            self._process = context.Process(target=recognise_all, args=(theirs, *self._arguments))
            self._process.start()
            theirs.close()
            self.run("warm", str(self._arguments[0].parent / "media" / "one.mp4"), 120)
        self._connection.send((name, word))
        try:
            if self._connection.poll(limit):
                return self._connection.recv()
            status = "hung"
        except EOFError:
            status = "crashed"
        self.close()
        return {"status": status, "said": "", "mebibytes": 0}

    def close(self):
        self._process.kill()
        self._process.join()
        self._process = None
