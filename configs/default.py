"""Every field of a run, with its paper value where the paper gives one.

Not run by itself: the other configs start from this and name their differences. Sections and tables
are those of the STORM-PSR paper (arXiv 2510.12385).
"""

from ml_collections import ConfigDict


def optimizer(**fields) -> ConfigDict:
    """The fields every optimiser section has."""
    config = ConfigDict()
    config.name = "sgd"  # sgd | adamw
    config.lr = 1e-3  # peak learning rate
    config.momentum = 0.9  # sgd only
    config.weight_decay = 0.0  # decoupled for adamw, L2 for sgd; never on biases, norms, positions
    config.warmup_steps = 0  # linear warm-up from 0
    config.schedule = "cosine"  # cosine | constant | restarts
    config.restart_steps = 0  # length of one cosine period, for schedule=restarts
    config.clip_norm = 0.0  # global gradient norm; 0 = no clipping, as in both sources
    config.update(fields)
    return config


def get_config() -> ConfigDict:
    """Returns the locked default configuration."""
    c = ConfigDict()
    c.seed = 0  # seeds initialisation, sampling, augmentation and dropout
    c.stages = (
        *("pretrain", "embed", "temporal", "finetune", "detector", "predict", "fuse", "evaluate"),
    )
    c.procedure = "meccano"  # packaged name, path of a JSON file, or '' = the data folder's own
    c.init_from = ""  # encoder weights to start from (the backbone's as published); '' = scratch
    c.dtype = "float32"  # activations: float32 | bfloat16 (parameters and losses stay float32)
    c.metrics_to = ("tensorboard",)  # besides metrics.jsonl: tensorboard, wandb
    c.mesh = ConfigDict({"data": -1, "fsdp": 1})  # devices per axis; -1 = all that are left

    c.data = ConfigDict()
    c.data.dir = ""  # folder of clip shards or embeddings; '' = WORKDIR/data
    c.data.cad_dir = ""  # folder of clean renders (data_prep.cad); '' = split 'cad' of data.dir
    c.data.detector_dir = ""  # folder with the same recordings in larger pictures; '' = data.dir
    c.data.mean = (0.5, 0.5, 0.5)  # per-channel mean of pictures in 0..1
    c.data.std = (0.25, 0.25, 0.25)  # per-channel standard deviation
    c.data.cad_mean = ()  # the same of clean renders; () = those of the folder that holds them
    c.data.cad_std = ()
    c.data.workers = 0  # loader processes per host; 0 = load in threads of the training process
    c.data.synthetic = ConfigDict()  # what stage `data` renders (data_prep.synthetic)
    c.data.synthetic.seed = 0  # scene seed: timelines, colours, lights, camera paths
    c.data.synthetic.occlusion = "default"  # light | default | heavy
    c.data.synthetic.recordings = ConfigDict({"train": 40, "val": 12, "test": 12})
    c.data.synthetic.size = 64  # picture height and width in pixels
    c.data.synthetic.fps = 5.0  # frames per second
    c.data.synthetic.cad_per_state = 100  # clean renders of every catalogued state
    c.data.synthetic.cad_wrong = 0  # further ones in which some parts sit wrong
    c.data.synthetic.rehearsals = 0  # further recordings for training, full of mistakes
    c.data.synthetic.rehearsal_step = 1  # frames for which each of their pictures is shown
    c.data.synthetic.objects = ConfigDict(
        {"train": 0, "val": 0}
    )  # random objects instead of recordings
    c.data.synthetic.frames_per_object = 120
    c.data.synthetic.workers = 2  # rendering processes
    c.data.synthetic.timelines = ""  # folder of label timelines to play; '' = made-up ones
    c.data.synthetic.time_scale = 1.0  # label times are divided by this
    c.data.synthetic.pace = 1.0  # made-up pauses between events are this many times as long

    c.window = ConfigDict()  # Sec. 3: one clip
    c.window.frames = 256  # w: a clip spans frames x - w … x
    c.window.stride = 4  # every stride-th frame is encoded: w / stride + 1 of them

    c.augment = ConfigDict()  # training pictures; no flips, left and right parts differ
    c.augment.brightness = 0.1  # factor drawn from 1 ± this
    c.augment.contrast = 0.1
    c.augment.saturation = 0.7
    c.augment.blur_sigma = 2.0  # Gaussian, 5 taps, sigma up to this, in pixels; 0 = none
    c.augment.shift = 0.0  # translation, up to this share of the picture
    c.augment.limbs = 0.0  # probability that a clean render gets painted-over limbs

    c.encoder = ConfigDict()  # the ViT and the projection head
    c.encoder.backbone = "vit_small_patch16_224"  # any of models/backbones.py; the paper's ViT-S/16
    c.encoder.image_size = 0  # pixels each way that it looks at; 0 = as stored
    c.encoder.patch_size = 0  # pixels; here and below 0 = the backbone's own
    c.encoder.width = 0
    c.encoder.depth = 0
    c.encoder.num_heads = 0
    c.encoder.stem = ()  # channels of stride-2 convolutions in front of the patches
    c.encoder.hidden = 128  # width of the frame embedding (layer 1 of the head)
    c.encoder.projection = 128  # width of z, for SupCon only
    c.encoder.remat = "none"  # recomputed in the backward pass: none | dots | full (activations)
    c.encoder.microbatches = 1  # parts of a batch of pictures that are encoded one by one

    c.temporal_model = ConfigDict()
    c.temporal_model.backbone = "transformer"  # transformer | mlp | lstm | tcn
    c.temporal_model.depth = 6
    c.temporal_model.num_heads = 8
    c.temporal_model.dim_head = 128
    c.temporal_model.mlp_dim = 4096
    c.temporal_model.dropout = 0.1
    c.temporal_model.drop_positions = False  # dropout also where the positions have been added
    c.temporal_model.seen = 0  # last frames of a clip that the network sees, as a control; 0 = all
    c.temporal_model.head = "mlp"  # mlp (paper: one hidden layer) | linear (released code)
    c.temporal_model.baseline_depth = 0  # layers of mlp and lstm; 0 = 1. A tcn sees the whole clip
    c.temporal_model.baseline_width = 0  # units of each layer; 0 = the backbone's own
    c.temporal_model.mlp_activation = "none"  # of mlp: none, as released | gelu, with dropout

    c.pretrain = ConfigDict()  # KFS + SupCon, Sec. 3.2
    c.pretrain.steps = 50_000  # 0 = without KFS: the weights to start from, untrained
    c.pretrain.n_states = 0  # assembly states in a batch; 0 = all that the training split has
    c.pretrain.n_per_state = 16  # pictures a state from recordings
    c.pretrain.cad_per_state = 0  # pictures a state from CAD renders
    c.pretrain.backgrounds = 0  # hard backgrounds a batch: frames well before a completion
    c.pretrain.background_gap = 12.0  # seconds that a hard background lies before the completion,
    c.pretrain.background_span = 2.0  # and up to so many more; 0 = back to the completion before
    c.pretrain.t_f = 2.0  # seconds after a completion whose frames carry its state
    c.pretrain.initial_state = True  # also the first t_f seconds of a recording, as released
    c.pretrain.key_frames = "kfs"  # kfs | random (a state's frames for as long as it lasts)
    c.pretrain.temperature = 0.07
    c.pretrain.supcon_block = 0  # rows of SupCon's matrix a device sees at a time; 0 = all at once
    c.pretrain.state_loss = 0.0  # weight of a per-component BCE beside SupCon; 0 = the paper
    c.pretrain.any_frames = 0  # pictures a batch from anywhere, for the state loss only
    c.pretrain.encoder_lr_scale = 1.0  # learning rate of the ViT / that of its head; 0 = frozen
    c.pretrain.layer_decay = 1.0  # learning rate of each layer of the ViT / that of the layer above
    c.pretrain.eval_every = 500  # an epoch
    c.pretrain.checkpoint_every = 2_500
    c.pretrain.log_every = 50
    c.pretrain.optimizer = optimizer(warmup_steps=2_500)

    c.general = ConfigDict()  # a starting encoder from many objects (configs/general_encoder.py)
    c.general.steps = 10_000
    c.general.objects = 8  # objects in a batch
    c.general.states = 4  # assembly states of each
    c.general.views = 3  # pictures of each state
    c.general.state_loss = 1.0  # weight of the per-component BCE, one linear head an object
    c.general.eval_every = 1_000
    c.general.checkpoint_every = 500
    c.general.log_every = 50
    c.general.optimizer = optimizer(
        name="adamw", weight_decay=0.05, warmup_steps=500, clip_norm=1.0
    )

    c.embed = ConfigDict()
    c.embed.batch = 256  # frames encoded at once
    c.embed.views = 0  # augmented passes over the training split besides the plain one

    c.temporal = ConfigDict()  # KCAS + BCE, Sec. 3.3
    c.temporal.steps = 62_500
    c.temporal.batch = 256  # clips
    c.temporal.sampling = "kcas"  # kcas | gaussian | uniform
    c.temporal.delta = 80.0  # frames between a completion and the two modes of KCAS
    c.temporal.sigma = 45.0  # frames
    c.temporal.state_loss = 0.0  # weight of components' conditions at the last frame; 0 = the paper
    c.temporal.floor = 0.0  # added to the density at every frame (released code: 1e-8)
    c.temporal.best = "f1_macro"  # weights kept: best f1_macro (mean over components) | f1 (pooled)
    c.temporal.eval_every = 625  # an epoch
    c.temporal.checkpoint_every = 2_500
    c.temporal.log_every = 50
    c.temporal.optimizer = optimizer(warmup_steps=3_125)

    c.finetune = ConfigDict()  # both, end to end
    c.finetune.steps = 140_625  # 75 epochs (paper) of 15,000 clips (released code)
    c.finetune.batch = 8  # clips of w / stride + 1 pictures
    c.finetune.encoder_lr_scale = 0.01  # encoder learning rate / temporal learning rate
    c.finetune.layer_decay = 1.0  # learning rate of each encoder layer / that of the layer above
    c.finetune.batch_norm = "train"  # train, as released | frozen: the statistics of pretrain
    c.finetune.eval_every = 1_875  # an epoch
    c.finetune.checkpoint_every = 1_000
    c.finetune.log_every = 20
    c.finetune.optimizer = optimizer(warmup_steps=9_375)

    c.detector = ConfigDict()  # assembly state detection
    c.detector.steps = 50_000
    c.detector.batch = 32  # pictures
    c.detector.background = 0.1  # share of the batch from frames annotated as empty
    c.detector.anywhere = 0.0  # share from anywhere in recordings, for the parts' conditions alone
    c.detector.cad = 0.0  # share of the batch from CAD renders
    c.detector.cad_wrong = 0.0  # share of those in which some parts sit wrong
    c.detector.part_loss = 0.0  # weight of components' conditions; 0 = the paper: no such head
    c.detector.pose_loss = 0.0  # of how the product lies: states are read upright; 0 = the paper
    c.detector.zoom = 0.2  # pictures are scaled by 1 ± this, boxes with them
    c.detector.shift = 0.08  # and moved by up to this share of the picture
    c.detector.image_size = 0  # pixels each way that it looks at; 0 = as stored
    c.detector.width = 64
    c.detector.depth = 2
    c.detector.levels = 1  # feature levels: strides 8, 16, …
    c.detector.grid = 12  # height and width of the features in the box that tell the state
    c.detector.max_detections = 1  # rows a frame in the prediction files
    c.detector.eval_every = 2_500
    c.detector.checkpoint_every = 2_500
    c.detector.log_every = 50
    c.detector.optimizer = optimizer(
        name="adamw", weight_decay=0.05, warmup_steps=1_000, clip_norm=1.0
    )

    c.predict = ConfigDict()
    c.predict.splits = ("val", "test")
    c.predict.batch = 64  # frames recognised at once

    c.fuse = ConfigDict()  # the learned fusion of both streams, fitted on validation
    c.fuse.init = "default"  # start: default (weights of the package) | scratch
    c.fuse.steps = 150
    c.fuse.lr = 3e-3  # peak learning rate of Adam
    c.fuse.noise = 0.1  # standard deviation of noise on the inputs
    c.fuse.decay = 0.02  # pull towards the start
    c.fuse.units = 8  # of the recurrent unit (init=scratch; the package's weights have their own)
    c.fuse.average = 0.4  # seconds that inputs are averaged over (init=scratch)

    c.evaluate = ConfigDict()
    c.evaluate.decoder = "expected"  # naive (B1) | confidence (B2) | expected (B3)
    c.evaluate.decay = 0.75  # of a step's sum on a frame without evidence
    c.evaluate.choose = "validation"  # thresholds: validation (psr/select.py) | paper (fixed)
    c.evaluate.threshold = 0.0  # T of choose=paper; 0 = industreal 6, meccano 1
    c.evaluate.certain = 0.0  # events of a lower confidence are listed as uncertain, not scored
    c.lock()
    return c
