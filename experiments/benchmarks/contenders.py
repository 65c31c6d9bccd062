"""The contenders of step.py and gpu_step.py: CLIP training steps.

A workload is a dict: image, patch, length, vocab, embed, batch, and width, depth and heads of the
image (v) and the text (t) tower; device is "cpu" or "cuda".
"""

import importlib.abc
import importlib.machinery
import sys
import types

from workers import asked_for, work

SCRIPT = __file__
RATE, BETAS, DECAY = 1e-4, (0.9, 0.98), 0.2


def flops(w):
    """FLOPs of the matmuls of one step: 2 per multiply-add; the backward twice the forward."""
    patches = (w["image"] // w["patch"]) ** 2

    def tower(length, size):
        width, depth, _ = size
        return depth * (24 * length * width**2 + 4 * length**2 * width) + 2 * width * w["embed"]

    stem = 2 * patches * 3 * w["patch"] ** 2 * w["v"][0]  # the pixels need no gradient
    towers = tower(patches + 1, w["v"]) + tower(w["length"], w["t"])
    return w["batch"] * (3 * towers + 2 * stem) + 6 * w["batch"] ** 2 * w["embed"]


# ---- contenders: (workload, dtype) -> step() -> loss, perhaps still being computed --------------


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
    import numpy as np
    import optax

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
    image, text = batch_of(w)
    batch = {"image": image, "text": text.astype(np.int32), "text_mask": np.ones(text.shape, bool)}
    return own_step(config, batch, optax.adamw(RATE, *BETAS, weight_decay=DECAY))[0]


def own_step(config, batch, optimizer):
    """A training step of an mmjax model on one batch: a function -> its loss, and its trace."""
    import jax
    import optax
    from flax.core import meta

    from mmjax.models.systems import make_system
    from mmjax.process import runtime
    from mmjax.system import average

    system = make_system(config)
    model = system.model
    batch = jax.device_put(batch)
    params = jax.jit(lambda: meta.unbox(model.init(jax.random.key(0), batch)["params"]))()
    state = [params, jax.jit(optimizer.init)(params)]

    def update(params, moments, batch):
        def f(params):
            outputs = model.apply({"params": params}, batch, train=True)
            found = system.loss(outputs, batch, None)
            terms = ("contrastive", "captioning")
            return sum(average(found[term])[0] for term in terms if term in found)

        value, grads = jax.value_and_grad(f)(params)
        updates, moments = optimizer.update(grads, moments, params)
        return optax.apply_updates(params, updates), moments, value

    traced = jax.jit(update, donate_argnums=(0, 1)).trace(*state, batch)
    compiled = traced.lower().compile()
    runtime.release_freed_memory()  # as train.py does

    def step():
        state[0], state[1], value = compiled(*state, batch)
        return value

    return step, traced


def torch_step(w, model, forward, dtype):
    """`forward() -> loss` as a training step of PyTorch."""
    import torch

    torch.set_float32_matmul_precision("high")  # as open_clip's own training does; cuda alone
    optimizer = torch.optim.AdamW(model.parameters(), RATE, BETAS, weight_decay=DECAY, fused=True)
    bf16 = dtype == "bfloat16"

    def step():
        with torch.autocast(w["device"], torch.bfloat16, enabled=bf16):
            loss = forward()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def torch_batch(w):
    import torch

    image, text = batch_of(w)
    pixels = torch.from_numpy(image).permute(0, 3, 1, 2).float().contiguous() / 127.5 - 1
    return pixels.to(w["device"]), torch.from_numpy(text).to(w["device"])


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
    model = CLIPModel(config).train().to(w["device"])
    pixels, tokens = torch_batch(w)

    def forward():
        return model(input_ids=tokens, pixel_values=pixels, return_loss=True).loss

    return torch_step(w, model, forward, dtype)


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


class AbsentFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """torchvision has no build for this torch; open_clip and timm only load their data by it."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Absent(spec.name)

    def exec_module(self, module):
        pass


def open_clip(w, dtype, compiled=False):
    """open_clip's CLIP and ClipLoss."""
    sys.meta_path.insert(0, AbsentFinder())
    from open_clip.loss import ClipLoss
    from open_clip.model import CLIP

    def tower(size):
        width, depth, heads = size
        return {"width": width, "layers": depth}, heads

    vision, heads = tower(w["v"])
    vision |= {"head_width": w["v"][0] // heads, "image_size": w["image"], "patch_size": w["patch"]}
    text, heads = tower(w["t"])
    text |= {"heads": heads, "vocab_size": w["vocab"], "context_length": w["length"]}
    model, loss = CLIP(w["embed"], vision, text).train().to(w["device"]), ClipLoss()
    run = model
    if compiled:
        import torch

        run = torch.compile(model)
    pixels, tokens = torch_batch(w)
    return torch_step(w, model, lambda: loss(*run(pixels, tokens)[:3]), dtype)


def open_clip_compiled(w, dtype):
    """open_clip with torch.compile."""
    return open_clip(w, dtype, compiled=True)


CONTENDERS = {
    "ours": ours,
    "transformers": transformers,
    "open_clip": open_clip,
    "open_clip_compiled": open_clip_compiled,
}


if __name__ == "__main__":
    name, workload, dtype, steps = asked_for(sys.argv)
    work(name, workload, steps, lambda: CONTENDERS[name](workload, dtype))
