"""Make tests/golden/big_vision: small random models of big_vision in its .npz files, with what it
gives for some inputs, layer by layer.

    git clone https://github.com/google-research/big_vision && cd big_vision && \
        git checkout 0127fb6b337ee2a27bf4e54dea79cff176527356
    pip install jax==0.10.2 flax==0.12.8 einops ml_collections absl-py scipy
    python tests/golden/make_big_vision.py PATH/big_vision

siglip: two towers, scanned, pooled by attention. vit: class token, pre-logits and head, under the
names of the first ViT files (numbers that count all modules, one table for the positions of class
token and patches). mean: the mean of the patches, sinusoidal positions, bfloat16.
"""

import sys
import types
from pathlib import Path

import flax
import flax.training.checkpoints  # looks for TensorFlow, so before it is replaced
import jax
import numpy as np
from safetensors.numpy import save_file

HERE = Path(__file__).parent / "big_vision"
PATCH = 8


def big_vision(path):
    """Its modules; TensorFlow, which it opens files with, is not needed here."""
    for name in ("tensorflow", "tensorflow.io", "tensorflow.io.gfile"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["tensorflow"].io = sys.modules["tensorflow.io"]
    sys.modules["tensorflow.io"].gfile = sys.modules["tensorflow.io.gfile"]
    sys.path.insert(0, path)
    from big_vision.models import vit
    from big_vision.models.proj.image_text import two_towers

    return vit, two_towers


def random_like(model, *inputs):
    """Parameters away from their initial values: {path: array}."""
    params = model.init(jax.random.key(0), *inputs)["params"]
    rng = np.random.default_rng(0)
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    return {
        k: np.asarray(v) + 0.1 * rng.normal(size=v.shape).astype(np.float32)
        for k, v in flat.items()
    }


def nested(flat):
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def pixels(image):
    return image.astype(np.float32) / 127.5 - 1


def blocks(encoder):
    return np.stack([encoder[k]["+mlp"] for k in sorted(encoder) if k.startswith("block")])


def siglip(vit, two_towers, image, small):
    """Names and outputs of a SigLIP."""
    sizes = {"depth": 2, "scan": True}
    model = two_towers.Model(
        image={
            **sizes,
            "width": 32,
            "mlp_dim": 48,
            "num_heads": 4,
            "patch_size": (PATCH, PATCH),
            "pool_type": "map",
        },
        text={**sizes, "width": 24, "mlp_dim": 40, "num_heads": 2, "vocab_size": 96},
        out_dim=(None, 32),
        temperature_init=115.0,
        bias_init=-12.0,
    )
    text = np.random.default_rng(1).integers(0, 96, (3, 10)).astype(np.int32)
    flat = random_like(model, pixels(image), text)
    zimg, ztxt, out = model.apply({"params": nested(flat)}, pixels(image), text)
    other = dict(flat)
    grid = np.zeros((1, (small.shape[1] // PATCH) ** 2, 32))
    other["img/pos_embedding"] = vit.resample_posemb(flat["img/pos_embedding"], grid)
    np.savez(HERE / "siglip.npz", **{f"params/{k}": v for k, v in flat.items()})
    return {
        "siglip/text": text,
        "siglip/image_embed": zimg,
        "siglip/text_embed": ztxt,
        "siglip/small_embed": model.apply({"params": nested(other)}, pixels(small), text)[0],
        "siglip/image_layers": blocks(out["img/encoder"]),
        "siglip/text_layers": blocks(
            {k[4:]: v for k, v in out.items() if k.startswith("txt/block")}
        ),
        "siglip/logits": zimg @ ztxt.T * out["t"] + out["b"],
    }


SIZES = {"width": 32, "depth": 2, "mlp_dim": 48, "num_heads": 4, "patch_size": (PATCH, PATCH)}
OLD = {"LayerNorm_1": "LayerNorm_2", "MlpBlock_0": "MlpBlock_3"}
OLD["MultiHeadDotProductAttention_0"] = "MultiHeadDotProductAttention_1"


def old_vit(vit, image, small):
    """Names and outputs of a ViT under the names of 2020."""
    model = vit.Model(5, pool_type="tok", rep_size=20, head_zeroinit=False, **SIZES)
    flat = random_like(model, pixels(image))
    pos = flat.pop("pos_embedding")
    first = 0.1 * np.random.default_rng(2).normal(size=(1, 1, 32)).astype(np.float32)
    old = {"Transformer/posembed_input/pos_embedding": np.concatenate([first, pos], 1)}
    for name, array in flat.items():
        parts = name.split("/")
        if len(parts) > 2 and parts[1].startswith("encoderblock"):
            parts[2] = OLD.get(parts[2], parts[2])
        old["/".join(parts)] = array
    np.savez(HERE / "vit.npz", **old)
    params = vit.fix_old_checkpoints(nested(old))
    logits, out = model.apply({"params": params}, pixels(image))
    grid = np.zeros((1, (small.shape[1] // PATCH) ** 2, 32))
    other = {**params, "pos_embedding": vit.resample_posemb(params["pos_embedding"], grid)}
    return {
        "vit/logits": logits,
        "vit/features": out["pre_logits"],
        "vit/layers": blocks(out["encoder"]),
        "vit/small_logits": model.apply({"params": other}, pixels(small))[0],
    }


def mean(vit, image):
    """Names and outputs of a ViT that takes the mean."""
    model = vit.Model(None, pool_type="gap", posemb="sincos2d", **SIZES)
    flat = random_like(model, pixels(image))
    flat = {k: v.astype(jax.numpy.bfloat16) for k, v in flat.items()}
    np.savez(HERE / "mean.npz", **flat)
    wide = {k: v.astype(np.float32) for k, v in flat.items()}
    features, out = model.apply({"params": nested(wide)}, pixels(image))
    return {"mean/features": features, "mean/layers": blocks(out["encoder"])}


def main(path):
    """Write the files and the outputs."""
    HERE.mkdir(exist_ok=True)
    vit, two_towers = big_vision(path)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2, 4 * PATCH, 4 * PATCH, 3), dtype=np.uint8)
    small = rng.integers(0, 256, (1, 3 * PATCH, 3 * PATCH, 3), dtype=np.uint8)
    found = {"image": image, "small": small}
    found |= siglip(vit, two_towers, image, small)
    found |= old_vit(vit, image, small)
    found |= mean(vit, image)
    found = {k: np.array(v, order="C") for k, v in found.items()}
    save_file(found, HERE / "expected.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
