"""A relation network over the cells of a convolutional network's grid, for questions about images;
and the same convolutions with a plain MLP, which it is compared with."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from mmjax.batch import Batch
from mmjax.config import check_kwargs
from mmjax.layers.batch_norm import COUPLES_ROWS, BatchNorm
from mmjax.layers.linear import Linear, class_head
from mmjax.layers.mbconv import Convolution
from mmjax.layers.sizes import height_width
from mmjax.losses.classification import check_classes, check_labels
from mmjax.models.build import build
from mmjax.models.classification import classification
from mmjax.sharding import shard
from mmjax.system import STATISTICS, System

RELATIONS = ("pairs", "none")


class RelationNetwork(nn.Module):
    """batch["image"] [B, H, W, 3] and batch["text"] [B, L], a question -> `logits` [B, answers].

    Without one of them it gives nothing.

    The objects are the cells of the last grid with their coordinates. With relation "pairs"

        logits = f(sum over all ordered pairs (i, j) of g(object_i, object_j, question)),

    g a perceptron of four layers and f of three; with "none" f reads all cells and the question.
    The question is the set of its words, a vector of 0 and 1, which tells the questions of
    Sort-of-CLEVR apart.

    Attributes:
      channels: of each of the `layers` convolutions, 3x3 with stride 2, ReLU and batch norm.
      width: of g and f.
      dropout: before the last layer.

    Source: Santoro et al. 2017 (arXiv 1706.01427), equation 1; github.com/kimhc6028/
    relational-networks, model.py, whose convolutions are smaller than the paper's for this set.
    """

    answers: int
    vocab_size: int
    length: int
    relation: str = "pairs"
    image_size: int | tuple[int, int] = (75, 75)
    channels: int = 24
    layers: int = 4
    width: int = 256
    dropout: float = 0.5
    dtype: str = "float32"

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        if not {"image", "text"} <= batch.keys():
            return {}  # nothing is asked, or there is nothing to look at
        grid = self._convolved(batch["image"], train)
        question = self._question(batch["text"], batch.get("text_mask"))
        if self.relation == "pairs":
            x = self._related(grid, question)
        else:
            cells = rearrange(grid, "b h w c -> b (h w c)").astype(jnp.float32)
            x = jnp.concatenate([cells, question], -1)
        x = self._layer(self._layer(x, "f0"), "f1")
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return {"logits": class_head(self.answers)(x.astype(jnp.float32))}

    def _layer(self, x: jax.Array, name: str) -> jax.Array:
        return nn.relu(self._linear(name)(x))

    def _linear(self, name: str, use_bias: bool = True) -> Linear:
        init = nn.initializers.he_normal()
        return Linear((self.width,), ("embed", "mlp"), use_bias, self.dtype, init, name=name)

    def _convolved(self, image: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, 3] -> [B, h, w, channels]."""
        x = shard(image, "batch", "height", "width", "channels").astype(jnp.float32) / 255
        for i in range(self.layers):
            fields = {"use_bias": True, "dtype": self.dtype, "name": f"conv{i}"}
            x = nn.relu(Convolution(self.channels, 3, 2, **fields)(x))
            x = BatchNorm(dtype=self.dtype, name=f"norm{i}")(x, train=train)
        return x

    def _question(self, text: jax.Array, mask: jax.Array | None) -> jax.Array:
        """[B, L] -> [B, V], 1 where the question has the word."""
        words = jax.nn.one_hot(text, self.vocab_size, dtype=jnp.float32)
        if mask is not None:
            words = words * mask[..., None].astype(words.dtype)
        return words.max(axis=1)

    def _related(self, grid: jax.Array, question: jax.Array) -> jax.Array:
        """The sum of g over all pairs of cells, [B, width] float32."""
        height, width = grid.shape[1:3]
        cells = rearrange(grid, "b h w c -> b (h w) c")
        y, x = jnp.meshgrid(jnp.linspace(-1, 1, height), jnp.linspace(-1, 1, width), indexing="ij")
        places = jnp.stack([y, x], -1).reshape(1, -1, 2).astype(cells.dtype)
        places = jnp.broadcast_to(places, (*cells.shape[:2], 2))
        cells = jnp.concatenate([cells, places], -1)
        # The first layer of g is linear in (object_i, object_j, question): three small products
        # instead of one for each pair.
        first = self._linear("g_first", use_bias=False)(cells)
        second = self._linear("g_second", use_bias=False)(cells)
        asked = self._linear("g_question")(question.astype(cells.dtype))
        pairs = nn.relu(first[:, :, None] + second[:, None] + asked[:, None, None])
        pairs = rearrange(pairs, "b i j d -> b (i j) d")
        for i in range(1, 4):
            pairs = self._layer(pairs, f"g{i}")
        return pairs.astype(jnp.float32).sum(axis=1)


def make_model(config: Mapping[str, Any]) -> RelationNetwork:
    """The model that `config.model` describes.

    Raises:
      ValueError: an unknown setting or relation.
    """
    model = build(RelationNetwork, config)
    if model.relation not in RELATIONS:
        raise ValueError(f"config.model.relation is '{model.relation}'; use one of {RELATIONS}.")
    return model


def make_system(config: Mapping[str, Any]) -> System:
    """Answers to questions about images by classification; see `classification` for `config.loss`.

    Raises:
      ValueError: an unknown setting.
    """
    model = make_model(config["model"])
    head = {"classes": model.answers, "setting": "config.model.answers"}
    size = height_width(model.image_size)
    return System(
        model=model,
        spec={
            "image": jax.ShapeDtypeStruct((1, *size, 3), jnp.uint8),
            "text": jax.ShapeDtypeStruct((1, model.length), jnp.int32),
            "text_mask": jax.ShapeDtypeStruct((1, model.length), jnp.bool_),
            "label": jax.ShapeDtypeStruct((1,), jnp.int32),
        },
        loss=classification(**check_kwargs(classification, config["loss"], "config.loss")),
        mutable=(STATISTICS,),
        couples_rows=COUPLES_ROWS,
        check_batch=functools.partial(check_labels, **head),
        check_source=functools.partial(check_classes, **head),
        evaluators={"classification": {"kind": "classification", "modalities": ("image", "text")}},
    )
