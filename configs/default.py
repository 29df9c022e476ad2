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
    config.evaluate.choose = "paper"
    if extra:
        config.update(dtype="float32", init_from="")
        config.data.workers = 0
        config.window.frames = 32
        config.encoder.update(image_size=64, width=32, depth=1, num_heads=2, hidden=16)
        config.temporal_model.update(depth=1, num_heads=2, dim_head=8, mlp_dim=32)
        config.detector.update(image_size=128, width=8, depth=1, levels=1, grid=12)
        config.pretrain.update(n_per_state=2, backgrounds=0)
        config.pretrain.cad_per_state = min(config.pretrain.cad_per_state, 2)
        config.temporal.batch, config.finetune.batch, config.detector.batch = 16, 1, 4
        for stage in ("pretrain", "temporal", "finetune", "detector"):
            config[stage].update(steps=2, eval_every=2, checkpoint_every=2, log_every=1)
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


def _colours(default: tuple[float, ...], low: float) -> Field:
    """Three numbers up to 1, for red, green and blue; none only if that is the default."""
    return field(default, low, 1, colours=True, like=() if default else (0.5, 0.5, 0.5))


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
    c.continue_share = field(0.3, 0.001, 1)  # of a stage's steps, with main --remake=continue
    c.dtype = one_of("float32", "bfloat16")  # of activations; else float32
    c.attention = one_of("auto", "xla", "cudnn")  # in training; auto: cuDNN's kernel, if it fits
    c.metrics_to = one_of("tensorboard", "wandb", default=("tensorboard",))  # with metrics.jsonl
    c.mesh = Section()  # devices per axis; -1 = all that are left
    c.mesh.data = field(-1, 1, also=(-1, "the rest"))
    c.mesh.fsdp = field(1, 1, also=(-1, "the rest"))

    c.data = Section()
    c.data.dir = ""  # folder of clip shards or embeddings; '' = WORKDIR/data
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
    c.data.synthetic.looks = one_of("all", "lower", "upper")  # half of each range of looks
    c.data.synthetic.views = one_of("head", "overhead", "side", default=())  # () = the world's own
    c.data.synthetic.backgrounds = ""  # folder of pictures and videos of a bench; '' = a drawn one
    c.data.synthetic.recordings = Section()
    c.data.synthetic.recordings.train = field(40, 0)
    c.data.synthetic.recordings.val = field(12, 0)
    c.data.synthetic.recordings.test = field(12, 0)
    c.data.synthetic.size = field(64, 8, 4096)  # picture height and width in pixels
    c.data.synthetic.fps = field(5.0, 0.01, 1000)  # frames per second
    c.data.synthetic.cad_per_state = field(100, 0)  # clean renders of every catalogued state
    c.data.synthetic.cad_wrong = field(0, 0)  # further ones, of incorrect installations
    c.data.synthetic.error_recordings = field(0, 0)  # more for training, full of errors
    c.data.synthetic.error_recordings_step = field(1, 1)  # frames that a picture is shown for
    c.data.synthetic.meshes = ""  # folder of your own product's part meshes; '' = the toy
    c.data.synthetic.poses = ""  # file of their poses; '' = poses.json beside the meshes, if any
    c.data.synthetic.up = one_of("z", "y")  # axis of the meshes that points up
    c.data.synthetic.product_seed = field(-1, 0, 10**9, also=(-1, "none"))  # a drawn product's
    c.data.synthetic.workers = field(2, 1, 1024)  # rendering processes
    c.data.synthetic.timelines = ""  # folder of label timelines to play; '' = made-up ones
    c.data.synthetic.time_scale = field(1.0, 1e-6)  # label times are divided by this
    c.data.synthetic.pace = field(1.0, 1, 1000)  # factor on made-up pauses between events

    c.window = Section()  # Sec. 3: one clip
    c.window.frames = field(256, 1, 10**5)  # w: a clip spans frames x - w … x
    c.window.stride = field(4, 1, 10**5)  # every stride-th frame is encoded: w / stride + 1 of them

    c.augment = Section()  # training pictures; no flips, left and right parts differ
    c.augment.brightness = field(0.1, 0, 100)  # factor drawn from 1 ± this
    c.augment.contrast = field(0.1, 0, 100)
    c.augment.saturation = field(0.7, 0, 100)
    c.augment.blur_sigma = field(2.0, 0, 100)  # Gaussian of 5 taps, sigma up to this; 0 = none
    c.augment.shift = field(0.0, 0, 100)  # translation, up to this share of the picture
    c.augment.occluders = field(0.0, 0, 100)  # probability that a clean render gets limbs

    c.encoder = Section()  # the backbone and the projection head
    c.encoder.backbone = "vit_small_patch16_224"  # a name of docs/research.md; the paper's ViT-S/16
    c.encoder.image_size = field(0, 0, 4096)  # pixels each way that it looks at; 0 = as stored
    c.encoder.patch_size = field(0, 0)  # of a ViT; here and below 0 = the backbone's own
    c.encoder.width = field(0, 0)  # of a ViT's tokens, of a ConvNeXt's first stage
    c.encoder.depth = field(0, 0)  # of a ViT: blocks
    c.encoder.num_heads = field(0, 0)  # of a ViT
    c.encoder.stem = field((), 1, like=(1,))  # of a ViT: channels of convolutions before it
    c.encoder.depths = field((), 1, like=(1,))  # of a ConvNeXt: blocks of each stage
    c.encoder.hidden = field(128, 1)  # width of the frame embedding (layer 1 of the head)
    # Activations that the backward pass redoes; auto: as few as the devices' memory allows.
    c.encoder.remat = one_of("auto", "none", "dots", "full")
    c.encoder.microbatches = field(1, 1, 10**5)  # parts of a batch that are encoded one by one

    c.temporal_model = Section()
    c.temporal_model.backbone = one_of("transformer", "mlp", "lstm", "tcn")
    c.temporal_model.depth = field(6, 1)
    c.temporal_model.num_heads = field(8, 1)
    c.temporal_model.dim_head = field(128, 1)
    c.temporal_model.mlp_dim = field(4096, 1)
    c.temporal_model.dropout = field(0.1, 0, 0.99)
    c.temporal_model.drop_positions = False  # dropout also where the positions have been added
    c.temporal_model.context_frames = field(0, 0)  # last frames that it sees, a control; 0 = all
    c.temporal_model.head = one_of("mlp", "linear")  # paper: one hidden layer | released code
    c.temporal_model.baseline_depth = field(0, 0)  # of mlp and lstm; 0 = 1
    c.temporal_model.baseline_width = field(0, 0)  # of each layer; 0 = the backbone's own
    c.temporal_model.mlp_activation = one_of("none", "gelu")  # as released | with dropout

    c.pretrain = Section()  # KFS + SupCon, Sec. 3.2
    c.pretrain.steps = field(50_000, 0)  # 0 = without KFS: the weights to start from, untrained
    c.pretrain.n_states = field(0, 0)  # states in a batch; 0 = all that the training split has
    c.pretrain.n_per_state = field(16, 1)  # pictures a state from recordings
    c.pretrain.cad_per_state = field(0, 0)  # pictures a state from CAD renders
    c.pretrain.backgrounds = field(0, 0)  # hard backgrounds: frames well before a completion
    c.pretrain.background_gap = field(12.0, 0)  # seconds that they lie before the completion,
    c.pretrain.background_span = field(2.0, 0)  # and up to so many more; 0 = back to the last
    c.pretrain.t_f = field(2.0, 0)  # seconds after a completion whose frames carry its state
    c.pretrain.initial_state = True  # also the first t_f seconds of a recording, as released
    c.pretrain.key_frames = one_of("kfs", "random")  # random: all frames of a state
    c.pretrain.temperature = field(0.07, 0.0001, 100)
    c.pretrain.state_loss = field(0.0, 0)  # weight of a BCE for each component; 0 = the paper
    c.pretrain.any_frames = field(0, 0)  # pictures a batch from anywhere, for the state loss only
    c.pretrain.encoder_lr_scale = field(1.0, 0)  # rate of the backbone / of its head; 0 = frozen
    c.pretrain.layer_decay = field(1.0, 1e-6, 1)  # its layers: rate / that of the one above
    c.pretrain.eval_every = field(500, 1)  # an epoch
    c.pretrain.checkpoint_every = field(2_500, 1)
    c.pretrain.log_every = field(50, 1)
    c.pretrain.optimizer = _optimizer(warmup_steps=2_500)

    c.embed = Section()
    c.embed.batch = field(256, 1)  # frames encoded at once
    c.embed.every = field(1, 1, 10**5)  # of so many frames one is encoded, and ends clips

    c.temporal = Section()  # KCAS + BCE, Sec. 3.3
    c.temporal.steps = field(62_500, 1)
    c.temporal.batch = field(256, 1)  # clips
    c.temporal.sampling = one_of("kcas", "gaussian", "uniform")  # kcas | gaussian | uniform
    c.temporal.delta = field(80.0, 0)  # frames between a completion and the two modes of KCAS
    c.temporal.sigma = field(45.0, 1e-6)  # frames
    c.temporal.state_loss = field(0.0, 0)  # weight of conditions at the last frame; 0 = the paper
    c.temporal.floor = field(0.0, 0)  # added to the density at every frame (released code: 1e-8)
    c.temporal.embeddings = one_of("auto", "device", "host")  # kept on devices, if they fit | so
    c.temporal.steps_per_dispatch = field(25, 1, 1000)  # that run without the host between them
    c.temporal.best = one_of("f1_macro", "f1")  # kept: mean over components | pooled
    c.temporal.eval_every = field(625, 1)  # an epoch
    c.temporal.checkpoint_every = field(2_500, 1)
    c.temporal.log_every = field(50, 1)
    c.temporal.optimizer = _optimizer(warmup_steps=3_125)

    c.finetune = Section()  # both, end to end
    c.finetune.steps = field(140_625, 1)  # 75 epochs (paper) of 15,000 clips (released code)
    c.finetune.batch = field(8, 1)  # clips of w / stride + 1 pictures
    c.finetune.encoder_lr_scale = field(0.01, 0)  # encoder learning rate / temporal learning rate
    c.finetune.layer_decay = field(1.0, 1e-6, 1)  # of each encoder layer / of that above
    c.finetune.batch_norm = one_of("train", "frozen")  # as released | as pretrain left it
    c.finetune.eval_every = field(1_875, 1)  # an epoch
    c.finetune.checkpoint_every = field(1_000, 1)
    c.finetune.log_every = field(20, 1)
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
    c.detector.zoom = field(0.2, 0, 0.99)  # pictures are scaled by 1 ± this, boxes with them
    c.detector.shift = field(0.08, 0, 1)  # and moved by up to this share of the picture
    c.detector.image_size = field(0, 0, 4096)  # pixels each way that it looks at; 0 = as stored
    c.detector.width = field(64, 1)
    c.detector.depth = field(2, 0)
    c.detector.levels = field(1, 1)  # feature levels: strides 8, 16, …
    c.detector.grid = field(12, 1)  # side of the features in the box for the state
    c.detector.max_detections = field(1, 1, 100)  # rows a frame in the prediction files
    c.detector.eval_every = field(2_500, 1)
    c.detector.checkpoint_every = field(2_500, 1)
    c.detector.log_every = field(50, 1)
    c.detector.optimizer = _optimizer(
        name="adamw", weight_decay=0.05, warmup_steps=1_000, clip_norm=1.0
    )

    c.predict = Section()
    c.predict.splits = ("val", "test")
    c.predict.batch = field(64, 1, 65_536)  # frames recognised at once

    c.fuse = Section()  # the learned fusion of both streams, fitted on validation
    c.fuse.steps = field(150, 0)  # 0: nothing is fitted, the package's weights are taken

    c.evaluate = Section()
    c.evaluate.decoder = one_of("naive", "confidence", "expected", default="expected")  # B1, B2, B3
    c.evaluate.decay = field(0.75, 0, 1)  # of a step's sum on a frame without evidence
    c.evaluate.choose = one_of("validation", "paper")  # thresholds: chosen | fixed
    c.evaluate.threshold = field(0.0, 0, 1e9)  # T of choose=paper; 0 = industreal 6, meccano 1
    # Share of incorrect installations that may be reported as installed by the learned fusion; what
    # is not sure enough for that is "not sure". 1 = any
    c.evaluate.risk = field(0.1, 0, 1)
    c.evaluate.certain = field(0.0, 0, 1)  # events below are listed as uncertain, not scored
    return c
