r"""Draw images from a model that generates them, as one grid.

    python -m mmjax.sample --model=runs/ddpm_mnist --class=3 --class=8 --count=16 --out=grid.png
    python -m mmjax.sample --model=runs/glide --prompt="a red bus" --guidance=3 --out=bus.png
    python -m mmjax.sample --model=runs/dalle --prompt="a red bus" --out=bus.png \
        --candidates=32 --rerank=runs/clip_emoji

The model is a workdir (its newest checkpoint) or a published folder. Classes and prompts are
repeated in turn up to --count; a model with classes takes all of them by default. An image depends
on the seed and its number alone, not on the others. --frames=8 also writes OUT's name with _frames:
a row for each image, from noise to the result. Settings that are not given are the model's own; see
mmjax/sample/settings.py for those of diffusion.
"""

# ruff: noqa: E402
from mmjax.process import command

if __name__ == "__main__":  # before jax is imported: see command.start
    ARGS = command.start(
        __doc__,
        ("--model", {"required": True, "help": "a workdir or a published folder"}),
        ("--out", {"required": True, "help": "a .png to write; of a model of latents, a .npy"}),
        ("--class", {"action": "append", "default": [], "help": "name or number; repeatable"}),
        ("--prompt", {"action": "append", "default": [], "help": "a text; may be repeated"}),
        ("--count", {"type": int, "help": "images; default: 16, or one per class or prompt"}),
        ("--seed", {"type": int, "default": 0}),
        ("--batch_size", {"type": int, "default": 16, "help": "images at a time"}),
        ("--frames", {"type": int, "help": "states between noise and image"}),
        ("--guidance", {"type": float, "help": "scale of classifier-free guidance"}),
        ("--steps", {"type": int}),
        ("--sampler", {"help": "ddpm, ddim, dpm_solver or heun"}),
        ("--eta", {"type": float, "help": "of DDIM"}),
        ("--variance", {"help": "of DDPM: small, large or learned"}),
        ("--temperature", {"type": float, "help": "of a model that samples tokens"}),
        ("--top_k", {"type": int, "help": "of a model that samples tokens"}),
        ("--top_p", {"type": float, "help": "of a model that samples tokens"}),
        ("--candidates", {"type": int, "help": "images for each, of which --rerank chooses one"}),
        ("--rerank", {"help": "a CLIP: a workdir or a published folder"}),
        ("--clip_guidance", {"type": float, "help": "scale of guidance by --clip"}),
        ("--clip", {"help": "the workdir of a noised_clip"}),
    )

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from mmjax import pretrained, storage
from mmjax.guide import guide
from mmjax.models.systems import make_system
from mmjax.pretrained import Pretrained
from mmjax.process.progress import Progress
from mmjax.rerank import chooser
from mmjax.sample.progress import reported
from mmjax.sample.sheet import columns_of, tile
from mmjax.system import System, row_keys

SETTINGS = ("frames", "guidance", "steps", "sampler", "eta", "variance", "temperature", "top_k")
SETTINGS += ("top_p", "candidates", "rerank", "clip_guidance", "clip")
COUNT = 16


def conditions(
    loaded: Pretrained, classes: Sequence[str], prompts: Sequence[str]
) -> dict[str, np.ndarray]:
    """What the images are to show, a row for each: `label`, or `text` and `text_mask`; or {}.

    An empty prompt has no valid token: it is no text, as in a step that drops it.

    Raises:
      ValueError: a class that the model does not have, or conditions that it does not take.
    """
    total = loaded.config.get("num_classes")
    if classes and not total:
        raise ValueError(f"A '{loaded.config['name']}' here has no classes: leave --class out.")
    if prompts:
        if not loaded.config.get("text"):
            raise ValueError(f"A '{loaded.config['name']}' takes no text: leave --prompt out.")
        length = loaded.text_length
        text, mask, cut = loaded.need_tokenizer().rows(list(prompts), length)
        for prompt in np.asarray(prompts)[cut]:
            print(f"warning: '{prompt}' does not fit into the model's {length} tokens: truncated.")
        mask[[not prompt.strip() for prompt in prompts]] = False  # as texts that were dropped
        return {"text": text, "text_mask": mask}
    if not total:
        return {}
    numbers = [_class(loaded, name) for name in classes] if classes else range(total)
    return {"label": np.asarray(numbers, np.int32)}


def _class(loaded: Pretrained, name: str) -> int:
    names, total = loaded.class_names or (), loaded.config["num_classes"]
    if name in names:
        return list(names).index(name)
    if not name.isdecimal() or int(name) >= total:
        known = ", ".join(names[:20]) or f"0 to {total - 1}"
        raise ValueError(f"--class={name} is no class of the model, which has: {known}.")
    return int(name)


def draw(
    system: System,
    loaded: Pretrained,
    given: Mapping[str, np.ndarray],
    count: int,
    *,
    seed: int = 0,
    batch_size: int = 16,
    settings: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    """`System.sample` of so many rows, in batches, with progress.

    Args:
      given: from `conditions`; its rows are repeated in turn.

    Raises:
      ValueError: settings that the model does not take.
    """
    size = min(count, batch_size)
    settings, choose = chooser(settings, loaded.tokenizer)
    settings, add = guide(settings, loaded.tokenizer)
    parts = []
    batches = -(-count // size)
    with Progress("Sampling", 100 * batches) as bar:

        def on_step(step: int, steps: int) -> None:
            done = 100 * len(parts) + 100 * (step + 1) // steps
            bar.advance(max(0, done - bar.done))

        for first in range(0, batches * size, size):
            rows = np.arange(first, first + size)
            batch = {k: x[rows % len(x)] for k, x in given.items()}
            variables, batch = add(loaded.variables, batch)
            keys = row_keys(jax.random.key(seed), rows)
            with reported(on_step):
                found = system.sample(variables, batch, keys, settings)
                parts.append(choose(jax.device_get(dict(found)), batch))
            bar.advance(max(0, 100 * len(parts) - bar.done))
    return {
        name: np.concatenate([part[name] for part in parts], int(name == "frames"))[
            (slice(None),) * (name == "frames") + (slice(count),)
        ]
        for name in parts[0]
    }


def main() -> None:
    """The command."""
    out = Path(ARGS.out)
    if out.suffix not in (".png", ".npy"):
        raise ValueError(f"--out is '{out}': give a name that ends in .png (or .npy, for latents).")
    for name in ("count", "batch_size"):
        if getattr(ARGS, name) is not None and getattr(ARGS, name) < 1:
            raise ValueError(f"--{name} is {getattr(ARGS, name)}: it must be at least 1.")
    loaded = pretrained.load(ARGS.model)
    system = make_system({"model": loaded.config})
    if system.sample is None:
        raise ValueError(
            f"'{ARGS.model}' holds a '{loaded.config['name']}', which does not generate images."
        )
    if loaded.config["name"] == "diffusion_prior":
        raise ValueError("A prior samples embeddings: for images use python -m mmjax.unclip.")
    if loaded.config["name"] == "karlo":
        raise ValueError("Images of a Karlo are sampled by python -m mmjax.unclip --decoder.")
    latents = bool(loaded.config.get("latents"))
    if latents != (out.suffix == ".npy"):
        kind, suffix = ("latents", ".npy") if latents else ("images", ".png")
        raise ValueError(f"The model gives {kind}: give an --out that ends in {suffix}.")
    given = conditions(loaded, getattr(ARGS, "class"), ARGS.prompt)
    rows = len(next(iter(given.values()))) if given else COUNT
    count = ARGS.count or rows
    settings = {k: getattr(ARGS, k) for k in SETTINGS if getattr(ARGS, k) is not None}
    found = draw(
        system, loaded, given, count, seed=ARGS.seed, batch_size=ARGS.batch_size, settings=settings
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    columns = rows if given and 1 < rows <= 2 * COUNT else columns_of(count)
    _write(out, found["latents" if latents else "image"], columns)
    print(f"{out}: {count} samples")
    if "frames" in found:
        film = out.with_stem(f"{out.stem}_frames")
        frames = found["frames"].swapaxes(0, 1)  # [B, F, ...]
        _write(film, frames.reshape(-1, *frames.shape[2:]), frames.shape[1])
        print(f"{film}: {frames.shape[1]} states of each")


def _write(path: Path, values: np.ndarray, columns: int) -> None:
    buffer = io.BytesIO()
    if path.suffix == ".npy":
        np.save(buffer, values)
    else:
        Image.fromarray(tile(values, columns)).save(buffer, "PNG")
    storage.write(path, buffer.getvalue())


if __name__ == "__main__":
    command.run(main)
