"""A training step of ALBEF against CLIP's: time relative to that of its products.

    python experiments/benchmarks/albef_step.py --rounds 7

The whole step as training runs it: two encoders, their momentum teacher, the fusion of each pair
with two hard negatives and of the masked text, the queue, AdamW and the moving average; on a fixed
batch, compile excluded. CLIP has the same image tower and a text tower of the same size, without
a teacher. Both steps' products are counted in their traces (mmjax/plan/flops.py); CLIP's step gives
the machine's rate for them. `against its products` is a step's time over that of its products at
CLIP's rate, in the same round: 1.0 is as good as CLIP, above is time lost elsewhere. In every round
the models take turns, one step each; medians over the rounds, the range in brackets.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from workers import against_products  # noqa: E402

from mmjax.process import runtime  # noqa: E402

SIZES = {
    "small": {"width": 256, "depth": 6, "heads": 4, "image": 64, "patch": 8, "batch": 32},
    "base": {"width": 768, "depth": 12, "heads": 12, "image": 256, "patch": 16, "batch": 64},
}
VOCAB, LENGTH = 8192, 24
QUEUE = 1024


def configs_of(size, dtype):
    """The configs of the two systems."""
    from mmjax.config import defaults

    tower = {k: size[k] for k in ("width", "depth", "heads")} | {"mlp_dim": 4 * size["width"]}
    image = {**tower, "patch_size": size["patch"], "image_size": (size["image"],) * 2}
    words = {**tower, "vocab_size": VOCAB, "length": LENGTH}
    models = {
        "clip": {"image": image, "text": words},
        "albef": {
            "image": image,
            "text": {**words, "fusion_depth": size["depth"] // 2, "mask_token": 1},
        },
    }
    found = {}
    for name, model in models.items():
        config = found[name] = defaults()
        config.batch_size, config.total_steps = size["batch"], 100
        config.model = {"name": name, "embed_dim": 256, "dtype": dtype, **model}
        config.optim = {"name": "adamw", "learning_rate": 1e-4, "schedule": "constant"}
        config.loss_weights = {"contrastive": 1.0}
        config.mesh = {"data": 1, "fsdp": 1, "tensor": 1}
    config.loss.queue_size = QUEUE
    config.loss_weights = {"contrastive": 1.0, "matching": 1.0, "masked_text": 1.0}
    config.ema.update(decay=0.995, teacher=True)
    return found


def batch_for(size):
    """One batch: images, and texts that fill their length."""
    import numpy as np

    rng = np.random.default_rng(0)
    rows, side = size["batch"], size["image"]
    text = rng.integers(2, VOCAB, (rows, LENGTH)).astype(np.int32)
    return {
        "image": rng.integers(0, 256, (rows, side, side, 3), np.uint8),
        "text": text,
        "text_mask": np.ones(text.shape, bool),
        "example_id": np.arange(rows, dtype=np.int32),
    }


def make_step(config, batch):
    """(a function that runs one step and waits for it, FLOPs of its products)."""
    import jax

    from mmjax.plan import flops
    from mmjax.run import experiment

    run = experiment.build(config.lock(), None, jax.devices()[:1])
    given = {k: jax.device_put(x) for k, x in batch.items() if k in run.spec}
    with jax.set_mesh(run.mesh):
        traced = run.train_step.trace(run.state, given, run.numbers(0))
        compiled = traced.lower().compile()
        state = [run.init()]
    runtime.release_freed_memory()  # as train.py does

    def step():
        with jax.set_mesh(run.mesh):
            state[0], scalars = compiled(state[0], given, run.numbers(0))
        return float(scalars["loss"])

    return step, flops.count(traced.jaxpr).flops


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    args = parser.parse_args()
    runtime.prepare()
    size = SIZES[args.size]
    for dtype in args.dtypes:
        batch = batch_for(size)
        steps = {k: make_step(x, batch) for k, x in configs_of(size, dtype).items()}
        against_products(f"{args.size}, {dtype}", steps, args.rounds)


if __name__ == "__main__":
    main()
