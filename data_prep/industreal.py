"""Makes clip shards of IndustReal.

    python -m data_prep.industreal --data=DIR --out=DIR

--data is the folder `recordings`, one above it, or a folder of the zip files as downloaded
(train_p1.zip …). A recording is a folder <split>/<recording> with rgb/000000.jpg … (or rgb.mp4, 10
frames per second), PSR_labels*.csv and OD_labels.json; its other camera streams are not used. In a
zip file without such folders, its name says the split.

A box is of the class of the state that the PSR labels give at its frame, not of its COCO category;
the log says how many differ.
"""

import functools
from pathlib import Path

from absl import flags

from data_prep import command, layout, recorded
from data_prep.asd_labels import read_coco_boxes
from data_prep.layout import Format
from data_prep.pictures import DEFAULT_FRAMING, Framing
from data_prep.trees import join
from stormpsr_jax.psr.procedure import load_procedure

FORMAT = Format("IndustReal", 0, read_coco_boxes, "--data")
_BOXES = "OD_labels.json"


def make_dataset(
    out: str | Path,
    *,
    data: str | Path,
    framing: Framing = DEFAULT_FRAMING,
    workers: int = 1,
    recordings: str = "*",
) -> bool:
    """Makes the clip shards; see the module's docstring.

    Args:
        out: folder for the shards.
        data: folder or zip file of the recordings.
        framing: what becomes of a picture.
        workers: processes.
        recordings: glob; only these are made.

    Returns:
        Whether the folder is complete; not if `recordings` left some out.

    Raises:
        ValueError: what is wrong with the data, all recordings at once where that is possible.
        OSError: `out` cannot be written.
    """
    procedure = load_procedure("industreal")
    trees = command.open_flag("data", data)
    labelled = layout.find_labels(trees, f"--data={data}")
    boxed = {
        name: (tree, join(folder, _BOXES))
        for name, (_, (tree, folder)) in labelled.items()
        if tree.exists(join(folder, _BOXES))
    }
    found = layout.match(FORMAT, labelled, layout.find_pictures(trees, "rgb"), boxed, procedure.fps)
    return recorded.build(
        functools.partial(recorded.read_labels, FORMAT),
        found,
        out,
        procedure=procedure,
        framing=framing,
        workers=workers,
        glob=recordings,
    )


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    command.define_flags(flag_values)
    flags.DEFINE_string(
        "data", None, "Folder or zip of the recordings.", required=True, flag_values=flag_values
    )


def main(flag_values: flags.FlagValues) -> None:
    """Makes what the flags ask for."""
    f = flag_values
    make_dataset(
        f.out,
        data=f.data,
        framing=command.framing_of(f),
        workers=f.workers,
        recordings=f.recordings,
    )


if __name__ == "__main__":
    command.run_command(define_flags, main)
