"""ALBEF: image and text are aligned by contrast, then fused, with a momentum teacher's targets."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from mmjax.batch import Batch, Spec
from mmjax.config import check_kwargs
from mmjax.layers.linear import class_head
from mmjax.layers.norm import unit_length
from mmjax.layers.parameters import param
from mmjax.losses.masked import distilled_ids, mask_words
from mmjax.losses.matching import check_group, check_negatives, hard_negatives, take_rows
from mmjax.losses.momentum_contrast import push_to, queue_memory
from mmjax.models import captioner, clip
from mmjax.models.aligned_pairs import check_settings, contrast, keys_of, matching
from mmjax.models.build import build
from mmjax.models.grounded_text import GroundedText
from mmjax.models.vit import ViT
from mmjax.sample.rows import numbered
from mmjax.schedule import Schedule, schedule
from mmjax.system import Context, Memory, Outputs, System, Terms

TEMPERATURES = (0.001, 0.5)  # its range, models/model_pretrain.py of the original
NEEDS_TEACHER = (
    "An ALBEF learns from a momentum teacher: set config.ema.teacher, and config.ema.decay to such "
    "as 0.995"
)


class ALBEF(nn.Module):
    """An image encoder, a text encoder, and a fusion encoder of text that attends to the image.

    A batch with `image` gives image_tokens [B, 1 + patches, width], and image_features and
    image_embed [B, embed_dim] of the class token; one with `text` gives text_features and
    text_embed; both also give logit_scale, and together fused_features and match_logits [B, 2], the
    second for a match. `image_tokens` in the batch replace the image.

    In training the batch has what `corrupt` adds: `negative_draws` [B, 2], uniform numbers, add
    mismatch_logits [B, 2, 2], of each image with another text of the batch and of each text with
    another image, and negatives_exist [B]: see `hard_negatives`; `text_corrupted` [B, L] adds
    text_prediction [B, L, V], of that text with the image.

    Attributes:
      image: fields of `ViT`; text: fields of `GroundedText`; both inherit `dtype`.
      temperature_init: of the contrast; training keeps it in `TEMPERATURES`.
      hard_negatives: other texts and images are sampled by their similarity, else uniformly.
      negative_group: they come from as many consecutive rows; 0: from the whole batch.

    Source: Li et al. 2021 (arXiv 2107.07651), figure 1.
    """

    embed_dim: int
    image: Mapping[str, Any]
    text: Mapping[str, Any]
    temperature_init: float = 0.07
    hard_negatives: bool = True
    negative_group: int = 0
    dtype: str = "float32"

    def image_tower(self, **kwargs) -> ViT:
        """The image encoder that `image` describes.

        Raises:
          ValueError: an unknown setting, or an encoder that does not give all of its tokens.
        """
        fields = {"class_token": True, "pool": "all", **self.image}
        if fields["pool"] != "all" or not fields["class_token"]:
            raise ValueError(
                "An ALBEF uses all tokens of the image, the class token too: remove pool and "
                "class_token from config.model.image."
            )
        return captioner.image_tower(fields, self.dtype, **kwargs)

    def text_tower(self, **kwargs) -> GroundedText:
        """The text and fusion encoders that `text` describes."""
        fields = {"dtype": self.dtype, **self.text}
        fields = check_kwargs(GroundedText, fields, "config.model.text")
        tower = GroundedText(**fields, **kwargs)
        tower.check()
        return tower

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        outputs, image, text, words = {}, None, None, self.text_tower(name="text")
        if "image" in batch or "image_tokens" in batch:
            image = captioner.normed_tokens(self, batch, train)
            outputs |= self._embed(image, "image")
            outputs["image_tokens"] = image.astype(jnp.float32)
        if "text" in batch:
            text, corrupted = self._encode(words, batch, train)
            outputs |= self._embed(text, "text")
        temperature = nn.initializers.constant(self.temperature_init)
        outputs["logit_scale"] = 1 / param(self, "temperature", temperature, (), ())
        if image is not None and text is not None:
            outputs |= self._fuse(words, batch, outputs, image, text, corrupted, train)
        return outputs

    def _embed(self, tokens: jax.Array, name: str) -> dict[str, jax.Array]:
        """Class token [B, width] and its embedding [B, embed_dim] of unit length, in fp32."""
        features = tokens[:, 0].astype(jnp.float32)
        project = clip.joint_projection(features.shape[-1], self.embed_dim, True, f"{name}_proj")
        embed = unit_length(project(features))
        return {f"{name}_features": features, f"{name}_embed": embed}

    def _encode(
        self, words: GroundedText, batch: Batch, train: bool
    ) -> tuple[jax.Array, jax.Array | None]:
        """The encoded text [B, L, width], and the masked text if there is one."""
        texts = [batch["text"]]
        predicts = words.mask_token is not None and self.is_initializing()
        if "text_corrupted" in batch or predicts:
            texts.append(batch.get("text_corrupted", batch["text"]))
        mask = rearrange(jnp.stack([_text_mask(batch)] * len(texts), 1), "b n l -> (b n) l")
        rows = rearrange(jnp.stack(texts, 1), "b n l -> (b n) l")
        x = rearrange(words.encode(rows, mask, train), "(b n) l d -> n b l d", n=len(texts))
        return x[0], (x[1] if len(texts) == 2 else None)

    def _fuse(self, words, batch, outputs, image, text, corrupted, train) -> dict[str, jax.Array]:
        """The outputs that need both image [B, S, C] and text [B, L, width].

        All texts of an image are fused with it at once, so that they share its keys and values.
        """
        mask, group = _text_mask(batch), self.negative_group
        texts = {"own": (text, mask)}
        if "negative_draws" in batch:
            text_at, image_at, exists = hard_negatives(
                outputs["image_embed"],
                outputs["text_embed"],
                outputs["logit_scale"] * jnp.float32(self.hard_negatives),
                batch["negative_draws"],
                ids=clip.duplicate_ids(batch),
                present=clip.pairs_present(batch),
                group=group,
            )
            texts["other"] = tuple(take_rows(x, text_at, group) for x in (text, mask))
        if corrupted is not None:
            texts["words"] = (corrupted, mask)
        x, masks = (jnp.stack(part, 1) for part in zip(*texts.values()))
        x, masks = (rearrange(a, "b n l ... -> (b n) l ...") for a in (x, masks))
        x = words.fuse(x, masks, image, train)
        fused = dict(zip(texts, rearrange(x, "(b n) l d -> n b l d", n=len(texts))))

        head = class_head(2, "match_head")
        features = fused["own"][:, 0].astype(jnp.float32)
        found = {"fused_features": features, "match_logits": head(features)}
        if "negative_draws" in batch:
            other_image = words.fuse(text, mask, take_rows(image, image_at, group), train)
            others = jnp.stack([fused["other"][:, 0], other_image[:, 0]], 1).astype(jnp.float32)
            found |= {"mismatch_logits": head(others), "negatives_exist": exists}
        if corrupted is not None:
            found["text_prediction"] = words.words(fused["words"])
        return found


def _text_mask(batch: Batch) -> jax.Array:
    """[B, L] bool, true on tokens."""
    return batch.get("text_mask", jnp.ones(batch["text"].shape, bool))


def make_model(config: Mapping[str, Any]) -> ALBEF:
    """The model that `config.model` describes. See `build`."""
    return build(ALBEF, config, "image_tower", "text_tower")


def make_system(config: Mapping[str, Any]) -> System:
    """ALBEF with its three losses; `config.loss` has the settings of `pretraining`.

    Raises:
      ValueError: an unknown setting, or a group of negatives that the batch cannot have.
    """
    model = make_model(config["model"])
    settings = dict(config["loss"])
    queue, rate = settings.pop("queue_size", 65_536), settings.pop("mask_rate", 0.15)
    loss = pretraining(**check_kwargs(pretraining, settings, "config.loss"))
    if config.get("batch_size"):
        check_group(config["batch_size"], model.negative_group)
    check_settings(settings.get("alpha", 0.4), queue, settings.get("chunk_size", 0))
    if not 0 < rate < 1:
        raise ValueError(f"config.loss.mask_rate is {rate}: use a rate between 0 and 1.")
    return System(
        model=model,
        spec=spec(model),
        loss=loss,
        corrupt=functools.partial(corrupt, model, rate),
        memory=functools.partial(queue_memory, queue, model.embed_dim) if queue else None,
        remember=remember if queue else None,
        limits={"temperature": TEMPERATURES},
        couples_rows="negatives of the matching loss are other rows",
        needs_teacher=NEEDS_TEACHER,
        evaluators={"contrastive": {"kind": "retrieval"}},
        check_batch=functools.partial(check_batch, model.negative_group),
    )


def corrupt(model: ALBEF, rate: float, batch: Batch, context: Context) -> Batch:
    """The batch with `negative_draws` [B, 2] and, if the model predicts words, `text_corrupted` and
    `text_masked` [B, L]: BERT's corruption, of any token but the first."""
    text = model.text_tower(parent=None)
    words, negatives = (numbered(context.rng, i) for i in range(2))
    batch = {
        **batch,
        "negative_draws": jax.vmap(lambda key: jax.random.uniform(key, (2,)))(negatives),
    }
    if text.mask_token is None:
        return batch
    maskable = _text_mask(batch) & (jnp.arange(batch["text"].shape[1]) > 0)[None]
    sizes = {"vocab_size": text.vocab_size, "mask_id": text.mask_token, "rate": rate}
    corrupted, masked = mask_words(batch["text"], maskable, words, **sizes)
    return {**batch, "text_corrupted": corrupted, "text_masked": masked}


def remember(memory: Memory, outputs: Outputs, batch: Batch, context: Context) -> Memory:
    """The queue with the teacher's keys of this batch at its front."""
    del outputs
    return push_to(memory, keys_of(context.teacher, batch))


def pretraining(alpha: Schedule = 0.4, chunk_size: int = 0) -> Callable[..., Terms]:
    """The loss function for these settings of `config.loss`.

    It gives `contrastive`, `matching`, `masked_text` (if the model predicts words), accuracies
    and `logit_scale`, the inverse temperature. `config.loss` also has `queue_size`, the number
    of earlier pairs to contrast with (0: none), and `mask_rate`, with which a token is masked.

    Args:
      alpha: weight of the teacher's distribution in the targets; may be a schedule.
      chunk_size: see `momentum_contrast`.

    Source: Li et al. 2021 (arXiv 2107.07651), sections 3.2 and 3.3.
    """

    def loss(outputs: Outputs, batch: Batch, context: Context) -> Terms:
        if context.teacher is None:
            raise ValueError(f"{NEEDS_TEACHER}.")
        terms = contrast(outputs, batch, context, alpha, chunk_size) | matching(outputs, batch)
        if "text_prediction" in outputs:
            masked, present = batch["text_masked"], clip.pairs_present(batch)
            masked = masked if present is None else masked & present[:, None]
            logits, teacher = outputs["text_prediction"], context.teacher["text_prediction"]
            now = schedule(alpha, context.step)
            terms["masked_text"] = distilled_ids(logits, teacher, batch["text"], masked, now)
        return terms

    return loss


def check_batch(group: int, batch: Batch) -> None:
    """Raise ValueError for a batch on the host that has no pairs or no negatives."""
    clip.check_pairs(batch)
    check_negatives(batch["text"], group)


def spec(model: ALBEF) -> Spec:
    """The arrays that the model and its loss need, for a batch of one."""
    length = model.text_tower(parent=None).length
    arrays = {
        "image": ((*model.image_tower(parent=None).train_size, 3), jnp.uint8),
        "text": ((length,), jnp.int32),
        "text_mask": ((length,), jnp.bool_),
        "example_id": ((), jnp.int32),
    }
    return {k: jax.ShapeDtypeStruct((1, *shape), dtype) for k, (shape, dtype) in arrays.items()}
