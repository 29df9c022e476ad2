"""Which states of an object frozen features of real frames tell apart; no accuracy on a product.

    python -m benchmarks.real_frames CLIPS [--encoders=pixels,random,general,demo] [--bricks=FOLDER]
        [--record=NAME]

CLIPS is a folder with the clips of github.com/cmusatyalab/gabriel-car, `resources/videos/*.mp4`
(Apache-2.0): one person, once, without errors, assembles a model car, seen by a head-mounted
camera. The labels below were made by hand. Two frames a second are taken of each clip. For each
state, linear heads on features of an encoder that is not trained here (least squares with weight
decay, both classes of equal weight) are fitted on all clips but one, and judged on that one. Frames
in which a state changes are left out, and the last state, which one clip alone shows.

0.5 is chance. Camera, table and hands go with the clips, so a head may learn these: "pixels", the
frame itself in 32 × 32, is what an encoder has to beat. "general" is the encoder that ships, and
"random" the same network with random weights, both in 64 × 64; "photos" is the one of the extra
`photos` in 224 × 224, "photos128" in 128 × 128; "demo" or a folder is a model's.

--bricks is a folder with frames/ and frames_2/ of github.com/molguin92/gabriel-lego-py3,
`gabriel_lego/tests` (Apache-2.0): eight states of a model of bricks, a picture of each in two
lights. Each picture is compared with those in the other light: how many are nearest to that of
their own state, and how many steps the nearest one is off (chance: 2 of 16, 2.6).
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import jax
import numpy as np
import simplejpeg

from benchmarks import record
from stormpsr_jax.configs import synthetic_full
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.networks import backbones
from stormpsr_jax.psr.evaluation import tables
from stormpsr_jax.serving.model import load_model
from stormpsr_jax.stages.context import packaged_or_path
from stormpsr_jax.weights.parameters import initialise_from

EVERY = 15  # frames; the clips have 30 a second
PHOTOS = {"photos": 224, "photos128": 128}  # pixels of each side
DECAY = 0.01  # of the features' total variance
# The clips in the order of the assembly, by the app's car_task.py and by what they show.
CLIPS = "acquire_frame_1 green_washer_1 gold_washer_1 pink_gear_1 axle_into_frame_1".split()
CLIPS += "green_washer_2 gold_washer_2 press_wheel_1 acquire_frame_2 green_washer_3".split()
CLIPS += "gold_washer_3 brown_gear pink_gear_2 axle_into_frame_2 green_washer_4".split()
CLIPS += "gold_washer_4 press_wheel_2 gear_axle".split()
# State: the clip in which it comes about, and from which frame it may be so, and is so.
STATES = {
    "pink gear 1": ("pink_gear_1", 180, 250),
    "front axle": ("axle_into_frame_1", 300, 410),
    "front wheel": ("press_wheel_1", 250, 430),
    "brown gear": ("brown_gear", 390, 490),
    "pink gear 2": ("pink_gear_2", 270, 350),
    "rear axle": ("axle_into_frame_2", 330, 590),
    "rear wheel": ("press_wheel_2", 210, 370),
}

Encoder = Callable[[Sequence[np.ndarray]], np.ndarray]  # RGB (H, W, 3) each → (N, D)


def read(folder: Path) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Frames, the clip of each (N,), and states (N, S): 1 it is so, -1 it is not, 0 it changes."""
    frames, clips, states = [], [], []
    for number, clip in enumerate(CLIPS):
        path = folder / f"{clip}.mp4"
        if not path.is_file():
            raise SystemExit(f"{path} is missing; the head of this script says what CLIPS is")
        with av.open(str(path)) as container:
            for at, frame in enumerate(container.decode(video=0)):
                if at % EVERY == 0:
                    frames.append(frame.to_ndarray(format="rgb24"))
                    clips.append(number)
                    states.append([_state(number, at, *of) for of in STATES.values()])
    return frames, np.array(clips), np.array(states)


def _state(clip: int, at: int, changes: str, begins: int, ends: int) -> int:
    now, when = (clip, at), CLIPS.index(changes)
    return -1 if now < (when, begins) else 1 if now >= (when, ends) else 0


def encoder(name: str) -> Encoder:
    """Features by the name of an encoder."""
    if name == "pixels":
        framing = Framing((32, 32))
        return lambda frames: np.stack([framing.prepare(f).ravel() / 255 for f in frames])
    if name not in ("random", "general", *PHOTOS):
        model = load_model(name)
        return lambda frames: model.encode(np.stack([model.preprocess(f) for f in frames]))
    config, size = synthetic_full.get_config(), PHOTOS.get(name, 64)
    start = {"random": "", "general": "general_encoder"}.get(name, "photos")
    section = dict(config.encoder) | {"remat": "none"}
    if name in PHOTOS:
        section = {"backbone": "efficientnet_lite0"}
        config.data.update(mean=(0.498,) * 3, std=(0.502,) * 3)
    framing, network = Framing((size, size)), backbones.build(section)
    variables = network.init(jax.random.key(0), np.zeros((1, *framing.size, 3), np.float32))
    params = variables["params"]
    if start:
        path = packaged_or_path(start)
        params = initialise_from(path, {"encoder": params}, {}, framing.size)[0]["encoder"]

    @jax.jit
    def features(pictures: jax.Array) -> jax.Array:
        mean, std = (np.asarray(v, np.float32) for v in (config.data.mean, config.data.std))
        return network.apply({"params": params}, (pictures / 255 - mean) / std)

    return lambda frames: np.asarray(features(np.stack([framing.prepare(f) for f in frames])))


def balanced_accuracy(features: np.ndarray, truth: np.ndarray, clips: np.ndarray) -> float:
    """Of linear heads, each judged on the clip that it was not fitted on.

    Args:
        features: (N, D).
        truth: (N,) 1, -1, or 0 for what is left out.
        clips: (N,).
    """
    said = np.zeros(len(truth))
    for clip in np.unique(clips):
        fit, judge = (clips != clip) & (truth != 0), clips == clip
        x, y = features[fit], truth[fit].astype(np.float64)
        weights = np.where(y > 0, 0.5 / (y > 0).sum(), 0.5 / (y < 0).sum())[:, None]
        mean = (weights * x).sum(0)
        rows = np.sqrt(weights) * (x - mean)
        gram = rows @ rows.T
        decay = DECAY * np.trace(gram) * np.eye(len(gram))
        # As both classes weigh the same, the target's weighted mean is 0.
        dual = np.linalg.solve(gram + decay, np.sqrt(weights[:, 0]) * y)
        said[judge] = (features[judge] - mean) @ (rows.T @ dual)
    return float(np.mean([(said[truth == side] * side > 0).mean() for side in (1, -1)]))


def in_the_other_light(of: Encoder, folder: Path) -> dict[str, float]:
    """How well the states of --bricks are told by the nearest picture in the other light.

    By the cosine, after the mean of each light's features has been taken away.
    """
    places = [
        [folder / name / f"step_{i}.jpeg" for i in range(8)] for name in ("frames", "frames_2")
    ]
    each = []
    for paths in places:
        features = of([simplejpeg.decode_jpeg(path.read_bytes()) for path in paths])
        centred = features.astype(np.float64) - features.mean(0)
        each.append(centred / np.linalg.norm(centred, axis=1, keepdims=True))
    alike = each[0] @ each[1].T
    off = np.abs(np.concatenate([alike.argmax(0), alike.argmax(1)]) - [*range(8)] * 2)
    return {"found of 16": int((off == 0).sum()), "steps off": float(off.mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("clips", type=Path, metavar="CLIPS", help="folder of the clips")
    add("--encoders", default="pixels,random,general,demo", help="names, or model folders")
    add("--bricks", type=Path, metavar="FOLDER", help="of frames/ and frames_2/, too")
    add("--record", metavar="NAME", help="keep the table as benchmarks/results/NAME")
    args = parser.parse_args()
    frames, clips, states = read(args.clips)
    rows, lights = [], []
    for name in args.encoders.split(","):
        of = encoder(name)
        features = np.concatenate([of(frames[i : i + 64]) for i in range(0, len(frames), 64)])
        found = {
            state: balanced_accuracy(features.astype(np.float64), states[:, k], clips)
            for k, state in enumerate(STATES)
        }
        mean = float(np.mean(list(found.values())))
        rows.append({"encoder": Path(name).name, "mean": mean, **found})
        print(tables.format_rows(rows[-1:]))
        if args.bricks:
            found = in_the_other_light(of, args.bricks)
            lights.append({"encoder": Path(name).name, **found})
            print(tables.format_rows(lights[-1:]))
    if args.record:
        kept = {"balanced accuracy": rows} | ({"bricks in two lights": lights} if lights else {})
        record.save(args.record, kept, f"{len(frames)} real frames")


if __name__ == "__main__":
    main()
