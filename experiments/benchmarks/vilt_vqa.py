"""Questions per second of ViLT-B/32 on CPU: ours against transformers, in the same interleaved run.

    python experiments/benchmarks/vilt_vqa.py                  # all: sets up the peer, once
    python experiments/benchmarks/vilt_vqa.py --workloads square --rounds 2

VQA inference in fp32, batch 8, 3,129 answers, random weights, texts of 40 tokens of which 8 to 22
are valid. `square`: images of 384x384 pixels; `padded`: of eight sizes up to 384x608 in one padded
batch, with the mask of the valid pixels. Each contender is a process of its own, compiled and
warmed up beforehand; in every round they take turns, and a ratio is the median over rounds of
(peer's time / ours in that round), above 1 where ours is faster.

The peer is installed in build/bench-venv (see workers.py).
"""

import sys

from workers import asked_for, compare, measure_each, options, work

BATCH, LENGTH, ANSWERS = 8, 40, 3129
# height and width of the array, and of the images in it
SIDES = [
    (384, 384),
    (384, 608),
    (384, 512),
    (384, 576),
    (352, 608),
    (384, 448),
    (256, 608),
    (384, 544),
]
WORKLOADS = {"square": ((384, 384), [(384, 384)] * BATCH), "padded": ((384, 608), SIDES)}


def inputs(workload):
    """(ids, their mask, pixels [B, H, W, 3] uint8, sizes [B, 2])."""
    import numpy as np

    rng = np.random.default_rng(0)
    array, sizes = WORKLOADS[workload]
    mask = np.arange(LENGTH)[None] < np.arange(8, 8 + 2 * BATCH, 2)[:, None]
    ids = rng.integers(1000, 30_000, mask.shape) * mask
    pixels = rng.integers(0, 256, (BATCH, *array, 3), np.uint8)
    return ids, mask, pixels, np.asarray(sizes)


def ours(workload):
    """mmjax's model under jit; step() -> the sum of the logits."""
    import jax
    import numpy as np

    from mmjax.models.vilt_model import ViLT
    from mmjax.variables import initial_params

    ids, mask, pixels, sizes = inputs(workload)
    batch = {"text": ids.astype(np.int32), "text_mask": mask, "image": pixels}
    if workload == "padded":
        batch["image_size"] = sizes.astype(np.int32)
    model = ViLT(
        width=768,
        depth=12,
        heads=12,
        mlp_dim=3072,
        text={"vocab_size": 30522, "length": LENGTH},
        image={"image_size": 384, "patch_size": 32},
        num_classes=ANSWERS,
    )
    spec = {k: jax.ShapeDtypeStruct(x.shape, x.dtype) for k, x in batch.items()}
    params = initial_params(model, spec, seed=0)
    apply = jax.jit(lambda params, batch: model.apply({"params": params}, batch)["logits"].sum())
    return lambda: apply(params, batch)


def transformers(workload):
    """transformers' ViltForQuestionAnswering."""
    import torch
    from transformers import ViltConfig, ViltForQuestionAnswering

    torch.set_num_threads(2)
    ids, mask, pixels, sizes = inputs(workload)
    model = ViltForQuestionAnswering(ViltConfig(num_labels=ANSWERS)).eval()
    ids, mask, pixels, sizes = (torch.from_numpy(x) for x in (ids, mask, pixels, sizes))
    rows, columns = (
        torch.arange(n)[None] < sizes[:, i, None] for i, n in enumerate(pixels.shape[1:3])
    )
    valid = (rows[:, :, None] & columns[:, None]).long()

    def run():
        with torch.inference_mode():
            values = (pixels.permute(0, 3, 1, 2).float() / 127.5 - 1) * valid[:, None]
            given = {"pixel_values": values, "pixel_mask": valid}
            return model(input_ids=ids, attention_mask=mask.long(), **given).logits.sum()

    return run


CONTENDERS = {"ours": ours, "transformers": transformers}


def main():
    parser = options(__doc__.splitlines()[0], CONTENDERS, WORKLOADS, dtypes=["float32"])
    measure_each(parser.parse_args(), compare(__file__, lambda workload: BATCH, "questions"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        name, workload, _, steps = asked_for(sys.argv)
        work(name, workload, steps, lambda: CONTENDERS[name](workload["name"]))
    else:
        main()
