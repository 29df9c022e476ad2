"""Recognises one source after the other: run_sources.py MODEL OUT, a JSON line in, one out each."""

import contextlib
import io
import json
import resource
import sys
import time

from stormpsr_jax import recognise

MODEL, OUT = sys.argv[1:]
for line in sys.stdin:
    name, word = json.loads(line)
    said, start = io.StringIO(), time.monotonic()
    words = [f"--model={MODEL}", word, f"--out={OUT}/{name}", "--variant=assembly", "--stream=asd"]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            status = recognise.main(words)
        except SystemExit as error:
            status = error.code
        except BaseException as error:
            status = f"{type(error).__name__}: {error}"
    print(
        json.dumps(
            {
                "status": status,
                "said": said.getvalue(),
                "seconds": time.monotonic() - start,
                "mebibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
            }
        ),
        flush=True,
    )
