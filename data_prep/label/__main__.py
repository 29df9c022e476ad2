"""Labels videos in a browser, exact to the frame: one key a step, saved at every change.

    stormpsr label VIDEOS --procedure=FILE --labels=DIR [--model=MODEL]

VIDEOS is a folder of videos. The page shows frame i of a video as `data_prep.own` stores it, and
writes DIR/NAME.csv with the header `time,step`, which `own` reads back at the very same frames.
Labels of other tools in DIR are opened too; a file of theirs that the page changes is kept in
DIR/.label/before.

The command prints an address with a token, on this machine alone.
"""

import argparse
import asyncio
import secrets
import sys
from pathlib import Path

from data_prep import command
from stormpsr_jax.base import installed
from stormpsr_jax.psr.cli import add_label_flags
from stormpsr_jax.recordings.procedure import load_procedure
from stormpsr_jax.recordings.words import terms


def _serve(
    videos: str,
    labels: str,
    procedure_file: str,
    port: int,
    words: str | None,
    labels_fps: float | None,
    model: str | None,
) -> None:
    from stormpsr_jax.pages import access

    installed.check_extra("live", access.LIBRARIES, "label")
    from data_prep.label import store
    from data_prep.label.project import Project
    from data_prep.label.server import Server

    procedure = load_procedure(procedure_file)
    token = access.read_token(None) or secrets.token_urlsafe()
    with store.open_store(Path(labels)) as kept:
        known = terms(words, labels_fps, procedure)
        project = Project(videos, kept, procedure_file, procedure, known, model)
        listening = access.listening(access.Address("127.0.0.1", port), f"--port={port}")
        address = access.Address("127.0.0.1", listening.getsockname()[1])
        url = f"http://{address}/?token={token}"
        server = Server(project, access.Access(address, token, local=True))
        print(f"{len(project.recordings)} videos; label them at {url}", flush=True)
        asyncio.run(server.run(listening))


def _port(text: str) -> int:
    if not 0 <= (port := int(text)) <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not in 0…65535")
    return port


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("videos", metavar="VIDEOS", help="folder of the videos")
    what = "procedure file of the product"
    add("--procedure", required=True, metavar="FILE", dest="procedure_file", help=what)
    add("--labels", required=True, metavar="DIR", help="folder of the labels, made if missing")
    add("--model", metavar="MODEL", help="proposes labels: a model folder, a work folder or demo")
    add("--port", type=_port, default=0, metavar="N", help="of the page; default: any that is free")
    add_label_flags(add)


main = command.command(
    "label", __doc__, _add_flags, _serve, interrupted="; all labels are saved, run it again"
)

if __name__ == "__main__":
    sys.exit(main())
