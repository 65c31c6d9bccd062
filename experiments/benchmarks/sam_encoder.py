"""SAM beside `transformers` on PyTorch: the ViT-B encoder at 1,024 px, and the mask decoder.

    python -m experiments.benchmarks.sam_encoder --torch=PYTHON [--rounds=3]

PYTHON has torch and transformers. Both sides run random weights in fp32 on the CPU, one image and
one point, in turns; a process each, which holds its model from round to round. Prints the median
and the fastest time, the largest resident memory, and, of the encoder, the fraction of the time
that 486 GMAC take at the fastest matrix product of 4,096 x 768 x 3,072.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

GMAC = 486


def ours():
    """(encoder, decoder): functions of nothing that run once."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from mmjax.models.systems import make_system
    from mmjax.process import runtime
    from mmjax.variables import abstract_variables

    runtime.prepare()
    system = make_system({"model": {"name": "sam", "image": {"variant": "B/16"}, "decoder": {}}})
    rng = np.random.default_rng(0)
    shapes = abstract_variables(system.model, system.spec)
    variables = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(0, 0.02, x.shape), jnp.float32), shapes
    )
    image = rng.integers(0, 256, (1, 1024, 1024, 3), np.uint8)
    apply = jax.jit(system.model.apply)
    point = {
        "prompt_points": np.full((1, 1, 1, 2), 0.5, np.float32),
        "prompt_labels": np.ones((1, 1, 1), np.int32),
        "image_embedding": rng.normal(size=(1, 64, 64, 256)).astype(np.float32),
    }
    a, b = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((4096, 768), (768, 3072)))
    product = jax.jit(jnp.matmul)

    def call(function, *args):
        return lambda: jax.block_until_ready(function(*args))

    return (
        call(apply, variables, {"image": image}),
        call(apply, variables, point),
        call(product, a, b),
    )


def theirs():
    """As `ours`."""
    import torch
    import transformers as t

    model = t.SamModel(t.SamConfig()).eval()
    pixels = torch.randn(1, 3, 1024, 1024)
    embedding = torch.randn(1, 256, 64, 64)
    point = torch.full((1, 1, 1, 2), 512.0)
    a, b = torch.randn(4096, 768), torch.randn(768, 3072)

    def call(function, *args, **kwargs):
        def run():
            with torch.inference_mode():
                function(*args, **kwargs)

        return run

    return (
        call(model.get_image_embeddings, pixels),
        call(model, image_embeddings=embedding, input_points=point),
        call(torch.matmul, a, b),
    )


def work(side):
    """Answer each line on stdin with the times of one run of each."""
    functions = {"ours": ours, "theirs": theirs}[side]()
    for function in functions:
        function()
    for _ in sys.stdin:
        seconds = []
        for function in functions:
            start = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - start)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps([*seconds, memory]), flush=True)


def main():
    """Run both in turns."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--torch", help="a Python with torch and transformers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", choices=("ours", "theirs"))
    args = parser.parse_args()
    if args.work:
        work(args.work)
        return
    if not args.torch:
        parser.error("give --torch, a Python with torch and transformers")
    pythons = {"ours": sys.executable, "theirs": args.torch}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = {
        side: subprocess.Popen(
            [python, "-m", "experiments.benchmarks.sam_encoder", "--work", side], **pipes
        )
        for side, python in pythons.items()
    }
    found = {side: [] for side in workers}
    for _ in range(args.rounds):
        for side, worker in workers.items():
            print("run", file=worker.stdin, flush=True)
            found[side].append(json.loads(worker.stdout.readline()))
    for side, rows in found.items():
        workers[side].stdin.close()
        encoder, decoder, product, memory = zip(*rows)
        peak = 2 * 4096 * 768 * 3072 / min(product)
        print(
            f"{side:7s} encoder {statistics.median(encoder):6.2f} s (fastest {min(encoder):.2f}, "
            f"{2e9 * GMAC / min(encoder) / peak:.0%} of the product's speed), decoder "
            f"{1e3 * statistics.median(decoder):5.1f} ms (fastest {1e3 * min(decoder):.1f}), "
            f"{max(memory):.2f} GiB"
        )


if __name__ == "__main__":
    main()
