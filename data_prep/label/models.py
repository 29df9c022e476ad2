"""What a model proposes, and the commands that make one of the labels."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from data_prep.label.store import LabelStore
from stormpsr_jax.base import files
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.serving.content import MODEL, recognises_by
from stormpsr_jax.serving.folder import model_folder

CERTAIN = 0.5  # proposals of a lower confidence are uncertain
SIZE = 64  # pixels of clip shards, for which config `own` is made
_STARTS = {"pretrain": "init_from", "detector": "detector.init_from"}  # by stage, the field


class _Line(msgspec.Struct):
    type: str
    time_s: float = 0.0
    step_id: int | None = None  # alerts may name no step
    confidence: float = 0.0
    fits: bool | None = None  # whether the video shows the model's product


class Proposals:
    """The events that a model has recognised, as `stormpsr_jax.recognise` has left them."""

    def __init__(self, model: str | None, store: LabelStore, procedure: Procedure):
        """Takes a model; ValueError if there is none, or it is of another product."""
        self.folder, self._procedure = store.own / "proposals", procedure  # of the results
        store.check_inside(self.folder / "NAME")
        self.model: str | None = None  # a model folder, a work folder or "demo"
        self.stream = ""  # by which it recognises, for people
        # The model's pictures of the components, JPEG.
        self.parts: Sequence[bytes | None] = [None] * procedure.num_components
        if model is not None:
            self.use(model)

    def use(self, model: str) -> None:
        """From now on, this model proposes; errors as above."""
        path = model_folder(model) / MODEL
        data = files.read_json(path)
        components = data.get("procedure", {}).get("components") if isinstance(data, dict) else None
        if components != list(self._procedure.components):
            raise ValueError(f"--model={model}: {path} is of another product than --procedure")
        if (given := data.get("part_pictures")) is not None:
            self.parts = files.fit(given, list[bytes | None], f"{path}: part_pictures")
        if len(self.parts) != len(components):
            raise ValueError(
                f"{path}: part_pictures: are not {len(components)}, one for each component"
            )
        try:
            self.stream = recognises_by(data)
        except (AttributeError, LookupError, TypeError) as error:
            raise ValueError(f"{path}: streams: are not those of a model") from error
        self.model = model

    def command(self, videos: Sequence[Path]) -> list[str]:
        """The command that makes them; it keeps those of videos that it knows."""
        flags = [f"--model={self.model}", f"--out={self.folder}"]
        return ["stormpsr_jax.recognise", *map(str, videos), *flags]

    def of(self, name: str, num_frames: int) -> list[dict[str, Any]] | None:
        """Those of a recording, in order; None if there are none yet; ValueError if unreadable."""
        path = self.folder / name / "events.jsonl"
        if self.model is None or not path.is_file():
            return None
        lines = map(json.loads, files.read_text(path).splitlines())
        events = [files.fit(line, _Line, str(path)) for line in lines]
        return [
            {
                "frame": min(math.ceil(event.time_s * self._procedure.fps - 1e-6), num_frames - 1),
                "step_id": event.step_id,
                # Beside what a model is not sure of, it would only confuse.
                "confidence": None if event.type == "unsure" else event.confidence,
                "uncertain": event.type != "event" or event.confidence < CERTAIN,
            }
            for event in events
            if event.type in ("event", "unsure") and event.fits is not False
        ]


def uncertainty(proposed: Sequence[Mapping[str, Any]] | None) -> float | None:
    """How little sure a model is of a recording, in 0..1; None: it proposes nothing."""
    if not proposed:
        return None
    return 1 - sum(event["confidence"] or 0 for event in proposed) / len(proposed)


class TrainingOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What somebody says of a training; of the flags of `data_prep.own`, '' is what fits."""

    aspect: str = ""
    crop: str = ""
    splits: str = ""
    replace: bool = False  # whether `Project.plan`'s `replaces` has been agreed to


def training(
    videos: str, labels: Path, boxes: Path | None, procedure: str, wanted: TrainingOptions
) -> tuple[list[list[str]], Path, Path, Path | None]:
    """The commands of the guide that train on all labels, from the weights of the run before.

    They make folders beside the labels, of their own where videos and labels have other names than
    in the guide, and where pictures are made another way. Returns modules and their arguments; the
    data folder; the work folder; that of the run before.
    """
    beside = labels / ".." if labels.name in ("", "..") else labels.parent
    names = ((Path(videos).resolve().name, "videos"), (labels.resolve().name, "labels"))
    parts = [name for name, usual in names if name != usual]
    parts += [wanted.aspect, "crop" * bool(wanted.crop), "boxes" * (boxes is not None)]
    kind = "".join(f"_{part}" for part in parts if part)
    data = beside / f"data{kind}"
    workdir, before = _work_folders(beside / "runs" / f"{Path(procedure).stem}{kind}")
    prepare = [
        "data_prep.own",
        f"--videos={videos}",
        f"--labels={labels}",
        f"--procedure={procedure}",
    ]
    prepare += [] if boxes is None else [f"--boxes={boxes}"]
    prepare += [f"--out={data}", f"--size={SIZE}"]
    said = {"aspect": wanted.aspect, "crop": wanted.crop, "splits": wanted.splits}
    prepare += [f"--{flag}={text}" for flag, text in said.items() if text]
    prepare += ["--remake"] * data.exists()
    config = "own" if boxes is None else "own:boxes"
    main = ["stormpsr_jax.main", f"--config={config}", f"--config.data.dir={data}"]
    main += [f"--workdir={workdir}", *["--remake"] * workdir.exists()]
    if before is not None:
        for stage, field in _STARTS.items():
            if (weights := before / stage / "best.safetensors").is_file():
                main.append(f"--config.{field}={weights}")
    return [prepare, main], data, workdir, before


def _work_folders(first: Path) -> tuple[Path, Path | None]:
    """That of the next run, and of the last one that has ended: FIRST, FIRST_2, FIRST_3, …"""
    folder, before, number = first, None, 1
    while (folder / "model" / MODEL).is_file():
        before, number = folder, number + 1
        folder = first.with_name(f"{first.name}_{number}")
    return folder, before
