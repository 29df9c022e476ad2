"""Live recognition as a command: the source, the model, the keys, the state file."""

import argparse
import contextlib
import functools
import math
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stormpsr_jax.base import files, installed, interruption
from stormpsr_jax.base.errors import gathering, lines_of, message_of, raise_all, tell
from stormpsr_jax.live import receivers, serve
from stormpsr_jax.live.capture import Capture, Clock, live_source
from stormpsr_jax.live.receivers import Outbox
from stormpsr_jax.live.station import Station
from stormpsr_jax.pages import access
from stormpsr_jax.report import pages
from stormpsr_jax.serving import folder as folders
from stormpsr_jax.serving.files.overlay import Clips
from stormpsr_jax.serving.files.unit import Reset, parse_reset
from stormpsr_jax.serving.folder import load_model, model_folder

BUFFER_SECONDS = 1.0  # seconds of pictures that wait at most


def run(args: argparse.Namespace) -> int:
    """Recognises the one source of the command line until it ends, or Ctrl-C or SIGTERM.

    Returns:
        The exit status: 1 if the source could not be read or a line not be printed, else 0.

    Raises:
        ValueError: mistakes on the command line, or a state file that is none.
    """
    (word,) = args.source
    errors: list[str] = []
    with gathering(errors):
        reset = Reset() if args.reset is None else parse_reset(args.reset)
    with gathering(errors):
        source = live_source(word)
    with gathering(errors):
        model = load_model(model_folder(args.model), args.modules)
        stream, settings = folders.settings(model, args.stream, args.threshold, args.risk)
    if args.serve is not None:
        with gathering(errors):
            address, token = access.parse(args.serve), access.read_token(args.token_file)
            access.Access(address, token)
    wanted = [
        (args.mqtt, receivers.parse_broker, receivers.Mqtt),
        (args.webhook, receivers.parse_hook, receivers.Webhook),
    ]
    wanted = [row for row in wanted if row[0] is not None]
    for url, parse, _ in wanted:
        with gathering(errors):
            parse(url)
    if args.alert_clips is not None:
        with gathering(errors):
            installed.check_extra("video", ["av"], "--alert-clips")
        if missing := pages.missing():
            errors.append(f"--alert-clips needs {missing}")
    raise_all(errors)
    tell("stream", args.stream or model.recognises_by)
    folders.note_of_product(model, model_folder(args.model))
    (variant,) = folders.variants(model, [source.name], args.variant)
    begin = functools.partial(model.live, variant, stream, settings=settings, batch=args.batch or 1)
    live, clock = begin(), Clock(model.fps)
    state = Path(args.state) if args.state else None
    framing, clips = model.pictures.framing_of("detector"), None
    if args.alert_clips is not None:
        of_model = live.decoder.procedure, framing, model.fps
        clips = Clips(Path(args.alert_clips), *of_model)
    station = Station(
        live,
        source.name,
        clock=clock,
        reset=reset,
        framing=framing,
        calibrated=model.calibrated(stream, settings),
        state=state,
        part_pictures=model.part_pictures,
        clips=clips,
    )
    with contextlib.ExitStack() as stack:
        if clips is not None:
            stack.callback(clips.finish)
        if state is not None:
            lock = files.open_locked(state.with_name(f"{state.name}.lock"))
            if lock is None:
                raise ValueError(f"another process has the state in {state}; give another --state")
            stack.enter_context(lock)
            station.restore()
        outputs: list[Outbox | serve.Page] = []
        page = None
        if args.serve is not None:
            page = serve.Page(
                address,
                title=f"{model.procedure.name} · {variant}",
                on_reset=station.ask_reset,
                on_confirm=live.confirm,
                token=token,
            )
            stack.callback(page.close)
            outputs.append(page)
            tell("page", page.url)
            page.frame(None, {"recording": source.name, "source": "loading"})
        for url, _, receiver in wanted:
            outputs.append(receiver(url))
            stack.callback(outputs[-1].close)
        # Before the source is opened: compiling takes longer than pictures wait.
        begin().update(np.zeros((*model.pictures.size, 3), np.uint8), 0.0)
        if reset.kind == "key":
            _on_enter(station.ask_reset)
        stop = stack.enter_context(interruption.noted())
        depth = max(2, math.ceil(BUFFER_SECONDS * model.fps))
        capture = Capture(source, clock, live.frame_at, depth=depth, after=station.frame)
        try:
            with capture:
                station.run(capture, stop, outputs, page)
        except ValueError as error:
            for line in lines_of(error):
                tell("error", line)
            return 1
        except OSError as error:  # of the source, or nobody reads the lines any more
            tell("error", message_of(error))
            return 1
        finally:
            if capture.dropped:
                what = f"recognition did not keep up with {model.fps:g} a second"
                tell("warning", f"{capture.dropped} pictures were dropped: {what}")
    return 0


def _on_enter(act: Callable[[], None]) -> None:
    def read() -> None:
        # Not by sys.stdin, whose lock the end of the process would wait for.
        while typed := os.read(0, 4096):
            if b"\n" in typed:
                act()

    threading.Thread(target=read, daemon=True).start()
