"""OWL-ViT and OWLv2: a CLIP whose image tokens each predict a box, classified by text queries."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from mmjax.batch import Batch, Spec
from mmjax.config import check_kwargs
from mmjax.layers.detection import MLPHead, QueryClassHead, corners, grid_bias
from mmjax.layers.linear import Linear
from mmjax.layers.norm import LayerNorm
from mmjax.losses.detection import detection_loss
from mmjax.models.build import build, of_kind
from mmjax.models.clip import CLIP, limits
from mmjax.models.vilt import inner_tokens
from mmjax.models.vit import ViT
from mmjax.sharding import shard
from mmjax.system import Context, Outputs, System, Terms


class OWLViT(CLIP):
    """Boxes of what text queries or query embeddings describe, one box per image token.

    A batch with `image` [B, H, W, 3] gives, for the P patches of the image,
      pred_boxes [B, P, 4]: (x0, y0, x1, y1), fractions of the sides, which may exceed them a bit,
      class_embed [B, P, E]: what is compared with queries, not normalized,
      objectness_logits [B, P], with `objectness`,
    and, as in a CLIP, image_features, image_embed. With queries it also gives
      query_logits [B, P, Q], whose sigmoids are the scores of the queries.
    With `text_tokens` and `text` also word_logits [B, P, Q, L], of each token of the queries.
    Queries are `text` [B, Q, L] with `text_mask` [B, Q, L], of which those without any token are
    padding, and give text_embed [B, Q, E]; or `query_embed` [B, Q, E], class_embed of other images
    or text_embed of an earlier call, with or without `query_mask` [B, Q].

    Its parameters are those of a CLIP and of the heads, so that `init_from` reads one.

    Attributes:
      image: fields of `ViT`; pool is "cls_tokens".
      objectness: a head for the probability that a token is any object, as in OWLv2; it trains
        without changing the tokens (scenic, projects/owl_vit/models.py, stop_gradient). Its target
        is ours, as the released code has no loss of it: see `detection_loss`. All tokens train,
        where OWLv2 may take those of the highest objectness.
      prior_prob: initial score of every query.
      queries, boxes: those of an image in training, padding included.
      text_tokens: also compare the boxes with each word of the queries, as in GLIP, for the loss
        `region_words`; the queries' own logits stay what is detected by.

    Source: OWL-ViT, Minderer et al. 2022 (arXiv 2205.06230), section 3; OWLv2, Minderer et al. 2023
    (arXiv 2306.09683), section 3 and appendix.
    """

    objectness: bool = False
    prior_prob: float = 0.01
    queries: int = 100
    boxes: int = 100

    def image_tower(self, **kwargs) -> ViT:
        """The image encoder that `image` describes.

        Raises:
          ValueError: an unknown setting, another kind of encoder, or another pool.
        """
        fields = {"dtype": self.dtype, "kind": "vit", "pool": "cls_tokens", **self.image}
        if fields["pool"] != "cls_tokens":
            raise ValueError(
                "An OWL-ViT reads the class token and the patches of its image: remove pool from "
                "config.model.image."
            )
        return of_kind({"vit": ViT}, fields, "config.model.image", **kwargs)

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        given, mask = dict(batch), batch.get("query_mask")
        if "text" in batch:
            mask = batch["text_mask"].any(-1)
            for name in ("text", "text_mask"):
                given[name] = rearrange(batch[name], "b q l -> (b q) l")
        outputs = super().__call__(given, train=train)
        if "text" in batch:
            for name in ("text_features", "text_embed"):
                outputs[name] = rearrange(outputs[name], "(b q) e -> b q e", q=mask.shape[1])
        words = self._words(outputs, batch) if self.text_tokens and "text" in batch else None
        if "image" in batch:
            queries = batch.get("query_embed", outputs.get("text_embed"))
            outputs |= self._detect(batch["image"].shape[1:3], outputs, queries, mask, words)
        return outputs

    def _words(self, outputs: dict[str, jax.Array], batch: Batch) -> jax.Array:
        """[B, Q, L, E] of the queries' tokens, which it takes out of outputs."""
        project = Linear((self.embed_dim,), ("embed", "joint"), use_bias=False, name="word_proj")
        words = project(outputs.pop("text_tokens"))
        return rearrange(words, "(b q) l e -> b q l e", q=batch["text"].shape[1])

    def _detect(self, size, outputs, queries, mask, words=None) -> dict[str, jax.Array]:
        """The outputs of the heads, for an image of that size; takes image_tokens out of outputs.
        Words [B, Q, L, E] are further queries of the same head.

        Each patch is multiplied by the class token, of which CLIP's training has made a summary
        of the image.
        """
        tower = self.image_tower(parent=None)
        patch = tower.sizes["patch_size"]
        x, features = outputs.pop("image_tokens"), outputs["image_features"]
        x = x * features[:, None].astype(x.dtype)
        x = LayerNorm(tower.norm_epsilon, self.dtype, name="merge_norm")(x)
        x = shard(x, "batch", "length", "act_embed")
        bias = grid_bias(*(side // patch for side in size))
        boxes = MLPHead(4, self.dtype, name="box_head")(x) + jnp.asarray(bias)[None]
        found = {"pred_boxes": corners(jax.nn.sigmoid(boxes))}
        if self.objectness:
            head = MLPHead(1, self.dtype, name="objectness_head")
            found["objectness_logits"] = head(jax.lax.stop_gradient(x))[..., 0]
        head = QueryClassHead(self.embed_dim, self.prior_prob, name="class_head")
        if words is not None:
            count, length = queries.shape[1], words.shape[2]
            queries = jnp.concatenate([queries, rearrange(words, "b q l e -> b (q l) e")], axis=1)
            mask = jnp.concatenate([mask, jnp.repeat(mask, length, axis=1)], axis=1)
            found["class_embed"], logits = head(x, queries, mask)
            found["word_logits"] = rearrange(logits[..., count:], "b p (q l) -> b p q l", l=length)
            return found | {"query_logits": logits[..., :count]}
        found["class_embed"], logits = head(x, queries, mask)
        return found if logits is None else found | {"query_logits": logits}


def make_model(config: Mapping[str, Any]) -> OWLViT:
    """The detector that `config.model` describes. See `build`.

    Raises:
      ValueError: a wrong setting, or features that are given instead of images or texts.
    """
    model = build(OWLViT, config, "image_tower", "text_tower")
    if model.given:
        raise ValueError("An OWL-ViT reads images and texts: remove config.model.given.")
    return model


def make_system(config: Mapping[str, Any]) -> System:
    """OWL-ViT with the losses of `detection_loss`; `config.loss` may set `alpha` and `gamma`.

    Raises:
      ValueError: an unknown setting.
    """
    model = make_model(config["model"])
    settings = check_kwargs(focal_loss, config["loss"], "config.loss")
    return System(
        model=model,
        spec=spec(model),
        loss=focal_loss(**settings),
        limits=limits(model),
        check_batch=check_boxes,
        evaluators={"focal": {"kind": "detection"}},
    )


def focal_loss(alpha: float = 0.3, gamma: float = 2.0) -> Callable[..., Terms]:
    """The loss function for these settings of `config.loss`; see `detection_loss`."""

    def loss(outputs: Outputs, batch: Batch, context: Context) -> Terms:
        del context
        return detection_loss(
            outputs["query_logits"],
            outputs["pred_boxes"],
            batch["boxes"],
            batch["box_label"],
            batch["boxes_mask"],
            batch["text_mask"].any(-1),
            outputs.get("objectness_logits"),
            alpha,
            gamma,
            outputs.get("word_logits"),
            inner_tokens(batch["text_mask"]) if "word_logits" in outputs else None,
        )

    return loss


def check_boxes(batch: Batch) -> None:
    """Raise ValueError for boxes on the host that are out of the image or of no valid query."""
    mask = np.asarray(batch["boxes_mask"])
    boxes, label = np.asarray(batch["boxes"])[mask], np.asarray(batch["box_label"])[mask]
    ordered = (boxes[:, :2] <= boxes[:, 2:]).all(-1)
    wrong = ~(ordered & (boxes >= 0).all(-1) & (boxes <= 1).all(-1))  # NaN, too
    if wrong.any():
        raise ValueError(
            f"The batch has the box {boxes[wrong][0].tolist()}: boxes are (x0, y0, x1, y1) as "
            "fractions of the image's sides, from 0 to 1; clip them in config.data.transform."
        )
    queries = np.asarray(batch["text_mask"]).any(-1)
    rows = np.nonzero(mask)[0]
    known = (label >= 0) & (label < queries.shape[1])
    known[known] = queries[rows[known], label[known]]
    if not known.all():
        raise ValueError(
            f"The batch has a box of query {label[~known][0]}, and its image has "
            f"{queries[rows[~known][0]].sum()} queries: make box_label and text in one step."
        )


def spec(model: OWLViT) -> Spec:
    """The arrays that the model and its loss need, for a batch of one."""
    text = (model.queries, model.text_tower(parent=None).length)
    arrays = {
        "image": ((*model.image_tower(parent=None).train_size, 3), jnp.uint8),
        "text": (text, jnp.int32),
        "text_mask": (text, jnp.bool_),
        "boxes": ((model.boxes, 4), jnp.float32),
        "boxes_mask": ((model.boxes,), jnp.bool_),
        "box_label": ((model.boxes,), jnp.int32),
    }
    return {k: jax.ShapeDtypeStruct((1, *shape), dtype) for k, (shape, dtype) in arrays.items()}
