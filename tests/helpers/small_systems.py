"""Systems small enough to be computed in NumPy: one for each feature of the contract."""

import contextlib
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax import config as configs
from mmjax.config import check_kwargs
from mmjax.layers.norm import unit_length
from mmjax.layers.parameters import param
from mmjax.models import systems
from mmjax.system import System, Weighted

TEMPERATURE = 0.5


def spec(**arrays):
    return {k: jax.ShapeDtypeStruct((1, *shape), dtype) for k, (shape, dtype) in arrays.items()}


@contextlib.contextmanager
def listed(name, make_system):
    """Inside, `make_system` is in the table of systems."""
    systems.SYSTEMS[name] = make_system
    try:
        yield
    finally:
        del systems.SYSTEMS[name]


def config(name, model=None, *, batch_size=8, loss=None, rate=0.1, **fields):
    """A config with plain SGD, so that an update is one line of NumPy."""
    made = configs.defaults()
    made.model = {"name": name, **(model or {})}
    made.loss = loss or {}
    made.loss_weights = {"loss": 1.0}
    made.batch_size, made.total_steps = batch_size, 20
    made.optim = {
        "name": "sgd", "momentum": 0.0, "learning_rate": rate, "schedule": "constant"
    }  # fmt: skip
    for name, value in fields.items():
        made[name] = value
    return made.lock()


# ---------------------------------------------------------------- momentum teacher and queue


class Towers(nn.Module):
    """x, y [B, D] -> unit vectors, each by a matrix."""

    width: int = 4

    @nn.compact
    def __call__(self, batch, *, train=False):
        outputs = {}
        for name in ("x", "y"):
            shape = (batch[name].shape[-1], self.width)
            kernel = param(self, f"{name}_kernel", nn.initializers.normal(1), shape, (None, None))
            outputs[f"{name}_embed"] = unit_length(jnp.matmul(batch[name], kernel))
        return outputs


def make_queue_system(config):
    """Contrast with the teacher's embedding of the pair and a queue of earlier ones (MoCo)."""
    queue, width, dim = (config["model"][k] for k in ("queue", "width", "dim"))

    def memory():
        rows = jax.random.normal(jax.random.key(1), (2, queue, width))
        rows /= jnp.linalg.norm(rows, axis=-1, keepdims=True)
        box = functools.partial(nn.LogicallyPartitioned, names=("queue", None))
        return {"queue": {"x": box(rows[0]), "y": box(rows[1])}}

    def loss(outputs, batch, context):
        total = jnp.zeros(len(batch["x"]))
        for own, other in (("x", "y"), ("y", "x")):
            positive = context.teacher[f"{other}_embed"]
            near = jnp.sum(outputs[f"{own}_embed"] * positive, 1, keepdims=True)
            far = outputs[f"{own}_embed"] @ context.memory["queue"][other].T
            logits = jnp.concatenate([near, far], 1) / TEMPERATURE
            total += jax.nn.logsumexp(logits, 1) - logits[:, 0]
        return {"loss": total / 2}

    def remember(memory, outputs, batch, context):
        new = {
            k: jnp.concatenate([context.teacher[f"{k}_embed"], old])[: len(old)]
            for k, old in memory["queue"].items()
        }
        return {"queue": new}

    def check_source(source):
        examples = len(source)
        if queue > examples:
            raise ValueError(
                f"config.model.queue is {queue} and config.data.train has {examples} examples: a "
                "queue longer than the data holds an example and itself; lower it."
            )

    return System(
        model=Towers(width),
        spec=spec(x=((dim,), jnp.float32), y=((dim,), jnp.float32)),
        loss=loss,
        memory=memory,
        remember=remember,
        check_source=check_source,
    )


# ---------------------------------------------------------------- denoiser


class Denoiser(nn.Module):
    """noisy [B, D], time [B] -> prediction of the noise, linear in both."""

    @nn.compact
    def __call__(self, batch, *, train=False):
        x = batch["noisy"] if "noisy" in batch else batch["x"]
        kernel = param(self, "kernel", nn.initializers.zeros, (x.shape[-1],) * 2, (None, None))
        return {"prediction": x @ kernel}


def make_denoiser(config):
    """x + time * noise -> noise; both drawn by `corrupt`, from each row's own key."""
    dim = config["model"]["dim"]

    def corrupt(batch, context):
        def draw(key):
            time, noise = jax.random.split(key)
            return jax.random.uniform(time), jax.random.normal(noise, (dim,))

        time, noise = jax.vmap(draw)(context.rng)
        noisy = batch["x"] + time[:, None] * noise
        return {**batch, "time": time, "noise": noise, "noisy": noisy}

    def loss(outputs, batch, context):
        return {"loss": jnp.square(outputs["prediction"] - batch["noise"]).mean(1)}

    return System(model=Denoiser(), spec=spec(x=((dim,), jnp.float32)), loss=loss, corrupt=corrupt)


# ---------------------------------------------------------------- codebook with EMA updates

KEEP, SMALL = 0.8, 1e-5


class Quantized(nn.Module):
    """x [B, L, D] -> latents, and the nearest code of each."""

    codes: int

    @nn.compact
    def __call__(self, batch, *, train=False):
        width = batch["x"].shape[-1]
        kernel = param(self, "kernel", nn.initializers.orthogonal(), (width, width), (None, None))
        latents = batch["x"] @ kernel

        def book():
            return jax.random.normal(jax.random.key(3), (self.codes, width))

        codebook = self.variable("codebook", "codes", book).value
        self.variable("codebook", "count", jnp.ones, self.codes)
        self.variable("codebook", "sum", book)
        distance = jnp.square(latents[:, :, None] - codebook[None, None]).sum(-1)
        nearest = distance.argmin(-1).astype(jnp.int32)
        quantized = codebook[nearest]
        straight = latents + jax.lax.stop_gradient(quantized - latents)
        return {"latents": latents, "nearest": nearest, "decoded": straight}


def make_vq_system(config):
    """Straight-through reconstruction and commitment; the codes follow their latents' mean."""
    codes, length, dim = (config["model"][k] for k in ("codes", "length", "dim"))

    def loss(outputs, batch, context):
        quantized = context.memory["codebook"]["codes"][outputs["nearest"]]
        reconstruction = jnp.square(outputs["decoded"] - batch["x"]).mean((1, 2))
        commitment = jnp.square(outputs["latents"] - quantized).mean((1, 2))
        return {"loss": reconstruction + 0.25 * commitment}

    def remember(memory, outputs, batch, context):
        old = memory["codebook"]
        chosen = jax.nn.one_hot(outputs["nearest"].reshape(-1), codes)
        latents = jax.lax.stop_gradient(outputs["latents"]).reshape(-1, dim)
        count = KEEP * old["count"] + (1 - KEEP) * chosen.sum(0)
        total = KEEP * old["sum"] + (1 - KEEP) * chosen.T @ latents
        return {
            "codebook": {"codes": total / (count[:, None] + SMALL), "count": count, "sum": total}
        }

    return System(
        model=Quantized(codes),
        spec=spec(x=((length, dim), jnp.float32)),
        loss=loss,
        remember=remember,
    )


# ---------------------------------------------------------------- batch norm


class Normed(nn.Module):
    """x [B, D] -> logits of two classes, by Linen's own BatchNorm."""

    @nn.compact
    def __call__(self, batch, *, train=False):
        x = nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            use_bias=False,
            use_scale=False,
            name="norm",
        )(batch["x"])
        kernel = param(self, "kernel", nn.initializers.ones, (x.shape[-1],), (None,))
        return {"score": x @ kernel}


def make_batch_norm(config):
    def loss(outputs, batch, context):
        return {"loss": jnp.square(outputs["score"] - batch["target"])}

    return System(
        model=Normed(),
        spec=spec(x=((config["model"]["dim"],), jnp.float32), target=((), jnp.float32)),
        loss=loss,
        mutable=("batch_stats",),
        couples_rows="batch norm uses the mean of the batch",
    )


# ---------------------------------------------------------------- outputs of every kind


class Outputs(nn.Module):
    """x [B, D] -> y [B], and whatever else `extra` names."""

    extra: str = ""

    @nn.compact
    def __call__(self, batch, *, train=False):
        x = batch["x"]
        scale = param(self, "scale", nn.initializers.ones, (), ())
        kernel = param(self, "kernel", nn.initializers.ones, (x.shape[-1],), (None,))
        y = x @ kernel
        kinds = {
            "bool": lambda: x[:, 0] > 0,
            "int": lambda: jnp.argmax(x, 1).astype(jnp.int32),
            "scalar": lambda: jax.nn.softplus(scale),
            "batch_mean": lambda: y.mean(),
            "table": lambda: x[:4].T @ x[:4],
            "vector": lambda: x.mean(0),
            "similarity": lambda: x @ x.T,
            "looped": lambda: jax.lax.fori_loop(0, 2, lambda i, c: c + y.sum(), 0.0 * scale),
        }
        extra = {self.extra: kinds[self.extra]()} if self.extra else {}
        return {"y": y * scale, **extra}


def make_outputs(config):
    def loss(outputs, batch, context):
        value = jnp.square(outputs["y"] - 1)
        if "scalar" in outputs:
            value *= outputs["scalar"]
        weight = outputs.get("bool", jnp.ones(len(value), bool))
        return {"loss": Weighted(value, weight)}

    fields = check_kwargs(Outputs, {k: v for k, v in config["model"].items() if k != "dim"}, "")
    dim = config["model"]["dim"]
    return System(model=Outputs(**fields), spec=spec(x=((dim,), jnp.float32)), loss=loss)
