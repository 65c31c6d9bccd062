"""Masked prediction: which tokens of a text are masked, and losses over masked tokens only."""

import jax
import jax.numpy as jnp
import optax
from einops import rearrange
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, UInt8

from mmjax.system import Weighted


def mask_words(
    text: Int[Array, "b l"],
    maskable: Bool[Array, "b l"],
    keys: Key[Array, " b"],
    *,
    vocab_size: int,
    mask_id: int,
    rate: float = 0.15,
    word: Int[Array, "b l"] | None = None,
) -> tuple[Int[Array, "b l"], Bool[Array, "b l"]]:
    """The text with tokens replaced for masked language modeling, and which are to be predicted.

    A token is chosen with probability `rate`; a chosen one becomes the mask token in 80 % of cases,
    a uniformly random token in 10 %, and stays in 10 %. Row i depends on key i alone.

    Args:
      maskable: false on padding and special tokens.
      word: the number of each token's word in its text, from 0 to L - 1; the tokens of a word are
        then chosen together (whole-word masking). None: each is chosen by itself.

    Source: BERT, Devlin et al. 2019 (arXiv 1810.04805), section 3.1 and appendix A.1; whole words:
    google-research/bert, create_pretraining_data.py.
    """
    length = text.shape[1]

    def row(text, maskable, key, word):
        choice, kind, other = (jax.random.fold_in(key, i) for i in range(3))
        draw = jax.random.uniform(choice, (length,))
        chosen = maskable & ((draw if word is None else draw[word]) < rate)
        kind = jax.random.uniform(kind, (length,))
        random = jax.random.randint(other, (length,), 0, vocab_size, text.dtype)
        replaced = jnp.where(kind < 0.8, jnp.asarray(mask_id, text.dtype), random)
        return jnp.where(chosen & (kind < 0.9), replaced, text), chosen

    return jax.vmap(row, in_axes=(0, 0, 0, None if word is None else 0))(text, maskable, keys, word)


def masked_values(
    prediction: Float[ArrayLike, "b l p"],
    target: Float[ArrayLike, "b l p"],
    masked: Bool[ArrayLike, "b l"],
    normalize: bool = True,
) -> Weighted:
    """Mean squared error of masked patches, or of the features of masked regions.

    Args:
      prediction, target: [B, L, P]; masked: [B, L] bool.
      normalize: the target of each patch to mean 0 and deviation 1, as for pixels.

    Source: MAE, He et al. 2022 (arXiv 2111.06377), section 3, "reconstruction target"; without
    normalization, masked region feature regression of UNITER, Chen et al. 2020 (arXiv 1909.11740),
    section 3.2, there the sum over the features.
    """
    target = target.astype(jnp.float32)
    if normalize:
        centered = target - target.mean(-1, keepdims=True)
        target = centered / jnp.sqrt(target.var(-1, keepdims=True) + 1e-6)
    return per_example(jnp.square(prediction.astype(jnp.float32) - target).mean(-1), masked)


def tubelet_pixels(
    video: UInt8[ArrayLike, "b t h w c"], tubelet: tuple[int, int, int], normalize: bool = True
) -> Float[Array, "b n p"]:
    """The pixels, 0 to 1, of each tubelet (frames, height, width) of a video.

    Args:
      normalize: each channel of a tubelet to mean 0 and deviation 1. Unlike `masked_values` this is
        per channel, with the unbiased deviation, to which 1e-6 is added.

    Source: transformers 5.23, VideoMAEForPreTraining; MCG-NJU/VideoMAE, engine_for_pretraining.py.
    """
    t, p, q = tubelet
    x = jnp.asarray(video).astype(jnp.float32) / 255
    x = rearrange(x, "b (t s) (h p) (w q) c -> b (t h w) (s p q) c", s=t, p=p, q=q)
    if normalize:
        deviation = x.std(axis=2, keepdims=True, ddof=1)
        x = (x - x.mean(axis=2, keepdims=True)) / (deviation + 1e-6)
    return rearrange(x, "b n k c -> b n (k c)")


def masked_ids(
    logits: Float[ArrayLike, "b l v"], target: Int[ArrayLike, "b l"], masked: Bool[ArrayLike, "b l"]
) -> Weighted:
    """Mean cross-entropy of masked tokens: logits [B, L, V], target [B, L] int, masked [B, L] bool.

    Source: BERT, Devlin et al. 2019 (arXiv 1810.04805), section 3.1.
    """
    logits = logits.astype(jnp.float32)
    return per_example(optax.softmax_cross_entropy_with_integer_labels(logits, target), masked)


def masked_probs(
    logits: Float[ArrayLike, "b l c"],
    target: Float[ArrayLike, "b l c"],
    masked: Bool[ArrayLike, "b l"],
) -> Weighted:
    """KL(target | softmax(logits)) of masked regions whose labels are soft, such as a detector's.

    Up to the entropy of the target, which has no gradient, it is the cross-entropy; with one class
    of probability 1, `masked_ids`.

    Args:
      target: probabilities of the classes.

    Source: UNITER, Chen et al. 2020 (arXiv 1909.11740), section 3.2, MRC-kl.
    """
    target, log_p = target.astype(jnp.float32), jax.nn.log_softmax(logits.astype(jnp.float32))
    return per_example(
        jnp.sum(jax.scipy.special.xlogy(target, target) - target * log_p, -1), masked
    )


def distilled_ids(
    logits: Float[Array, "b l v"],
    teacher: Float[Array, "b l v"],
    target: Int[ArrayLike, "b l"],
    masked: Bool[ArrayLike, "b l"],
    alpha: Float[ArrayLike, ""] | float,
) -> Weighted:
    """Cross-entropy of masked tokens with the target (1 - alpha) onehot + alpha softmax(teacher).

    Source: ALBEF, Li et al. 2021 (arXiv 2107.07651), eq. 7, up to the teacher's entropy.
    """
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    hard = -jnp.take_along_axis(log_p, target[..., None], -1)[..., 0]
    soft = jax.nn.softmax(jax.lax.stop_gradient(teacher).astype(jnp.float32))
    soft = -jnp.sum(soft * log_p, -1)
    return per_example((1 - alpha) * hard + alpha * soft, masked)


def per_example(loss: Float[ArrayLike, "b l"], masked: Bool[ArrayLike, "b l"]) -> Weighted:
    """The mean of loss [B, L] over each row's masked positions, weighted by their number."""
    count = masked.sum(1, dtype=jnp.float32)
    return Weighted(jnp.sum(loss, 1, where=masked) / jnp.maximum(count, 1.0), count)
