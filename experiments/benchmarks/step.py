"""One CLIP training step (forward, backward, AdamW) on CPU: ours beside PyTorch's peers.

    python experiments/benchmarks/step.py                    # all: sets up the peers, once
    python experiments/benchmarks/step.py --contenders ours --workloads s16_64_b32 --processes 1

Every contender is a process of its own, on one fixed batch, compiled and warmed up beforehand. In
each round the contenders take turns, so that a busy machine disturbs all alike; a ratio is the
median over rounds of (peer's time / ours in the same round), above 1 where ours is faster. All of
it is repeated with fresh processes, since how memory happens to be laid out matters.

Two allocators: `stock` is every contender as it comes, with ours in its own set-up
(mmjax/runtime.py); `same` gives that set-up to the peers also.

What is equal: sizes, batch, AdamW(1e-4, 0.9, 0.98, decay 0.2), fp32 parameters; bf16 is autocast
for PyTorch and `dtype="bfloat16"` for ours. What is not: open_clip keeps its exact GELU, which is
faster there than the quick GELU of the other two; ours also normalises uint8 images.

The peers live in build/bench-venv: torch first, then peers.txt.
"""

import argparse
import importlib.abc
import importlib.machinery
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / "build" / "bench-venv"
TORCH = "torch==2.13.0"
RATE, BETAS, DECAY = 1e-4, (0.9, 0.98), 0.2

# widths, depths and heads of the image (v) and the text (t) tower
WORKLOADS = {
    "s16_64_b32": {
        "image": 64,
        "patch": 16,
        "v": (384, 12, 6),
        "t": (384, 6, 6),
        "length": 32,
        "vocab": 49408,
        "embed": 512,
        "batch": 32,
    },
    "s16_64_b128": {
        "image": 64,
        "patch": 16,
        "v": (384, 12, 6),
        "t": (384, 6, 6),
        "length": 32,
        "vocab": 49408,
        "embed": 512,
        "batch": 128,
    },
    "b32_224_b16": {
        "image": 224,
        "patch": 32,
        "v": (768, 12, 12),
        "t": (512, 12, 8),
        "length": 77,
        "vocab": 49408,
        "embed": 512,
        "batch": 16,
    },
}


def flops(w):
    """Of the matmuls of one step: 2 a multiply-add; the backward twice the forward."""
    patches = (w["image"] // w["patch"]) ** 2

    def tower(length, size):
        width, depth, _ = size
        return depth * (24 * length * width**2 + 4 * length**2 * width) + 2 * width * w["embed"]

    stem = 2 * patches * 3 * w["patch"] ** 2 * w["v"][0]  # the pixels need no gradient
    towers = tower(patches + 1, w["v"]) + tower(w["length"], w["t"])
    return w["batch"] * (3 * towers + 2 * stem) + 6 * w["batch"] ** 2 * w["embed"]


# ---- contenders: (workload, dtype) -> step() -> loss ---------------------------------------------


def batch_of(w):
    """uint8 images [B, H, W, 3] and tokens [B, L], the last token the largest (the end)."""
    import numpy as np

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (w["batch"], w["image"], w["image"], 3), np.uint8)
    text = rng.integers(3, w["vocab"] - 1, (w["batch"], w["length"]))
    text[:, -1] = w["vocab"] - 1
    return image, text


def ours(w, dtype):
    """mmjax's CLIP with optax's AdamW."""
    import jax
    import numpy as np
    import optax
    from flax.core import meta

    from mmjax import models

    def tower(size, **more):
        width, depth, heads = size
        openai = {"activation": "quick_gelu", "norm_epsilon": 1e-5}
        return dict(width=width, depth=depth, heads=heads, mlp_dim=4 * width, **openai, **more)

    patches = {
        "patch_size": w["patch"],
        "image_size": w["image"],
        "patch_bias": False,
        "pre_norm": True,
    }
    config = {
        "model": {
            "name": "clip",
            "dtype": dtype,
            "embed_dim": w["embed"],
            "image": tower(w["v"], **patches),
            "text": tower(w["t"], vocab_size=w["vocab"], length=w["length"]),
        }
    }
    model, loss = models.make_model(config), models.make_loss(config)
    image, text = batch_of(w)
    batch = {"image": image, "text": text.astype(np.int32), "text_mask": np.ones(text.shape, bool)}
    batch = jax.device_put(batch)
    params = jax.jit(lambda: meta.unbox(model.init(jax.random.key(0), batch)["params"]))()
    optimizer = optax.adamw(RATE, *BETAS, weight_decay=DECAY)
    state = [params, jax.jit(optimizer.init)(params)]

    def update(params, moments, batch):
        def f(params):
            outputs = model.apply({"params": params}, batch, train=True)
            return loss(outputs, batch)["contrastive"]

        value, grads = jax.value_and_grad(f)(params)
        updates, moments = optimizer.update(grads, moments, params)
        return optax.apply_updates(params, updates), moments, value

    compiled = jax.jit(update, donate_argnums=(0, 1)).lower(*state, batch).compile()

    def step():
        state[0], state[1], value = compiled(*state, batch)
        return float(value)

    return step


def torch_step(model, forward, dtype):
    """`forward() -> loss` as a training step of PyTorch."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), RATE, BETAS, weight_decay=DECAY, fused=True)
    bf16 = dtype == "bfloat16"

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = forward()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def torch_batch(w):
    import torch

    image, text = batch_of(w)
    pixels = torch.from_numpy(image).permute(0, 3, 1, 2).float().contiguous() / 127.5 - 1
    return pixels, torch.from_numpy(text)


def transformers(w, dtype):
    """transformers' CLIPModel with scaled_dot_product_attention."""
    from transformers import CLIPConfig, CLIPModel

    def tower(size):
        width, depth, heads = size
        return {
            "hidden_size": width,
            "num_hidden_layers": depth,
            "num_attention_heads": heads,
            "intermediate_size": 4 * width,
        }

    text = tower(w["t"]) | {
        "vocab_size": w["vocab"],
        "max_position_embeddings": w["length"],
        "eos_token_id": w["vocab"] - 1,
        "bos_token_id": 0,
        "pad_token_id": 1,
    }
    vision = tower(w["v"]) | {"image_size": w["image"], "patch_size": w["patch"]}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=w["embed"])
    config._attn_implementation = "sdpa"
    model = CLIPModel(config).train()
    pixels, tokens = torch_batch(w)
    return torch_step(
        model, lambda: model(input_ids=tokens, pixel_values=pixels, return_loss=True).loss, dtype
    )


class _AnyName(type):
    """A class whose every public attribute is there: `InterpolationMode.BICUBIC`."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _Absent(types.ModuleType):
    """A module whose every name is a class; it may be imported, not used."""

    __path__ = ()
    __file__ = "absent"

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _AnyName(name, (), {})


class _AbsentFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """torchvision has no build for this torch; open_clip imports it for its data loading alone."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Absent(spec.name)

    def exec_module(self, module):
        pass


def open_clip(w, dtype):
    """open_clip's CLIP and ClipLoss."""
    sys.meta_path.insert(0, _AbsentFinder())
    from open_clip.loss import ClipLoss
    from open_clip.model import CLIP

    def tower(size):
        width, depth, heads = size
        return {"width": width, "layers": depth}, heads

    vision, heads = tower(w["v"])
    vision |= {"head_width": w["v"][0] // heads, "image_size": w["image"], "patch_size": w["patch"]}
    text, heads = tower(w["t"])
    text |= {"heads": heads, "vocab_size": w["vocab"], "context_length": w["length"]}
    model, loss = CLIP(w["embed"], vision, text).train(), ClipLoss()
    pixels, tokens = torch_batch(w)

    return torch_step(model, lambda: loss(*model(pixels, tokens)[:3]), dtype)


CONTENDERS = {"ours": ours, "transformers": transformers, "open_clip": open_clip}


# ---- a contender's process: one line in for each request, one line of JSON out -------------------


def work(name, build, steps):
    """Call `build() -> step`, warm up, then time `steps` steps at every line that comes in."""
    from mmjax import runtime

    runtime.prepare()
    step = build()
    losses = [step() for _ in range(3)]
    answer({"ready": name, "losses": losses})
    for _ in sys.stdin:
        cpu, start = time.process_time(), time.perf_counter()
        for _ in range(steps):
            step()
        answer(
            {
                "wall": (time.perf_counter() - start) / steps,
                "cpu": (time.process_time() - cpu) / steps,
                "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )


def answer(values):
    print("ANSWER " + json.dumps(values), flush=True)


class Worker:
    """A contender's process, from outside."""

    def __init__(self, name, workload, dtype, steps, allocator, script=__file__):
        env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        if name != "ours" and allocator == "stock":
            env["MMJAX_STOCK_ALLOCATOR"] = "1"
        python = sys.executable if name == "ours" else str(VENV / "bin" / "python")
        args = [python, script, "--work", name, workload, dtype, str(steps)]
        pipe = subprocess.PIPE
        self.name = name
        self.process = subprocess.Popen(args, stdin=pipe, stdout=pipe, text=True, env=env)
        self.read()

    def read(self):
        for line in self.process.stdout:
            if line.startswith("ANSWER "):
                return json.loads(line.removeprefix("ANSWER "))
        raise SystemExit(f"The process of '{self.name}' ended; its error is above.")

    def time(self):
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self.read()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


# ---- the benchmark -------------------------------------------------------------------------------


def set_up_peers():
    """The peers' virtual environment, made once."""
    done = VENV / "done"
    if done.exists():
        return
    print(f"Setting up the peers in {VENV.relative_to(ROOT)} ...", flush=True)
    subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    pip = [VENV / "bin" / "python", "-m", "pip", "install", "-q"]
    subprocess.run([*pip, TORCH], check=True)
    lines = (Path(__file__).parent / "peers.txt").read_text().splitlines()
    peers = [line for line in lines if not line.startswith("#")]
    alone = [p for p in peers if p.startswith(("open_clip_torch", "timm"))]
    subprocess.run([*pip, *(p for p in peers if p not in alone)], check=True)
    subprocess.run([*pip, "--no-deps", *alone], check=True)
    done.touch()


def rounds_of(workers, rounds):
    """Every worker once a round, in an order that turns: [{name: answer}, ...]."""
    for worker in workers:
        worker.time()  # the first after waiting is not typical
    results = []
    for r in range(rounds):
        turn = workers[r % len(workers) :] + workers[: r % len(workers)]
        results.append({worker.name: worker.time() for worker in turn})
    return results


def measure(workload, dtype, allocator, args):
    """Print the times and ratios of one workload."""
    results = []
    for _ in range(args.processes):
        workers = [Worker(c, workload, dtype, args.steps, allocator) for c in args.contenders]
        results += rounds_of(workers, args.rounds)
        for worker in workers:
            worker.close()
    print(f"\n{workload} {dtype}, allocator {allocator}")
    work_done, ratios = flops(WORKLOADS[workload]), {}
    for name in args.contenders:
        median = {
            key: statistics.median(r[name][key] for r in results) for key in ("wall", "cpu", "rss")
        }
        line = f"  {name:13s} {1e3 * median['wall']:7.0f} ms  cpu {1e3 * median['cpu']:7.0f} ms"
        line += f"  {work_done / median['wall'] / 1e9:4.0f} GFLOP/s  {median['rss']:6.0f} MB"
        if name != "ours" and "ours" in args.contenders:
            each = [r[name]["wall"] / r["ours"]["wall"] for r in results]
            ratios[name] = statistics.median(each)
            line += f"  {ratios[name]:.2f}x ours ({min(each):.2f} to {max(each):.2f})"
        print(line, flush=True)
    if ratios:
        best = min(ratios, key=ratios.get)
        print(f"  ours is {ratios[best]:.2f}x as fast as the best peer, {best}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    dtypes = ("float32", "bfloat16")
    parser.add_argument("--dtypes", nargs="+", choices=dtypes, default=dtypes)
    allocators = ("stock", "same")
    parser.add_argument("--allocators", nargs="+", choices=allocators, default=allocators)
    parser.add_argument("--rounds", type=int, default=5, help="in each set of processes")
    parser.add_argument("--steps", type=int, default=2, help="timed together, in each turn")
    parser.add_argument("--processes", type=int, default=3, help="sets of fresh processes")
    args = parser.parse_args()
    if set(args.contenders) - {"ours"}:
        set_up_peers()
    for allocator in args.allocators:
        for workload in args.workloads:
            for dtype in args.dtypes:
                measure(workload, dtype, allocator, args)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        name, workload, dtype, steps = sys.argv[2:]
        work(name, lambda: CONTENDERS[name](WORKLOADS[workload], dtype), int(steps))
    else:
        main()
