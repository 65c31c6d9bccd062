"""Captions per second of BLIP base on CPU: ours against transformers, in the same interleaved run.

    python experiments/benchmarks/blip_caption.py              # all: sets up the peer, once
    python experiments/benchmarks/blip_caption.py --workloads beam3_b8 --rounds 2

BLIP base at 384x384 pixels (a ViT-B/16 and 12 text layers of width 768 that attend to its 577
tokens), random weights, 20 new tokens and no end token. Each contender is a process of its own,
compiled and warmed up beforehand; in every round they take turns, and a ratio is the median over
rounds of (peer's time / ours in that round), above 1 where ours is faster.

What is equal: sizes, fp32, both cores, key/value caches. `--dtypes int8` is ours with
`Settings(int8=True)`; the peer stays in fp32. The peer is installed in build/bench-venv.
"""

import sys

from workers import asked_for, compare, measure_each, options, work

NEW, SIZE, VOCAB = 20, 384, 30_524
WORKLOADS = {"beam3_b8": (8, 3), "greedy_b8": (8, 1)}  # batch, beams


def pixels(batch):
    """uint8 [B, H, W, 3]."""
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (batch, SIZE, SIZE, 3), np.uint8)


def ours(workload, dtype):
    """mmjax's BLIP and generate; step() -> the number of tokens made."""
    import numpy as np

    from mmjax.decode.generate import Prepared, make_generate
    from mmjax.decode.settings import Settings
    from mmjax.models.systems import make_system
    from mmjax.variables import initial_params

    size, beams = WORKLOADS[workload]
    layers = {"width": 768, "depth": 12, "heads": 12, "mlp_dim": 3072}
    config = {
        "name": "blip",
        "encoder": False,
        "image": {**layers, "patch_size": 16, "image_size": (SIZE, SIZE)},
        "text": {**layers, "vocab_size": VOCAB, "length": 512},
    }
    system = make_system({"model": config})
    params = initial_params(system.model, system.spec, seed=0)
    batch = {"text": np.zeros((size, 1), np.int32), "text_mask": np.ones((size, 1), bool)}
    batch["image"] = pixels(size)
    settings = Settings(NEW, beams=beams, int8=dtype == "int8")
    variables = Prepared(system.model, settings)({"params": params}, batch)
    del params
    generate = make_generate(system.model, settings)
    return lambda: int(np.asarray(generate(variables, batch).lengths)[:, 0].sum())


def transformers(workload, dtype):
    """transformers' BlipForConditionalGeneration and its generate, in fp32."""
    del dtype
    import torch
    from transformers import BlipConfig, BlipForConditionalGeneration

    size, beams = WORKLOADS[workload]
    torch.set_num_threads(2)
    model = BlipForConditionalGeneration(BlipConfig(vision_config={"image_size": SIZE})).eval()
    values = torch.from_numpy(pixels(size)).permute(0, 3, 1, 2).float() / 127.5 - 1

    def run():
        with torch.inference_mode():
            made = model.generate(
                pixel_values=values,
                max_new_tokens=NEW,
                min_new_tokens=NEW,
                num_beams=beams,
                do_sample=False,
            )
        return made.numel()

    return run


CONTENDERS = {"ours": ours, "transformers": transformers}


def main():
    parser = options(__doc__.splitlines()[0], CONTENDERS, WORKLOADS, dtypes=["float32", "int8"])
    measure = compare(__file__, lambda workload: WORKLOADS[workload][0], "captions")
    measure_each(parser.parse_args(), measure)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        name, workload, dtype, steps = asked_for(sys.argv)
        work(name, workload, steps, lambda: CONTENDERS[name](workload["name"], dtype))
    else:
        main()
