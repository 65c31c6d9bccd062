"""A training step of CoCa and Flamingo against CLIP's: time relative to that of its products.

    python experiments/benchmarks/fusion_step.py --rounds 7

Small models with towers of one size; forward, backward and AdamW on a fixed batch, compile
excluded. The products of a step are counted in its trace (mmjax/plan/flops.py); CLIP's step gives
the machine's rate for them. `against its products` is a step's time over that of its products at
CLIP's rate, in the same round: 1.0 is as good as CLIP, above is time lost elsewhere. In every round
the models take turns, one step each; medians over the rounds, the range in brackets.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from contenders import own_step  # noqa: E402
from workers import against_products  # noqa: E402

from mmjax.process import runtime  # noqa: E402

TOWER = {"width": 256, "depth": 6, "heads": 4, "mlp_dim": 1024}
IMAGE = {**TOWER, "patch_size": 8, "image_size": (64, 64)}
VOCAB, LENGTH, BATCH = 8192, 32, 32
DECODER = {"depth": 6, "heads": 4, "mlp_dim": 1024}
TEXT = {"vocab_size": VOCAB, "width": 256, "length": LENGTH}

MODELS = {
    "clip": {
        "embed_dim": 256,
        "image": IMAGE,
        "text": {**TOWER, "vocab_size": VOCAB, "length": LENGTH},
    },
    "coca": {
        "embed_dim": 256,
        "caption_queries": 32,
        "image": IMAGE,
        "text": {**TEXT, "decoder": DECODER},
    },
    "flamingo": {
        "image_token": 1,
        "max_images": 1,
        "image": IMAGE,
        "resampler": {"latents": 32, "depth": 2, "heads": 4},
        "text": {**TEXT, "decoder": {**DECODER, "cross_every": 2}},
    },
}


def batch_for(name):
    """One batch: images, and texts that fill their length."""
    import numpy as np

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (BATCH, 64, 64, 3), np.uint8)
    text = rng.integers(2, VOCAB, (BATCH, LENGTH)).astype(np.int32)
    batch = {"image": image, "text": text, "text_mask": np.ones(text.shape, bool)}
    if name == "flamingo":
        text[:, 0] = 1
        batch["image"] = image[:, None]
    return batch


def make_step(name, dtype):
    """(a function that runs one step and waits for it, FLOPs of its products)."""
    import optax

    from mmjax.plan import flops

    config = {"model": {"name": name, "dtype": dtype, **MODELS[name]}}
    step, traced = own_step(config, batch_for(name), optax.adamw(1e-4))
    return lambda: float(step()), flops.count(traced.jaxpr).flops


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    args = parser.parse_args()
    runtime.prepare()
    for dtype in args.dtypes:
        steps = {name: make_step(name, dtype) for name in MODELS}
        against_products(dtype, steps, args.rounds)


if __name__ == "__main__":
    main()
