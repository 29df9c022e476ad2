"""Makes clip shards of IndustReal.

    python -m data_prep.industreal --data=DIR --out=DIR

--data is the folder `recordings`, one above it, or a folder of the zip files as downloaded
(train_p1.zip …). A recording is a folder <split>/<recording> with rgb/000000.jpg … (or rgb.mp4, 10
frames per second), PSR_labels*.csv and OD_labels.json; its other camera streams are not used. In a
zip file without such folders, its name says the split.

A box is of the class of its COCO category: a state vector (of a catalogued state, or else the box
is ignored), `error_state`, or `background` (ignored). The log says how many categories differ from
the state that the PSR labels give at their frame. That state is the class only where a category is
none of these.
"""

import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep import command
from data_prep.reading import layout
from data_prep.reading.asd_labels import read_coco_boxes
from data_prep.reading.labels import read_labels
from data_prep.reading.layout import Format
from data_prep.reading.trees import join
from data_prep.writing import recorded
from data_prep.writing.parallel import Workers
from stormpsr_jax.data.framing import DEFAULT_FRAMING, Framing
from stormpsr_jax.psr.procedure import load_procedure

FORMAT = Format("IndustReal", 0, read_coco_boxes, "--data")
_BOXES = "OD_labels.json"
# Other camera streams of a recording, of as many files again.
_OTHER_STREAMS = ("depth", "stereo_left", "stereo_right", "ambient_light")


def make_dataset(
    out: str | Path,
    *,
    data: str | Path,
    framing: Framing = DEFAULT_FRAMING,
    workers: Workers = 1,
    recordings: str = "*",
    remake: bool = False,
) -> bool:
    """Makes the clip shards; see the module's docstring.

    Args:
        out: folder for the shards.
        data: folder or zip file of the recordings.
        framing: what becomes of a picture.
        workers: processes, or a cluster.
        recordings: glob; only these are made.
        remake: make recordings again whose labels, boxes or pictures have changed.

    Returns:
        Whether the folder is complete; not if `recordings` left some out.

    Raises:
        ValueError: what is wrong with the data, all recordings at once where that is possible.
        OSError: `out` cannot be written.
    """
    procedure = load_procedure("industreal")
    trees = command.open_flag("data", data, _OTHER_STREAMS)
    labelled = layout.find_labels(trees, f"--data={data}")
    boxed = {
        name: (tree, join(folder, _BOXES))
        for name, (_, (tree, folder)) in labelled.items()
        if tree.exists(join(folder, _BOXES))
    }
    found = layout.match(FORMAT, labelled, layout.find_pictures(trees, "rgb"), boxed, procedure.fps)
    return recorded.build(
        functools.partial(read_labels, FORMAT),
        found,
        out,
        procedure=procedure,
        framing=framing,
        workers=workers,
        glob=recordings,
        remake=remake,
    )


@command.command()
def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = command.new_parser("industreal", __doc__)
    parser.add_argument("--data", required=True, metavar="PATH", help="folder or zip of recordings")
    command.add_shard_flags(parser)
    command.add_picture_flags(parser)
    command.add_remake_flag(parser)
    f = parser.parse_args(argv)
    make_dataset(
        f.out,
        data=f.data,
        framing=command.framing_of(f),
        workers=f.ray or f.workers,
        recordings=f.recordings,
        remake=f.remake,
    )


if __name__ == "__main__":
    sys.exit(main())
