"""SAM, the Segment Anything Model: masks of what points, boxes and rough masks mean."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.batch import Batch, Spec
from mmjax.config import check_kwargs
from mmjax.layers.stack import REMAT
from mmjax.losses.segmentation import ambiguous_mask_loss, mask_iou
from mmjax.models.build import build
from mmjax.models.sam_clicks import (
    central_click,
    error_click,
    noisy_boxes,
    shrink,
    uniform_click,
)
from mmjax.models.sam_encoder import WindowedViT
from mmjax.models.sam_masks import (
    BOTTOM_RIGHT,
    NO_POINT,
    OBJECT,
    TOP_LEFT,
    MaskHead,
)
from mmjax.system import BUFFERS, Context, Outputs, System, Terms, Weighted

PAUSES = 2  # rounds of training without a new click


class SAM(nn.Module):
    """Images and prompts -> logits of masks.

    A batch has `image` [B, S, S, 3], perhaps with `image_size` [B, 2], or the `image_embedding`
    [B, h, w, D] that an image alone gives. With prompts for M objects per image,

        prompt_points [B, M, P, 2]      (x, y) as fractions of S, of a pixel's top left corner
        prompt_labels [B, M, P] int32   1 on the object, 0 beside it, -1 no point, -10 padding
        prompt_boxes  [B, M, 4]         (x0, y0, x1, y1), likewise
        prompt_masks  [B, M, 4h, 4w]    logits, such as those of an earlier call

    it gives `mask_logits` [B, M, 1 + 3, 4h, 4w] and `iou` [B, M, 1 + 3], the predicted IoU of each:
    the first for several prompts of one object, the others for a prompt that may mean several.

    With objects, `masks` [B, M, S, S], it simulates clicks on them, each where the last mask is
    wrong. In training (after `corrupt`, which draws the random numbers) it gives `mask_logits` and
    `iou` of the first prompt, and `refined_logits` [B, M, R, 4h, 4w] and `refined_iou` [B, M, R] of
    the R rounds that follow; otherwise `click_iou` [B, M, K], the IoU after 1 to K clicks, each in
    the middle of what is wrong.

    Attributes:
      image: fields of `WindowedViT`; decoder: fields of `MaskHead`; they inherit `dtype`. `remat`
        of the decoder is that of a round.
      objects: M in training.
      clicks: clicks in training after the first prompt. Two more rounds have no new click: the last
        and a random one. 0: only the first prompt.
      test_clicks: K.

    Source: Kirillov et al. 2023 (arXiv 2304.02643), section 3 and appendix A.
    """

    image: Mapping[str, Any]
    decoder: Mapping[str, Any]
    objects: int = 64
    clicks: int = 8
    test_clicks: int = 8
    dtype: str = "float32"

    @property
    def rounds(self) -> int:
        """Rounds of training after the first prompt."""
        return self.clicks + PAUSES if self.clicks else 0

    def encoder(self, **kwargs) -> WindowedViT:
        """The image encoder that `image` describes."""
        fields = {"dtype": self.dtype, **self.image}
        return WindowedViT(**check_kwargs(WindowedViT, fields, "config.model.image"), **kwargs)

    def head(self, **kwargs) -> MaskHead:
        """The prompt encoder and mask decoder that `decoder` describes."""
        fields = {"dtype": self.dtype, **self.decoder}
        return MaskHead(**check_kwargs(MaskHead, fields, "config.model.decoder"), **kwargs)

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        encoder, head = self.encoder(name="image"), self.head(name="masks")
        if "image_embedding" in batch:
            embedding = batch["image_embedding"]
        else:
            embedding = encoder(batch["image"], batch.get("image_size"), train=train)
        if "masks" in batch:
            target = shrink(batch["masks"], 4 * encoder.side)
            if "draw_pixels" in batch:
                return self._train_rounds(head, embedding, target, batch)
            return self._test_rounds(head, embedding, target, batch["masks"])
        if not any(name.startswith("prompt_") for name in batch):
            return {"image_embedding": embedding}
        points, labels = self._prompts(batch)
        logits, iou = head(embedding, points, labels, batch.get("prompt_masks"))
        return {"image_embedding": embedding, "mask_logits": logits, "iou": iou}

    def _prompts(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """The tokens of a batch's prompts: places [B, M, T, 2] and labels [B, M, T].

        Points without a box are followed by one that is no point, as in training.
        """
        half = 0.5 / self.encoder(parent=None).image_size  # to the middle of the pixel
        points, labels = [], []
        if "prompt_points" in batch and batch["prompt_points"].shape[2]:
            points.append(batch["prompt_points"] + half)
            labels.append(batch["prompt_labels"])
        if "prompt_boxes" in batch:
            corners, kinds = _corners(batch["prompt_boxes"] + half)
            points.append(corners)
            labels.append(kinds)
        elif points:
            points.append(jnp.zeros_like(points[0][:, :, :1]))
            labels.append(jnp.full_like(labels[0][:, :, :1], NO_POINT))
        if not points:
            some = next(x for k, x in batch.items() if k.startswith("prompt_"))
            points.append(jnp.zeros((*some.shape[:2], 0, 2), jnp.float32))
            labels.append(jnp.zeros((*some.shape[:2], 0), jnp.int32))
        return jnp.concatenate(points, axis=2), jnp.concatenate(labels, axis=2)

    def _train_rounds(
        self, head: MaskHead, embedding: jax.Array, target: jax.Array, batch: Batch
    ) -> dict[str, jax.Array]:
        """The outputs of training: see the class."""
        draws, pixels = batch["draw_pixels"], self.encoder(parent=None).image_size
        at, label, there = error_click(
            jnp.full(target.shape, -1.0),
            target,
            functools.partial(uniform_click, draw=draws[..., 0]),
        )
        boxes = noisy_boxes(batch["boxes"], batch["draw_noise"], pixels) + 0.5 / pixels
        corners, kinds = _corners(boxes)
        no_point = jnp.stack([jnp.zeros_like(at), at], axis=2)
        only = jnp.stack([jnp.full_like(label, NO_POINT), jnp.full_like(label, OBJECT)], axis=2)
        is_box = batch["draw_box"][..., None]
        prompt = (
            jnp.where(is_box[..., None], corners, no_point),
            jnp.where(is_box, kinds, only),
            jnp.stack([jnp.ones_like(there), there | is_box[..., 0]], axis=2),
        )
        logits, iou = head(embedding, *prompt[:2], None, prompt[2])
        outputs = {"mask_logits": logits, "iou": iou}
        if not self.rounds:
            return outputs
        step = jnp.arange(1, self.rounds + 1)
        paused = (step[:, None] == batch["draw_pause"][None]) | (step[:, None] == self.rounds)
        draws = jnp.moveaxis(draws[..., 1:], -1, 0)
        found = self._refine(
            head, embedding, target, prompt, _best(logits, iou), (step, draws, paused)
        )
        names = ("refined_logits", "refined_iou")
        return outputs | {k: jnp.moveaxis(x, 0, 2) for k, x in zip(names, found)}

    def _test_rounds(
        self, head: MaskHead, embedding: jax.Array, target: jax.Array, masks: jax.Array
    ) -> dict[str, jax.Array]:
        """`click_iou`, and the logits of the last mask: see the class."""
        at, label, there = error_click(jnp.full(target.shape, -1.0), target, central_click)
        prompt = (
            jnp.stack([jnp.zeros_like(at), at], axis=2),
            jnp.stack([jnp.full_like(label, NO_POINT), jnp.full_like(label, OBJECT)], axis=2),
            jnp.stack([jnp.ones_like(there), there], axis=2),
        )
        logits, iou = head(embedding, *prompt[:2], None, prompt[2])
        best = _best(logits, iou)[None]
        if self.test_clicks > 1 or self.is_initializing():
            step = jnp.arange(1, max(2, self.test_clicks))
            none = jnp.zeros((len(step), *target.shape[:2]), jnp.float32)
            paused = jnp.zeros((len(step), len(target)), bool)
            given = (step, none, paused)
            refined, _ = self._refine(head, embedding, target, prompt, best[0], given, test=True)
            best = jnp.concatenate([best, refined])

        def at_full_size(logits):
            wide = jax.image.resize(logits, masks.shape, "bilinear")
            return mask_iou(wide > 0, masks)

        ious = jax.lax.map(at_full_size, best)
        return {"click_iou": jnp.moveaxis(ious, 0, -1), "clicked_logits": best[-1]}

    def _refine(self, head, embedding, target, prompt, logits, given, test: bool = False):
        """Logits [R, B, M, h, w] and IoUs [R, B, M] of rounds, each with the logits of the last as
        a prompt and, unless it is a pause, with a click where they are wrong.

        Args:
          prompt: places, labels and validity of the first prompt's tokens.
          given: number [R], draws [R, B, M] and pause [R, B] of each round.
        """
        rounds = len(given[0])

        def longer(x):
            return jnp.pad(x, [(0, 0), (0, 0), (0, rounds), *[(0, 0)] * (x.ndim - 3)])

        def one(head, carry, x):
            (points, labels, valid), logits = carry
            step, draws, paused = x
            click = central_click if test else functools.partial(uniform_click, draw=draws)
            at, label, wrong = error_click(logits, target, click)
            slot = 1 + step
            points, labels, valid = (
                jax.lax.dynamic_update_slice_in_dim(old, new[:, :, None], slot, 2)
                for old, new in (
                    (points, at),
                    (labels, label),
                    (valid, wrong & ~paused[:, None]),
                )
            )
            found, iou = head(embedding, points, labels, logits, valid)
            # Rounds teach no earlier ones: what they get from them is data.
            logits = jax.lax.stop_gradient(found[:, :, 0])
            return ((points, labels, valid), logits), (found[:, :, 0], iou[:, :, 0])

        if head.remat != "none":
            one = nn.remat(one, policy=REMAT[head.remat], prevent_cse=False)
        start = jax.tree.map(longer, prompt), jax.lax.stop_gradient(logits)
        scan = nn.scan(
            one, variable_broadcast=("params", BUFFERS), split_rngs={"params": False}, length=rounds
        )
        return scan(head, start, given)[1]


def _corners(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Boxes [B, M, 4] as tokens: places [B, M, 2, 2] and labels [B, M, 2]."""
    corners = boxes.reshape(*boxes.shape[:2], 2, 2)
    kinds = jnp.asarray([TOP_LEFT, BOTTOM_RIGHT], jnp.int32).reshape(1, 1, 2)
    return corners, jnp.broadcast_to(kinds, corners.shape[:3])


def _best(logits: jax.Array, iou: jax.Array) -> jax.Array:
    """[B, M, h, w]: of the masks for an ambiguous prompt the one with the highest IoU."""
    index = iou[:, :, 1:].argmax(-1)[:, :, None, None, None]
    return jnp.take_along_axis(logits[:, :, 1:], index, axis=2)[:, :, 0]


def make_system(config: Mapping[str, Any]) -> System:
    """SAM with its interactive training; `config.loss` may set `focal` and `dice`, see
    `segmentation`.

    Raises:
      ValueError: an unknown setting, or inconsistent ones.
    """
    model = build(SAM, config["model"], "encoder", "head")
    model.encoder(parent=None).check()
    if model.objects < 1 or model.clicks < 0 or model.test_clicks < 1:
        raise ValueError(
            f"config.model has objects {model.objects}, clicks {model.clicks} and test_clicks "
            f"{model.test_clicks}: use at least 1, 0 and 1."
        )
    return System(
        model=model,
        spec=spec(model),
        loss=segmentation(**check_kwargs(segmentation, config["loss"], "config.loss")),
        corrupt=functools.partial(draw_prompts, rounds=model.rounds),
        check_batch=check_objects,
        evaluators={"mask": {"kind": "clicks"}},
    )


def spec(model: SAM) -> Spec:
    """The arrays that the model and its loss need, for a batch of one."""
    side, objects = model.encoder(parent=None).image_size, model.objects
    arrays = {
        "image": ((side, side, 3), jnp.uint8),
        "image_size": ((2,), jnp.int32),
        "masks": ((objects, side, side), jnp.bool_),
        "boxes": ((objects, 4), jnp.float32),
        "boxes_mask": ((objects,), jnp.bool_),
    }
    return {k: jax.ShapeDtypeStruct((1, *shape), dtype) for k, (shape, dtype) in arrays.items()}


def draw_prompts(batch: Batch, context: Context, rounds: int) -> Batch:
    """The batch with all random numbers of its prompts.

    For each object: `draw_box` [B, M], whether the first prompt is a box; `draw_noise` [B, M, 4],
    of the box; `draw_pixels` [B, M, 1 + rounds], which pixel is clicked; and for each image
    `draw_pause` [B] int32, the round without a click, from 1 to rounds - 1.
    """
    objects = batch["masks"].shape[1]

    def row(key):
        box, noise, pixels, pause = (jax.random.fold_in(key, i) for i in range(4))
        return {
            "draw_box": jax.random.bernoulli(box, 0.5, (objects,)),
            "draw_noise": jax.random.normal(noise, (objects, 4)),
            "draw_pixels": jax.random.uniform(pixels, (objects, 1 + rounds)),
            "draw_pause": jax.random.randint(pause, (), 1, max(2, rounds)),
        }

    return {**batch, **jax.vmap(row)(context.rng)}


def segmentation(focal: float = 20.0, dice: float = 1.0) -> Callable[..., Terms]:
    """The loss for these settings of `config.loss`, the factors of the losses of a mask.

    It gives per image, over its objects: `mask`, the mean over the rounds of the loss of the mask
    (of the best of three in the first, see `ambiguous_mask_loss`); `iou`, that of the error of the
    predicted IoU; and the IoUs of the first and the last mask, `first_iou` and `last_iou`. An
    object is left out that the resolution of the masks does not show.
    """

    def loss(outputs: Outputs, batch: Batch, context: Context) -> Terms:
        del context
        logits, iou = outputs["mask_logits"][:, :, 1:], outputs["iou"][:, :, 1:]
        target = shrink(batch["masks"], logits.shape[-1])
        counted = (batch["boxes_mask"] & target.any((-2, -1))).astype(jnp.float32)
        factors = {"focal": focal, "dice": dice}
        mask, error, first = ambiguous_mask_loss(logits, iou, target, **factors)
        last = first
        if "refined_logits" in outputs:
            logits, iou = outputs["refined_logits"], outputs["refined_iou"]
            every = jnp.broadcast_to(target[:, :, None], logits.shape)
            more = ambiguous_mask_loss(logits[:, :, :, None], iou[..., None], every, **factors)
            mask, error = (
                jnp.concatenate([a[..., None], b], axis=-1).mean(-1)
                for a, b in zip((mask, error), more)
            )
            last = more[2][..., -1]
        count = counted.sum(1)
        terms = {"mask": mask, "iou": error, "first_iou": first, "last_iou": last}
        return {
            k: Weighted((x * counted).sum(1) / jnp.maximum(count, 1.0), count)
            for k, x in terms.items()
        }

    return loss


def check_objects(batch: Batch) -> None:
    """Raise ValueError for a batch on the host with an object whose box is empty."""
    boxes, valid = np.asarray(batch["boxes"]), np.asarray(batch["boxes_mask"])
    empty = valid & ~(boxes[..., 2:] > boxes[..., :2]).all(-1)
    if empty.any():
        row, place = np.argwhere(empty)[0]
        raise ValueError(
            f"Object {place} of row {row} of the batch has the empty box "
            f"{[round(float(x), 4) for x in boxes[row, place]]}: a box is (x0, y0, x1, y1) with "
            "x0 < x1 and y0 < y1; leave the object out, with boxes_mask false."
        )
