"""Toy-sized runs for the tests: a random batch for a config of `toy_config`, a run on any mesh."""

import drawn as draws
import jax
import numpy as np
from toy_config import IMAGE as IMAGE
from toy_config import TEXT
from toy_config import TOWER as TOWER
from toy_config import config as config
from toy_config import shrink as shrink

from mmjax import sharding
from mmjax.run import experiment
from mmjax.system import average, seed_data

ONE = {"data": 1, "fsdp": 1, "tensor": 1}
MESHES = {
    "data=8": {"data": 8, "fsdp": 1, "tensor": 1},
    "data=4,fsdp=2": {"data": 4, "fsdp": 2, "tensor": 1},
    "data=2,fsdp=2,tensor=2": {"data": 2, "fsdp": 2, "tensor": 2},
}


def batch(config, seed=0):
    """A random batch for the config: images, texts of many lengths, soft labels."""
    rng, size = np.random.default_rng(seed), config.batch_size
    if config.model.name == "clap":
        return _sounds(config, rng)
    if config.model.name == "aligner":
        widths = {m: config.model[f"{m}_width"] for m in ("image", "text")}
        out = {f"{m}_features": rng.normal(size=(size, w)) for m, w in widths.items()}
        out = {k: x.astype(np.float32) for k, x in out.items()}
        return out | {"example_id": np.arange(size, dtype=np.int32)}
    if config.model.name == "audioclip":
        return _triplets(config, rng)
    if config.model.name == "audio_classifier":
        out = {"audio": rng.normal(size=(size, 8, 4)).astype(np.float32)}
        classes = config.model.num_classes
        if config.loss.get("independent"):
            return out | {"label_probs": (rng.random((size, classes)) < 0.1).astype(np.float32)}
        return out | {"label": rng.integers(0, classes, size, np.int32)}
    if config.model.name in ("video_vit", "video_vq", "videobert"):
        return _videos(config, rng)
    if config.model.name == "sam":
        return _objects(config, rng)
    out = {"image": rng.integers(0, 256, (size, 8, 8, 3), np.uint8)}
    if "text" in config.model.get("main", config.model):
        out |= _texts(rng, size)
        mask = out["text_mask"]
    if config.model.name == "clip" and config.model.image.get("kind") == "frames":
        out["image"] = rng.integers(0, 256, (size, 2, 8, 8, 3), np.uint8)
        out["image_mask"] = np.arange(2)[None] < rng.integers(1, 3, size)[:, None]
    if config.model.name == "clip" and config.model.image.get("kind") == "naflex":
        out["image"] = rng.integers(0, 256, (size, 6, 48), np.uint8)
        out["image_grid"] = rng.integers(1, (3, 4), (size, 2), np.int32)
    if config.model.name == "owlvit":
        return out | _regions(rng, size)
    if config.model.name == "diffusion":
        if config.model.get("latents"):
            out = {"latents": rng.normal(size=(size, 8, 8, 4)).astype(np.float32)}
        return out | {"label": rng.integers(0, config.model.num_classes, size, np.int32)}
    if config.model.name == "whisper":
        out["audio"] = rng.normal(size=(size, 12, 4)).astype(np.float32)
    if config.model.name == "relation_network":
        out |= _texts(rng, size)
        return out | {"label": rng.integers(0, config.model.answers, size, np.int32)}
    if config.model.name == "language_model":
        del out["image"]
    if config.model.name == "avsr":
        del out["image"]
        frames = np.arange(6)[None] < rng.integers(3, 7, size)[:, None]
        out |= {"audio_mask": frames.repeat(4, 1), "video_mask": frames}
        out["audio"] = rng.normal(size=(size, 24, 4)).astype(np.float32)
        out["video"] = rng.integers(0, 256, (size, 6, 8, 8, 3), np.uint8)
        out |= {f"{m}_present": np.arange(size) % 4 != i for i, m in enumerate(("audio", "video"))}
        return out
    if config.model.name == "llava":
        each = 4 // config.model.projector.shuffle**2
        text = np.where(out["text"] == 63, 1, out["text"])
        text[:, 1 : 1 + each] = 63
        out["text_mask"][:, : 2 + each] = True
        shown = {"image_mask": np.ones((size, 1), bool), "text_loss_mask": out["text_mask"].copy()}
        shown["text_loss_mask"][:, : 1 + each] = False
        return out | shown | {"image": out["image"][:, None], "text": text.astype(np.int32)}
    if config.model.name == "flamingo":
        image = rng.integers(0, 256, (size, 2, 8, 8, 3), np.uint8)
        text = np.where(out["text"] == config.model.image_token, 1, out["text"])
        text[:, [0, 3]] = config.model.image_token
        shown = np.stack([np.ones(size, bool), mask[:, 3]], axis=1)
        return out | {"image": image, "image_mask": shown, "text": text.astype(np.int32)}
    if config.model.name == "flava":
        out["image_codebook"] = rng.integers(0, 256, (size, 16, 16, 3), np.uint8)
        out["image_present"] = np.arange(size) % 4 != 3
        out["text_present"] = np.arange(size) % 4 != 2
    if config.model.name in ("albef", "blip", "clip", "coca", "flava"):
        out["example_id"] = np.arange(size, dtype=np.int32)
        for key, width in config.model.get("given", {}).items():
            out[key] = rng.normal(size=(size, width)).astype(np.float32)
            kind = key.split("_")[0]
            if kind != "text" or not config.model.get("text_words"):
                out = {k: x for k, x in out.items() if k.split("_")[0] != kind or k == key}
    elif config.model.name == "vqa":
        out |= {f"{m}_present": rng.random(size) < 0.7 for m in ("image", "text")}
        out["label"] = rng.integers(0, config.model.answers, size, np.int32)
    elif config.model.name == "blip_nlvr":
        out["image"] = rng.integers(0, 256, (size, 2, 8, 8, 3), np.uint8)
        out["image_mask"] = rng.random((size, 2)) < 0.8
        out["label"] = rng.integers(0, 2, size, np.int32)
    elif config.model.name == "vilt":
        out |= {f"{m}_present": rng.random(size) < 0.8 for m in ("image", "text")}
        out["text_word"] = np.where(mask, np.arange(TEXT["length"])[None] // 2, -1).astype(np.int32)
        several = (config.model.images,) if config.model.get("images", 1) > 1 else ()
        out["image"] = rng.integers(0, 256, (size, *several, 8, 8, 3), np.uint8)
        out["image_size"] = rng.integers(1, 9, (size, *several, 2), np.int32)
        if "num_classes" in config.model:
            out["label"] = rng.integers(-1, config.model.num_classes, size, np.int32)
    elif config.model.name == "multimodal":
        if "audio" in config.model:
            out["audio"] = rng.normal(size=(size, 8, 4)).astype(np.float32)
        known = [m for m in ("image", "audio", "text") if m in out]
        out |= {f"{m}_present": rng.random(size) < 0.7 for m in known}
        out["label"] = rng.integers(0, config.model.num_classes, size, np.int32)
    elif config.model.name in ("efficientnet", "vit"):
        classes = config.model.num_classes
        out["label_probs"] = rng.dirichlet(np.ones(classes), size).astype(np.float32)
    return out


def _objects(config, rng):
    """Images with rectangles; the last object of some is missing."""
    size, side, objects = config.batch_size, config.model.image.image_size, config.model.objects
    low = rng.integers(0, side - 6, (size, objects, 2))
    high = low + rng.integers(5, 7, low.shape)
    at = np.arange(side)
    inside = (at >= low[..., None]) & (at < high[..., None])  # [B, N, x or y, side]
    return {
        "image": rng.integers(0, 256, (size, side, side, 3), np.uint8),
        "image_size": rng.integers(side - 3, side + 1, (size, 2), np.int32),
        "masks": inside[:, :, 1, :, None] & inside[:, :, 0, None],
        "boxes": (np.concatenate([low, high], -1) / side).astype(np.float32),
        "boxes_mask": np.arange(size * objects).reshape(size, objects) % 5 != 1,
    }


def _triplets(config, rng):
    """An image, a text and a sound each; some rows lack one of them."""
    size, model = config.batch_size, config.model
    side = np.max(model.image.image_size)
    out = {"image": rng.integers(0, 256, (size, side, side, 3), np.uint8), **_texts(rng, size)}
    if model.audio.get("kind") == "ast":
        shape = (size, model.audio.frames, model.audio.bins)
        out["audio"] = rng.normal(size=shape).astype(np.float32)
    else:
        out["waveform"] = rng.normal(0, 0.1, (size, model.audio.samples)).astype(np.float32)
    names = ("audio", "image", "text")
    return out | {f"{m}_present": np.arange(size) != i for i, m in enumerate(names)}


def _videos(config, rng):
    """Frames or tokens of videos of several lengths; one row of tokens has no text."""
    size, frames = config.batch_size, config.model.frames
    mask = np.arange(frames)[None] < rng.integers(1, frames + 1, size)[:, None]
    if config.model.name == "videobert":
        tokens = rng.integers(0, config.model.codes, mask.shape, np.int32) * mask
        texts = {**_texts(rng, size), "text_present": np.arange(size) != 3}
        return {"video_tokens": tokens, "video_tokens_mask": mask, **texts}
    video = rng.integers(0, 256, (*mask.shape, 8, 8, 3), np.uint8)
    out = {"video": video, "video_mask": mask}
    if "num_classes" in config.model:
        out["label"] = rng.integers(0, config.model.num_classes, size, np.int32)
    return out


def _regions(rng, size):
    """Three queries of each image, some of them padding, and up to two boxes; one has none."""
    texts = [_texts(rng, size) for _ in range(3)]
    out = {k: np.stack([x[k] for x in texts], 1) for k in texts[0]}
    queries = np.arange(3)[None] < rng.integers(2, 4, size)[:, None]
    out["text_mask"] &= queries[..., None]
    low, high = np.sort(rng.random((2, size, 2, 2)).astype(np.float32), axis=0)
    mask = np.arange(2)[None] < (np.arange(size) % 3)[:, None]
    label = np.where(mask, rng.integers(0, 2, mask.shape), -1).astype(np.int32)
    return out | {"boxes": np.concatenate([low, high], -1), "boxes_mask": mask, "box_label": label}


def _texts(rng, size):
    lengths = rng.integers(2, TEXT["length"] + 1, size)
    mask = np.arange(TEXT["length"])[None] < lengths[:, None]
    text = rng.integers(1, TEXT["vocab_size"], mask.shape, np.int32) * mask
    return {"text": text, "text_mask": mask}


def _sounds(config, rng):
    """Spectrograms in decibels, with a text each; two rows lack one of them."""
    size, audio = config.batch_size, config.model.audio
    shape = (4, audio.frames, audio.mels) if audio.get("fusion") else (audio.frames, audio.mels)
    out = {"audio": rng.normal(-30, 20, (size, *shape)).astype(np.float32), **_texts(rng, size)}
    if audio.get("fusion"):
        out["audio_longer"] = np.arange(size) % 2 == 0
    out |= {f"{m}_present": np.arange(size) != i for i, m in enumerate(("audio", "text"))}
    return out | {"example_id": np.arange(size, dtype=np.int32)}


def means(loss, outputs, batch, context=None):
    """Each term's mean over the batch, as the step computes it."""
    return {name: average(term)[0] for name, term in loss(outputs, batch, context).items()}


def build(config, mesh=None):
    """The experiment on a mesh of as many devices as its sizes say (None: one device)."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.mesh = dict(mesh or ONE)
    count = int(np.prod(list(config.mesh.values())))
    return experiment.build(config.lock(), None, jax.devices()[:count])


def put(run, batch):
    """The batch on the run's mesh."""
    return jax.device_put(batch, sharding.batch_sharding(run.mesh))


def init(run):
    """`run.init()`, but bit-identical on every mesh: see conftest.py."""
    shardings = jax.tree.map(lambda x: x.sharding, run.state)
    with jax.set_mesh(run.mesh):
        seed = seed_data(run.config.seed)
        make = jax.jit(run.make_state, out_shardings=shardings).lower(seed)
        return make.compile(compiler_options={"xla_cpu_use_fusion_emitters": True})(seed)


def drawn(run, seed=1):
    """A state of random parameters and empty moments: the same on every mesh, at once."""
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), run.state)
    params = draws.drawn(run.state.params, seed)
    state = zeros.replace(
        params=params,
        average=None if run.state.average is None else params,
        memory=draws.drawn(run.state.memory, seed),
        finite=np.asarray(True),
    )
    return jax.device_put(state, jax.tree.map(lambda x: x.sharding, run.state))


def take_steps(run, state, batches):
    """The state after one update per batch, and the scalars of each. Donates `state`."""
    history = []
    batches = [put(run, b) for b in batches]
    with jax.set_mesh(run.mesh):
        for batch in batches:
            numbers = run.numbers(int(state.step))
            state, scalars = run.train_step(state, batch, numbers)
            history.append({k: float(v) for k, v in scalars.items()})
    return state, history
