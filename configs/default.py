"""Every field of a run, with the values that it may have, and its paper value where there is one.

Not run by itself: the other configs start from this and name their differences. A section is a
frozen value, which the stages of a run take as it is. Sections and tables in comments are those of
the STORM-PSR paper (arXiv 2510.12385). What a field may be stands here and nowhere else; the most
that a network may be of, its module says (`stored`).
"""

import re
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from ml_collections import ConfigDict
from msgspec import Meta

OWN = re.compile(r"[\w.]+:\w+")
# Changes how a run goes and not what comes out, or names a file, whose content is on record.
FREE = Meta(extra={"free": True})


def one_of_or_own(*names: str) -> Meta:
    """One of some names, or MODULE:NAME of a user's own code (base/user_code.py)."""
    return Meta(extra={"names": names})


def names(hint: Any) -> tuple[str, ...]:
    """Those that `one_of_or_own` gave a field of this type; none of another field."""
    found = (m.extra.get("names") for m in getattr(hint, "__metadata__", ()) if m.extra)
    return next(filter(None, found), ())


Count: TypeAlias = Annotated[int, Meta(ge=0, le=10**9)]
Number: TypeAlias = Annotated[int, Meta(ge=1, le=10**9)]
Amount: TypeAlias = Annotated[float, Meta(ge=0, le=1e9)]
Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Positive: TypeAlias = Annotated[float, Meta(ge=1e-6, le=1e9)]
Seed: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Frames: TypeAlias = Annotated[int, Meta(ge=1, le=10**5)]
Pixels: TypeAlias = Annotated[int, Meta(ge=0, le=4096)]
File: TypeAlias = Annotated[str, FREE]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fields of a config that belong together."""


class Optimizer(Section, frozen=True):
    """How a stage learns."""

    name: Literal["sgd", "adamw"] = "sgd"  # sgd with momentum .9 | adamw
    lr: Amount = 1e-3  # peak learning rate, from which on it falls along a cosine
    weight_decay: Amount = 0.0  # decoupled for adamw, L2 for sgd; on kernels alone
    warmup_steps: Count = 0  # linear warm-up from 0
    clip_norm: Amount = 0.0  # global gradient norm; 0 = no clipping, as in both sources


class Mesh(Section, frozen=True):
    """The devices, which share a batch."""

    fsdp: Annotated[int, Meta(ge=-1)] = 1  # devices that share a copy of the weights; -1 = all


class Synthetic(Section, frozen=True):
    """What stage `data` renders (data_prep.synthetic)."""

    seed: Seed = 0  # timelines, colours, lights, camera paths
    occlusion: Literal["light", "default", "heavy"] = "default"
    world: Literal["toy", "bench", "anywhere"] = "toy"  # kind, real, any appearance
    recordings: tuple[Count, Count, Count] = (40, 12, 12)  # train, val, test
    size: Annotated[int, Meta(ge=8, le=4096)] = 64  # picture height and width in pixels
    fps: Annotated[float, Meta(ge=0.01, le=1000)] = 5.0  # frames per second
    cad_per_state: Count = 100  # clean renders of every catalogued state
    cad_wrong: Count = 0  # further ones, of incorrect installations
    error_recordings: Count = 0  # more for training, full of errors
    meshes: File = ""  # folder of your own product's part meshes; '' = the toy
    poses: File = ""  # file of their poses; '' = poses.json beside the meshes, if any
    up: Literal["z", "y"] = "z"  # axis of the meshes that points up


class Data(Section, frozen=True):
    """The recordings: where they are, and how pictures are normalised."""

    dir: File = ""  # folder of clip shards; '' = WORKDIR/data
    cad_dir: File = ""  # folder of clean renders (split 'cad'); '' = split 'cad' of data.dir
    detector_dir: File = ""  # folder with the same recordings in larger pictures; '' = data.dir
    extra: File = ""  # folder of labelled real recordings that join rendered ones; '' = none
    mean: tuple[Share, Share, Share] = (0.5, 0.5, 0.5)  # of red, green, blue in 0..1
    std: tuple[Positive, Positive, Positive] = (0.25, 0.25, 0.25)  # standard deviation
    # The same of clean renders; () = that folder's own.
    cad_mean: Annotated[tuple[Share, ...], Meta(max_length=3)] = ()
    cad_std: Annotated[tuple[Positive, ...], Meta(max_length=3)] = ()
    # Loader processes per host; 0 = threads of the training process; -1 = four a device, as far as
    # there are cores.
    workers: Annotated[int, Meta(ge=-1, le=1024), FREE] = 0
    synthetic: Synthetic = Synthetic()


class Window(Section, frozen=True):
    """One clip, Sec. 3."""

    frames: Frames = 256  # w: a clip spans frames x - w … x
    stride: Frames = 4  # every stride-th frame is encoded: w / stride + 1 of them


class Augment(Section, frozen=True):
    """Of training pictures; no flips, left and right parts differ."""

    saturation: Annotated[float, Meta(ge=0, le=100)] = 0.7  # factor drawn from 1 ± this
    # Gaussian of 5 taps, sigma up to this; 0 = none.
    blur_sigma: Annotated[float, Meta(ge=0, le=100)] = 2.0
    # Translation, up to this share of the picture.
    shift: Annotated[float, Meta(ge=0, le=100)] = 0.0
    light: Annotated[float, Meta(ge=0, le=4)] = 0.0  # exposure, gamma and white, by exp(± this)
    occluders: Annotated[float, Meta(ge=0, le=100)] = 0.0  # chance that a clean render gets limbs


class Encoder(Section, frozen=True):
    """The backbone and the projection head; but for the last two, 0 is the backbone's own."""

    backbone: str = "vit_small_patch16_224"  # a name of docs/research.md; the paper's ViT-S/16
    image_size: Pixels = 0  # pixels each way that it looks at; 0 = as stored
    patch_size: Count = 0  # of a ViT
    width: Count = 0  # of a ViT's tokens, of an EfficientNet's first stage
    depth: Count = 0  # of a ViT: blocks
    num_heads: Count = 0  # of a ViT
    stem: tuple[Number, ...] = ()  # of a ViT: channels of convolutions before it
    hidden: Number = 128  # width of the frame embedding (layer 1 of the head)
    # Activations that the backward pass redoes; auto: as few as the devices' memory allows.
    remat: Annotated[Literal["auto", "none", "dots", "full"], FREE] = "auto"


class TemporalModel(Section, frozen=True):
    """The [CLS] temporal transformer, or what stands in its place."""

    backbone: Annotated[str, one_of_or_own("transformer", "mlp", "lstm", "tcn")] = "transformer"
    fields: str = ""  # of your own MODULE:NAME in place of them: "depth=2,width=64"
    depth: Number = 6
    num_heads: Number = 8
    dim_head: Number = 128
    mlp_dim: Number = 4096
    drop_positions: bool = False  # dropout also where the positions have been added
    context_frames: Count = 0  # last frames that it sees, a control; 0 = all
    baseline_depth: Count = 0  # of mlp and lstm; 0 = 1
    baseline_width: Count = 0  # of each layer; 0 = the backbone's own
    mlp_activation: Literal["none", "gelu"] = "none"  # as released | with dropout


class Pretrain(Section, frozen=True):
    """KFS + SupCon, Sec. 3.2."""

    steps: Count = 50_000  # 0 = without KFS: the weights to start from, untrained
    loss: Annotated[str, one_of_or_own("supcon")] = "supcon"  # docs/research.md
    n_per_state: Number = 16  # pictures a state in a batch, from recordings
    cad_per_state: Count = 0  # pictures a state from CAD renders
    backgrounds: Count = 0  # hard backgrounds: frames well before a completion
    # Frames that they lie before it, from … to, as the released code draws them.
    background_frames: tuple[Count, Count] = (102, 121)
    t_f: Amount = 2.0  # seconds after a completion whose frames carry its state
    initial_state: bool = True  # also the first t_f seconds of a recording, as released
    key_frames: Literal["kfs", "random"] = "kfs"  # random: all frames of a state
    state_loss: Amount = 0.0  # weight of a BCE for each component; 0 = the paper
    any_frames: Count = 0  # pictures a batch from anywhere, for the state loss only
    encoder_lr_scale: Amount = 1.0  # rate of the backbone / of its head; 0 = frozen
    # Its layers: rate / that of the one above.
    layer_decay: Annotated[float, Meta(ge=1e-6, le=1)] = 1.0
    eval_every: Number = 500  # an epoch
    optimizer: Optimizer = Optimizer(warmup_steps=2_500)


class Embed(Section, frozen=True):
    """Embeddings of frames."""

    every: Frames = 1  # of so many frames one is encoded, and ends clips
    files: File = ""  # folder of RECORDING.npy, (frames, D): taken in place of encoding


class Temporal(Section, frozen=True):
    """KCAS + BCE, Sec. 3.3."""

    steps: Number = 62_500
    loss: Annotated[str, one_of_or_own("multilabel_bce")] = "multilabel_bce"  # of changes
    batch: Number = 256  # clips
    sampling: Literal["kcas", "gaussian", "uniform"] = "kcas"
    delta: Amount = 80.0  # frames between a completion and the two modes of KCAS
    sigma: Positive = 45.0  # frames
    state_loss: Amount = 0.0  # weight of conditions at the last frame; 0 = the paper
    best: Literal["f1_macro", "f1"] = "f1_macro"  # kept: mean over components | pooled
    eval_every: Number = 625  # an epoch
    optimizer: Optimizer = Optimizer(warmup_steps=3_125)


class Finetune(Section, frozen=True):
    """Both networks, end to end."""

    steps: Number = 140_625  # 75 epochs (paper) of 15,000 clips (released code)
    batch: Number = 8  # clips of w / stride + 1 pictures
    encoder_lr_scale: Amount = 0.01  # encoder learning rate / temporal learning rate
    batch_norm: Literal["train", "frozen"] = "train"  # as released | as pretrain left it
    eval_every: Number = 1_875  # an epoch
    optimizer: Optimizer = Optimizer(warmup_steps=9_375)


class Detector(Section, frozen=True):
    """Assembly state detection."""

    init_from: File = ""  # what it starts from, such as general_detector; '' = random
    steps: Number = 50_000
    batch: Number = 32  # pictures
    background: Share = 0.1  # share of the batch from frames annotated as empty
    unboxed_share: Share = 0.0  # share from anywhere, for part_loss alone
    cad: Share = 0.0  # share of the batch from CAD renders
    cad_wrong: Share = 0.0  # share of those with incorrect installations
    part_loss: Amount = 0.0  # of components' conditions; 0 = the paper: no such head
    pose_loss: Amount = 0.0  # how the product lies, to read it upright; 0 = the paper
    image_size: Pixels = 0  # pixels each way that it looks at; 0 = as stored
    width: Number = 64
    depth: Count = 2
    levels: Number = 1  # feature levels: strides 8, 16, …
    grid: Number = 12  # side of the features in the box for the state
    eval_every: Number = 2_500
    optimizer: Optimizer = Optimizer(
        name="adamw", weight_decay=0.05, warmup_steps=1_000, clip_norm=1.0
    )


class Predict(Section, frozen=True):
    """What both streams are run over."""

    splits: tuple[str, ...] = ("val", "test")
    # Frames at once, in stage embed and evaluations too.
    batch: Annotated[int, Meta(ge=1, le=65_536), FREE] = 64


class Fuse(Section, frozen=True):
    """The learned fusion of both streams, fitted on validation."""

    steps: Count = 150  # 0: nothing is fitted, the package's weights are taken
    # Models whose false acceptances count beside those of validation (evaluate.risk): of the toy,
    # of a world that is more like real recordings, or of ten videos of a product.
    world: Literal["toy", "bench", "own"] = "toy"


class Evaluate(Section, frozen=True):
    """Decoding and scores."""

    decoder: Literal["naive", "confidence", "expected"] = "expected"  # B1, B2, B3
    # T, with the papers' other settings; 0 = all are chosen on validation.
    threshold: Amount = 0.0
    # Share of incorrect installations that may be reported as installed by the learned fusion; what
    # is not sure enough for that is "not sure". 1 = any
    risk: Share = 0.1


LEARNING = ("pretrain", "embed", "temporal", "finetune", "detector")


class Config(Section, frozen=True):
    """A run."""

    seed: Seed = 0  # seeds initialisation, sampling, augmentation and dropout
    stages: tuple[str, ...] = (*LEARNING, "predict", "fuse", "evaluate")
    procedure: str = "meccano"  # packaged name, path of a JSON file, or '' = the data folder's own
    init_from: str = ""  # encoder weights to start from (the backbone's as published); '' = scratch
    dtype: Literal["float32", "bfloat16"] = "float32"  # of activations; else float32
    attention: Literal["auto", "xla", "cudnn"] = "auto"  # training; auto: cuDNN's kernel if it fits
    checkpoint_every: Number = 2_500  # steps of a stage that trains; every ten minutes too
    log_every: Number = 50  # steps
    mesh: Mesh = Mesh()
    data: Data = Data()
    window: Window = Window()
    augment: Augment = Augment()
    encoder: Encoder = Encoder()
    temporal_model: TemporalModel = TemporalModel()
    pretrain: Pretrain = Pretrain()
    embed: Embed = Embed()
    temporal: Temporal = Temporal()
    finetune: Finetune = Finetune()
    detector: Detector = Detector()
    predict: Predict = Predict()
    fuse: Fuse = Fuse()
    evaluate: Evaluate = Evaluate()


def get_config() -> ConfigDict:
    """Returns the locked default configuration."""
    return ConfigDict(msgspec.to_builtins(Config())).lock()


def paper(config: ConfigDict, name: str, extra: str) -> ConfigDict:
    """Returns config NAME, locked, with the paper's networks; `extra` is what follows the colon.

    NAME:dry runs two steps of every stage on the smallest networks, from random weights; its scores
    say nothing. ValueError: something else follows it.
    """
    if extra not in ("", "dry"):
        raise ValueError(f"{name}:{extra}: only {name}:dry is known")
    config.init_from = "vit_small_patch16_224.safetensors"  # of `weights import`, in this folder
    config.dtype = "bfloat16"
    config.data.workers = -1  # as many as the devices need
    config.encoder.image_size = 224
    config.pretrain.backgrounds = 16  # as the released code draws them: so many
    # Like YOLOv8-m: 77.8 GFLOPs a picture, YOLOv8-m has 78.9.
    config.detector.update(image_size=640, levels=3, width=52, depth=2, grid=24)
    if extra:
        config.update(dtype="float32", init_from="")
        config.data.workers = 0
        config.window.frames = 32
        config.encoder.update(image_size=64, width=32, depth=1, num_heads=2, hidden=16)
        config.temporal_model.update(depth=1, num_heads=2, dim_head=8, mlp_dim=32)
        config.detector.update(image_size=128, width=8, depth=1, levels=1, grid=12)
        config.pretrain.update(n_per_state=2, backgrounds=0)
        config.pretrain.cad_per_state = min(config.pretrain.cad_per_state, 2)
        config.checkpoint_every, config.log_every = 2, 1
        config.temporal.batch, config.finetune.batch, config.detector.batch = 16, 1, 4
        for stage in ("pretrain", "temporal", "finetune", "detector"):
            config[stage].update(steps=2, eval_every=2)
    return config.lock()
