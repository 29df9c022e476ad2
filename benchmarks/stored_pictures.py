"""How far is `recognise` on a video from stage `predict` on the pictures stored of it?

python -m benchmarks.stored_pictures [--sizes 64 96 128]

`recognise` resizes a picture once, to the size of the network. A run's data folder has it resized
to the folder's size, as a JPEG file, and stage `predict` decodes that and, where the network's size
is another one, resizes it again. Here both are done to the video that ships with the package and
its model (64 pixels): against `recognise`, for data folders of --sizes pixels, pixels (mean
difference in levels of 0…255), probabilities of stream `temporal`, confidences of detections where
both show the same state, and the events of each stream: how many, and how many of them the other
way has too, at what largest distance in frames.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import simplejpeg

import stormpsr_jax
from stormpsr_jax.media import sources
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.media.jpegs import decode_smaller
from stormpsr_jax.media.pictures import encode, read_upright
from stormpsr_jax.serving.model import Model


def as_predicted(frames: Sequence[np.ndarray], stored: int, size: tuple[int, int]) -> np.ndarray:
    """The pictures that stage `predict` gives a network of `size`, from a folder of `stored`."""
    pictures = np.empty((len(frames), *size, 3), np.uint8)
    named = ((f"frame {i}", frame) for i, frame in enumerate(frames))
    for picture, jpeg in zip(pictures, encode(named, Framing((stored, stored))), strict=True):
        if (stored, stored) == size:
            picture[:] = simplejpeg.decode_jpeg(jpeg)
        else:
            decode_smaller(jpeg, picture)
    return pictures


def events_of(model: Model, pictures: np.ndarray) -> dict[str, dict[tuple[int, int], int]]:
    """By stream its events: {(step id, how often it was there before): frame}."""
    found = {}
    for stream in model.streams:
        frames: dict[tuple[int, int], int] = {}
        counts: dict[int, int] = {}
        for event in model.recognise(pictures, stream=stream):
            key = event.step_id, counts.get(event.step_id, 0)
            counts[event.step_id], frames[key] = key[1] + 1, event.frame
        found[stream] = frames
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=(64, 96, 128))
    args = parser.parse_args()
    model = stormpsr_jax.load_model("demo")
    frames = list(read_upright(sources.open_source("demo").open(model.fps)))
    once = np.stack([model.preprocess(frame) for frame in frames])
    said, events = model.recogniser()(once), events_of(model, once)
    height, width = frames[0].shape[:2]
    print(f"{len(frames)} frames of {height}x{width} pixels, network {model.pictures.size[0]}")
    streams = " | ".join(f"{name}: events, both, frames apart" for name in events)
    print(f"| stored | pixels | temporal | detections | {streams} |\n|---{'|---' * 3}", end="")
    print("|---" * len(events) + "|")
    for stored in args.sizes:
        pictures = as_predicted(frames, stored, model.pictures.size)
        other, theirs = model.recogniser()(pictures), events_of(model, pictures)
        pixels = np.abs(pictures.astype(int) - once).mean()
        temporal = np.abs(other.probabilities - said.probabilities)
        found, wanted = other.detected, said.detected
        same = (found.classes == wanted.classes) & (wanted.classes > 0)
        detections = np.abs(found.confidences - wanted.confidences)[same]
        cells = [f"{stored}", f"{pixels:.2f}"]
        cells += [f"{d.mean():.4f}, at most {d.max():.2f}" for d in (temporal, detections)]
        for stream, ours in events.items():
            both = ours.keys() & theirs[stream].keys()
            apart = max((abs(ours[key] - theirs[stream][key]) for key in both), default=0)
            cells.append(f"{len(ours)} and {len(theirs[stream])}, {len(both)}, {apart}")
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
