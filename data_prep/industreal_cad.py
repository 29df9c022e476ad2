"""Makes clip shards of IndustReal's synthetic pictures, for pre-training.

    python -m data_prep.industreal_cad --data=DIR --out=DIR

--data is a folder or zip file with the pictures and what they show, maybe among other downloads:

    labels_coco.json images/…png                     the download, as it is (.zip.001 and .zip.002),
                                                     joined or unpacked
    synth/labels.json synth/images/…                 as the code of STORM-PSR (its --syn_path)
    images/…png labels/…txt (or training/labels/)    as that of IndustReal's detector

The first and the last also have boxes, and their classes are those of the Unity scene.

Writes split "cad" of a folder of its own, which a run takes with --config.data.cad_dir: a recording
a catalogued state (`cad_01` is state 1), whose pictures have nothing to do with each other.
Backgrounds, error states and states that are not in the catalogue are left out.
"""

import argparse
import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
from absl import logging

from data_prep import command
from data_prep.reading import renders
from data_prep.reading.renders import Render
from data_prep.writing import shards
from stormpsr_jax.data.annotation import NOT_ANNOTATED
from stormpsr_jax.media import pictures
from stormpsr_jax.media.framing import DEFAULT_FRAMING, Framing
from stormpsr_jax.psr.procedure import Procedure, load_procedure


def make_recording(
    split: str,
    name: str,
    *,
    recordings: Mapping[str, Sequence[Render]],
    procedure: Procedure,
    framing: Framing,
) -> shards.RecordingData:
    """Reads the pictures of one state as they are asked for."""
    del split
    shown = recordings[name]
    label = shown[0].label
    boxes, classes = np.full((len(shown), 4), np.nan), np.full(len(shown), NOT_ANNOTATED)

    def jpegs() -> Iterator[bytes]:
        for i, render in enumerate(shown):
            place, picture = render.tree.show(render.path), render.tree.read(render.path)
            if render.box is not None:
                size = pictures.size_of(place, picture)
                if render.size not in (None, size):
                    raise ValueError(
                        f"{place}: is {size[0]}x{size[1]} (HxW), {renders.COCO} says "
                        f"{render.size[0]:g}x{render.size[1]:g}; unpack or download it again"
                    )
                placement = framing.place(*size)
                boxes[i] = placement.map_boxes(np.array([render.box]))[0]
                classes[i] = NOT_ANNOTATED if np.isnan(boxes[i, 0]) else label
            yield from pictures.encode([(place, picture)], framing)  # each of a size of its own

    return shards.RecordingData(
        name=name,
        first_frame=0,
        jpegs=jpegs(),
        states=np.tile(procedure.states[label - 1], (len(shown), 1)),
        boxes=boxes,
        classes=classes,
        visible=np.full(len(shown), np.nan),
    )


def make_dataset(
    out: str | Path,
    *,
    data: str | Path,
    framing: Framing = DEFAULT_FRAMING,
    **making: Unpack[shards.Making],
) -> bool:
    """Makes the clip shards; see the module's docstring.

    Args:
        out: folder for the shards.
        data: folder or zip file of the pictures.
        framing: what becomes of a picture.
        **making: see shards.build, also for what is returned.

    Raises:
        ValueError: what is wrong with the labels, all at once; a picture that cannot be read.
        OSError: `out` cannot be written.
    """
    procedure = load_procedure("industreal")
    with command.open_downloads("data", data, spare=lambda name: True) as trees:
        layout, place, found = renders.read_renders(trees, f"--data={data}")
    states = range(1, procedure.num_states + 1)
    by_state = {state: [r for r in found if r.label == state] for state in states}
    missing = [str(state) for state, shown in by_state.items() if not shown]
    if len(missing) == len(by_state):
        raise ValueError(
            f"{place}: none of its {len(found)} pictures shows a state of the catalogue (labels "
            f"1…{procedure.num_states})"
        )
    taken = sum(map(len, by_state.values()))
    logging.info(
        "%s: %d pictures of %d states; %d of no catalogued state are left out",
        place,
        taken,
        len(by_state) - len(missing),
        len(found) - taken,
    )
    if missing:
        logging.warning("%s: has no picture of states %s", place, ", ".join(missing))
    named = {f"cad_{state:02d}": shown for state, shown in by_state.items() if shown}
    return shards.build(
        out,
        procedure=procedure,
        image_size=framing.size,
        splits={"cad": list(named)},
        make=functools.partial(
            make_recording, recordings=named, procedure=procedure, framing=framing
        ),
        settings={"source": f"industreal_cad, {layout}", **shards.described(framing)},
        sources={name: renders.fingerprint(shown) for name, shown in named.items()},
        num_frames={name: len(shown) for name, shown in named.items()},
        **making,
    )


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, metavar="PATH", help="folder or zip of renders")
    command.add_recording_flags(parser)


main = command.command("industreal_cad", __doc__, _add_flags, make_dataset)

if __name__ == "__main__":
    sys.exit(main())
