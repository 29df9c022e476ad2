"""Every field of a run, with its paper value where the paper gives one.

Not run by itself: the other configs start from this and name their differences. Sections and tables
are those of the STORM-PSR paper (arXiv 2510.12385). `field(default, low, high)` is a number in that
range, `one_of(*choices)` a text out of these, by default the first. What a field may be stands here
and nowhere else; the most that a network may be of, its module says (`stored`).
"""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from stormpsr_jax.configs.fields import Field, Section, field, one_of, values


def get_config() -> ConfigDict:
    """Returns the locked default configuration."""
    return ConfigDict(values(described())).lock()


def paper(config: ConfigDict, name: str, extra: str) -> ConfigDict:
    """Returns config NAME, locked, with the paper's networks; `extra` is what follows the colon.

    NAME:dry runs two steps of every stage on the smallest networks, from random weights; its scores
    say nothing.

    Raises:
        ValueError: something else follows it.
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


def _optimizer(**defaults: Any) -> Section:
    """The fields every optimiser section has, with other defaults."""
    config = Section()
    config.name = one_of("sgd", "adamw")  # sgd with momentum .9 | adamw
    config.lr = field(1e-3, 0)  # peak learning rate, from which on it falls along a cosine
    config.weight_decay = field(0.0, 0)  # decoupled for adamw, L2 for sgd; on kernels alone
    config.warmup_steps = field(0, 0)  # linear warm-up from 0
    config.clip_norm = field(0.0, 0)  # global gradient norm; 0 = no clipping, as in both sources
    for name, default in defaults.items():
        setattr(config, name, dataclasses.replace(getattr(config, name), default=default))
    return config


RGB = ("red", "green", "blue")


def _colours(default: tuple[float, ...], low: float) -> Field:
    """Three numbers up to 1, for red, green and blue; none only if that is the default."""
    return field(default, low, 1, of=RGB, like=() if default else (0.5,) * 3)


def described() -> Section:
    """Every field with the values that it may have."""
    c = Section()
    c.seed = field(0, 0, 2**31 - 1)  # seeds initialisation, sampling, augmentation and dropout
    c.stages = (
        "pretrain",
        "embed",
        "temporal",
        "finetune",
        "detector",
        "predict",
        "fuse",
        "evaluate",
    )
    c.procedure = "meccano"  # packaged name, path of a JSON file, or '' = the data folder's own
    c.init_from = ""  # encoder weights to start from (the backbone's as published); '' = scratch
    c.dtype = one_of("float32", "bfloat16")  # of activations; else float32
    c.attention = one_of("auto", "xla", "cudnn")  # in training; auto: cuDNN's kernel, if it fits
    c.checkpoint_every = field(2_500, 1)  # steps of a stage that trains; every ten minutes too
    c.log_every = field(50, 1)  # steps
    c.mesh = Section()  # of devices, which share a batch
    c.mesh.fsdp = field(1, 1, also=(-1, "all"))  # devices that share a copy of the weights

    c.data = Section()
    c.data.dir = ""  # folder of clip shards; '' = WORKDIR/data
    c.data.cad_dir = ""  # folder of clean renders (data_prep.cad); '' = split 'cad' of data.dir
    c.data.detector_dir = ""  # folder with the same recordings in larger pictures; '' = data.dir
    c.data.extra = ""  # folder of labelled real recordings that join rendered ones; '' = none
    c.data.mean = _colours((0.5, 0.5, 0.5), 0)  # per-channel mean of pictures in 0..1
    c.data.std = _colours((0.25, 0.25, 0.25), 1e-6)  # per-channel standard deviation
    c.data.cad_mean = _colours((), 0)  # the same of clean renders; () = that folder's own
    c.data.cad_std = _colours((), 1e-6)
    # Loader processes per host; 0 = threads of the training process.
    c.data.workers = field(0, 0, 1024, also=(-1, "four a device, as far as there are cores"))
    c.data.synthetic = Section()  # what stage `data` renders (data_prep.synthetic)
    c.data.synthetic.seed = field(0, 0, 2**31 - 1)  # timelines, colours, lights, camera paths
    c.data.synthetic.occlusion = one_of("light", "default", "heavy", default="default")
    c.data.synthetic.world = one_of("toy", "bench", "anywhere")  # kind, real, any look
    c.data.synthetic.recordings = field((40, 12, 12), 0, 10**6, of=("train", "val", "test"))
    c.data.synthetic.size = field(64, 8, 4096)  # picture height and width in pixels
    c.data.synthetic.fps = field(5.0, 0.01, 1000)  # frames per second
    c.data.synthetic.cad_per_state = field(100, 0)  # clean renders of every catalogued state
    c.data.synthetic.cad_wrong = field(0, 0)  # further ones, of incorrect installations
    c.data.synthetic.error_recordings = field(0, 0)  # more for training, full of errors
    c.data.synthetic.meshes = ""  # folder of your own product's part meshes; '' = the toy
    c.data.synthetic.poses = ""  # file of their poses; '' = poses.json beside the meshes, if any
    c.data.synthetic.up = one_of("z", "y")  # axis of the meshes that points up
    c.data.synthetic.product_seed = field(-1, 0, 10**9, also=(-1, "none"))  # a drawn product's

    c.window = Section()  # Sec. 3: one clip
    c.window.frames = field(256, 1, 10**5)  # w: a clip spans frames x - w … x
    c.window.stride = field(4, 1, 10**5)  # every stride-th frame is encoded: w / stride + 1 of them

    c.augment = Section()  # training pictures; no flips, left and right parts differ
    c.augment.saturation = field(0.7, 0, 100)  # factor drawn from 1 ± this
    c.augment.blur_sigma = field(2.0, 0, 100)  # Gaussian of 5 taps, sigma up to this; 0 = none
    c.augment.shift = field(0.0, 0, 100)  # translation, up to this share of the picture
    c.augment.occluders = field(0.0, 0, 100)  # probability that a clean render gets limbs

    c.encoder = Section()  # the backbone and the projection head
    c.encoder.backbone = "vit_small_patch16_224"  # a name of docs/research.md; the paper's ViT-S/16
    c.encoder.image_size = field(0, 0, 4096)  # pixels each way that it looks at; 0 = as stored
    c.encoder.patch_size = field(0, 0)  # of a ViT; here and below 0 = the backbone's own
    c.encoder.width = field(0, 0)  # of a ViT's tokens, of an EfficientNet's first stage
    c.encoder.depth = field(0, 0)  # of a ViT: blocks
    c.encoder.num_heads = field(0, 0)  # of a ViT
    c.encoder.stem = field((), 1, like=(1,))  # of a ViT: channels of convolutions before it
    c.encoder.hidden = field(128, 1)  # width of the frame embedding (layer 1 of the head)
    # Activations that the backward pass redoes; auto: as few as the devices' memory allows.
    c.encoder.remat = one_of("auto", "none", "dots", "full")

    c.temporal_model = Section()
    c.temporal_model.backbone = one_of("transformer", "mlp", "lstm", "tcn", own=True)
    c.temporal_model.fields = ""  # of your own MODULE:NAME in place of them: "depth=2,width=64"
    c.temporal_model.depth = field(6, 1)
    c.temporal_model.num_heads = field(8, 1)
    c.temporal_model.dim_head = field(128, 1)
    c.temporal_model.mlp_dim = field(4096, 1)
    c.temporal_model.drop_positions = False  # dropout also where the positions have been added
    c.temporal_model.context_frames = field(0, 0)  # last frames that it sees, a control; 0 = all
    c.temporal_model.baseline_depth = field(0, 0)  # of mlp and lstm; 0 = 1
    c.temporal_model.baseline_width = field(0, 0)  # of each layer; 0 = the backbone's own
    c.temporal_model.mlp_activation = one_of("none", "gelu")  # as released | with dropout

    c.pretrain = Section()  # KFS + SupCon, Sec. 3.2
    c.pretrain.steps = field(50_000, 0)  # 0 = without KFS: the weights to start from, untrained
    c.pretrain.loss = one_of("supcon", own=True)  # or MODULE:NAME of your own (docs/research.md)
    c.pretrain.n_per_state = field(16, 1)  # pictures a state in a batch, from recordings
    c.pretrain.cad_per_state = field(0, 0)  # pictures a state from CAD renders
    c.pretrain.backgrounds = field(0, 0)  # hard backgrounds: frames well before a completion
    # Frames that they lie before it, as the released code draws them.
    c.pretrain.background_frames = field((102, 121), 0, 10**6, of=("from", "to"))
    c.pretrain.t_f = field(2.0, 0)  # seconds after a completion whose frames carry its state
    c.pretrain.initial_state = True  # also the first t_f seconds of a recording, as released
    c.pretrain.key_frames = one_of("kfs", "random")  # random: all frames of a state
    c.pretrain.state_loss = field(0.0, 0)  # weight of a BCE for each component; 0 = the paper
    c.pretrain.any_frames = field(0, 0)  # pictures a batch from anywhere, for the state loss only
    c.pretrain.encoder_lr_scale = field(1.0, 0)  # rate of the backbone / of its head; 0 = frozen
    c.pretrain.layer_decay = field(1.0, 1e-6, 1)  # its layers: rate / that of the one above
    c.pretrain.eval_every = field(500, 1)  # an epoch
    c.pretrain.optimizer = _optimizer(warmup_steps=2_500)

    c.embed = Section()
    c.embed.every = field(1, 1, 10**5)  # of so many frames one is encoded, and ends clips
    c.embed.files = ""  # folder of RECORDING.npy, (frames, D): taken in place of encoding

    c.temporal = Section()  # KCAS + BCE, Sec. 3.3
    c.temporal.steps = field(62_500, 1)
    c.temporal.loss = one_of("multilabel_bce", own=True)  # of changes; or MODULE:NAME
    c.temporal.batch = field(256, 1)  # clips
    c.temporal.sampling = one_of("kcas", "gaussian", "uniform")  # kcas | gaussian | uniform
    c.temporal.delta = field(80.0, 0)  # frames between a completion and the two modes of KCAS
    c.temporal.sigma = field(45.0, 1e-6)  # frames
    c.temporal.state_loss = field(0.0, 0)  # weight of conditions at the last frame; 0 = the paper
    c.temporal.best = one_of("f1_macro", "f1")  # kept: mean over components | pooled
    c.temporal.eval_every = field(625, 1)  # an epoch
    c.temporal.optimizer = _optimizer(warmup_steps=3_125)

    c.finetune = Section()  # both, end to end
    c.finetune.steps = field(140_625, 1)  # 75 epochs (paper) of 15,000 clips (released code)
    c.finetune.batch = field(8, 1)  # clips of w / stride + 1 pictures
    c.finetune.encoder_lr_scale = field(0.01, 0)  # encoder learning rate / temporal learning rate
    c.finetune.batch_norm = one_of("train", "frozen")  # as released | as pretrain left it
    c.finetune.eval_every = field(1_875, 1)  # an epoch
    c.finetune.optimizer = _optimizer(warmup_steps=9_375)

    c.detector = Section()  # assembly state detection
    c.detector.init_from = ""  # what it starts from, such as general_detector; '' = random
    c.detector.steps = field(50_000, 1)
    c.detector.batch = field(32, 1)  # pictures
    c.detector.background = field(0.1, 0, 1)  # share of the batch from frames annotated as empty
    c.detector.unboxed_share = field(0.0, 0, 1)  # share from anywhere, for part_loss alone
    c.detector.cad = field(0.0, 0, 1)  # share of the batch from CAD renders
    c.detector.cad_wrong = field(0.0, 0, 1)  # share of those with incorrect installations
    c.detector.part_loss = field(0.0, 0)  # of components' conditions; 0 = the paper: no such head
    c.detector.pose_loss = field(0.0, 0)  # how the product lies, to read it upright; 0 = the paper
    c.detector.image_size = field(0, 0, 4096)  # pixels each way that it looks at; 0 = as stored
    c.detector.width = field(64, 1)
    c.detector.depth = field(2, 0)
    c.detector.levels = field(1, 1)  # feature levels: strides 8, 16, …
    c.detector.grid = field(12, 1)  # side of the features in the box for the state
    c.detector.eval_every = field(2_500, 1)
    c.detector.optimizer = _optimizer(
        name="adamw", weight_decay=0.05, warmup_steps=1_000, clip_norm=1.0
    )

    c.predict = Section()
    c.predict.splits = ("val", "test")
    c.predict.batch = field(64, 1, 65_536)  # frames at once, in stage embed and evaluations too

    c.fuse = Section()  # the learned fusion of both streams, fitted on validation
    c.fuse.steps = field(150, 0)  # 0: nothing is fitted, the package's weights are taken

    c.evaluate = Section()
    c.evaluate.decoder = one_of("naive", "confidence", "expected", default="expected")  # B1, B2, B3
    # T, with the papers' other settings; 0 = all are chosen on validation.
    c.evaluate.threshold = field(0.0, 0, 1e9)
    # Share of incorrect installations that may be reported as installed by the learned fusion; what
    # is not sure enough for that is "not sure". 1 = any
    c.evaluate.risk = field(0.1, 0, 1)
    return c
