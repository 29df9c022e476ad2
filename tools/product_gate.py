"""Adds to a model that ships what it tells its own product by, where its run is gone.

    python -m tools.product_gate DATA

DATA is a data folder of the demo's product (`runs/synthetic/data` of the same seed). The networks
of the model look at its training and validation recordings, as stage `product_gate` does, and
model.json and provenance.json are written anew. Weights and video stay as they are. A run that
has the stage needs none of this: `tools.demo` copies what its model has.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stormpsr_jax import demo
from stormpsr_jax.base import files
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.serving.folder import read_model
from stormpsr_jax.serving.named_files import MODEL
from stormpsr_jax.serving.weights_file import WEIGHTS
from stormpsr_jax.serving.writing import copy_model, weights_of
from stormpsr_jax.stages import product_gate


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA", help="folder with the recordings")
    data = parser.parse_args(argv).data
    try:
        content = read_model(demo.MODEL)
        networks = weights_of(demo.MODEL)
        sources = {s: (ClipSource(data, s, content.procedure), None) for s in ("train", "val")}
        made = networks.functions(content, content.batch)
        found = product_gate.fit(sources, made, content.batch, content.procedure)
        with tempfile.TemporaryDirectory() as folder:
            copy_model(demo.MODEL, folder, dtype=networks.dtype, fits=found)
            if files.checksum(Path(folder, WEIGHTS)) != files.checksum(demo.MODEL / WEIGHTS):
                raise ValueError(f"{demo.MODEL}: the copy has other weights")
            files.write_text(demo.MODEL / MODEL, Path(folder, MODEL).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    about = files.read_json(demo.PROVENANCE)
    made_by = files.read_json(data / "settings.json")["settings"]
    about["fits"] = {
        "made_by": "python -m tools.product_gate DATA",
        "data": {"seed": made_by["seed"], "occlusion": made_by["occlusion"]},
        "recordings": {split: len(source.recordings) for split, (source, _) in sources.items()},
        "thresholds": found.thresholds,
    }
    path = demo.MODEL / MODEL
    about["files"][f"{demo.MODEL.name}/{MODEL}"] = {
        "bytes": path.stat().st_size,
        "sha256": files.checksum(path),
    }
    files.write_json(demo.PROVENANCE, about)
    print(found.thresholds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
