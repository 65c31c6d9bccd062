"""Audio-visual speech recognition: log-mel audio and video of lips to text, by CTC and attention.

Each modality has a front end that gives features at 25 Hz, positions and an encoder. Audio attends
to video and video to audio; the two are averaged where both are there. CTC logits of each frame and
an autoregressive decoder over all frames are trained together.

Source: Petridis et al. 2018 (arXiv 1810.00108): CTC and attention with LSTMs; Ma et al. 2021 (arXiv
2102.06657): conformers; Afouras et al. 2018 (arXiv 1809.02108): transformers.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.batch import Batch, Spec
from mmjax.config import check_kwargs, check_type
from mmjax.decode import texts
from mmjax.decode.ctc import make_ctc
from mmjax.decode.generate import Generated
from mmjax.layers.fusion import Stream
from mmjax.layers.fusion.cross import Bidirectional
from mmjax.layers.fusion.streams import drop_modalities
from mmjax.layers.linear import Linear
from mmjax.layers.norm import LayerNorm
from mmjax.layers.position import LearnedSequence
from mmjax.layers.precision import activation_dtype
from mmjax.layers.speech_encoder import make_encoder
from mmjax.layers.speech_frontends import STRIDE, AudioFrontEnd, VideoFrontEnd, zero_masked
from mmjax.losses.captioning import captioning_loss
from mmjax.losses.ctc import ctc_labels, ctc_loss, needed_frames
from mmjax.models import language
from mmjax.models.build import build
from mmjax.models.text_decoder import GeneratesText, TextDecoder, decode_text, make_text_decoder
from mmjax.sharding import shard
from mmjax.system import Context, Outputs, System, Terms


class AudioVisualSpeech(GeneratesText, nn.Module):
    """batch["audio"] [B, 4 T, M] and ["video"] [B, T, H, W, 3] -> `ctc_logits` [B, T, V + 1].

    The blank is the last logit; `ctc_frames` [B, T] bool are the valid frames. With ["text"] [B, L]
    also `text_logits` [B, L, V]; see `Captioner`, also for decoding. `audio_mask` [B, 4 T] and
    `video_mask` [B, T] (the first frames of each row) say which frames are valid; padding has no
    influence. A modality is missing where the batch does not have it or `<modality>_present` is
    false.

    Attributes:
      frames: T, video frames of a clip.
      encoder: of each modality: `kind`, "lstm", "transformer" or "conformer", and its fields.
      text: fields of `TextDecoder`; cross-attention in every layer by default.
      audio: {"mels": M}; video: {"size": (H, W)} and fields of `VideoFrontEnd`. None: the model
        does not have that modality; with one alone there is no fusion.
      fusion: fields of `Bidirectional`, cross-attention in both directions.
      modality_dropout: probability with which a training step drops one of the two modalities of
        an example; never both.

    Raises:
      ValueError: no modality in the settings, or none in the batch.
    """

    width: int
    frames: int
    encoder: Mapping[str, Any]
    text: Mapping[str, Any]
    audio: Mapping[str, Any] | None = None
    video: Mapping[str, Any] | None = None
    fusion: Mapping[str, Any] | None = None
    modality_dropout: float = 0.0
    dropout: float = 0.0
    dtype: str = "float32"

    @property
    def modalities(self) -> tuple[str, ...]:
        """The model's modalities: "audio", "video", or both."""
        known = tuple(m for m in ("audio", "video") if getattr(self, m) is not None)
        if not known:
            raise ValueError("config.model has no modality: set audio, video, or both.")
        return known

    def video_front_end(self, **kwargs) -> VideoFrontEnd | None:
        """The front end that `video` describes."""
        if self.video is None:
            return None
        fields = {k: v for k, v in self.video.items() if k != "size"}
        fields = {"width": self.width, "dtype": self.dtype, **fields}
        return VideoFrontEnd(**check_kwargs(VideoFrontEnd, fields, "config.model.video"), **kwargs)

    def make_encoder(self, **kwargs) -> nn.Module:
        """An encoder of one modality."""
        fields = {"dropout": self.dropout, "dtype": self.dtype, **self.encoder}
        return make_encoder(fields, "config.model.encoder", **kwargs)

    def make_fusion(self, **kwargs) -> Bidirectional | None:
        """Cross-attention in both directions; None for one modality."""
        if len(self.modalities) == 1:
            return None
        fields = {"modalities": self.modalities, "dropout": self.dropout, "dtype": self.dtype}
        fields |= self.fusion or {}
        fields = check_kwargs(Bidirectional, fields, "config.model.fusion")
        if fields.get("modality_dropout"):
            raise ValueError(
                "config.model.fusion.modality_dropout is drawn in the model: set "
                "config.model.modality_dropout instead, which is drawn before it."
            )
        if fields.get("reconstruction"):
            raise ValueError(
                "config.model.fusion.reconstruction is set, and no loss of this system trains its "
                "decoders: leave it out."
            )
        return Bidirectional(**fields, **kwargs)

    def text_decoder(self, **kwargs) -> TextDecoder:
        """The decoder that `text` describes."""
        return make_text_decoder(self.text, self.dtype, cross_every=1, **kwargs)

    @nn.compact
    def __call__(
        self, batch: Batch, *, train: bool = False, cache_length: int = 0
    ) -> dict[str, jax.Array]:
        context = mask = None
        outputs = {}
        given = [m for m in self.modalities if m in batch]
        if given:
            streams = {m: self._encode(m, batch, train) for m in given}
            context, mask = self._combined(streams, train)
            logits = ctc_head(self.text["vocab_size"], self.dtype)(context)
            outputs = {"ctc_logits": logits.astype(jnp.float32), "ctc_frames": mask}
        elif not self.has_variable("cache", "text"):
            raise ValueError(
                f"The batch has none of the model's modalities {', '.join(self.modalities)}; it "
                f"has {sorted(batch)}."
            )
        if "text" not in batch:
            return outputs
        return outputs | decode_text(self, batch, context, mask, train, cache_length)

    def _encode(self, modality: str, batch: Batch, train: bool) -> Stream:
        """The modality's encoded frames at 25 Hz."""
        x = batch[modality]
        present = batch.get(f"{modality}_present", jnp.ones(len(x), bool))
        mask = batch.get(f"{modality}_mask", jnp.ones(x.shape[:2], bool)) & present[:, None]
        if modality == "audio":
            x, mask = AudioFrontEnd(self.width, self.dtype, name="audio_front_end")(x, mask)
        else:
            x = self.video_front_end(name="video_front_end")(x, mask)
        position = LearnedSequence(self.frames, self.width, name=f"{modality}_position")
        x = x + position(x.shape[1]).astype(x.dtype)[None]
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = self.make_encoder(name=modality)(zero_masked(x, mask), mask, train=train)
        return Stream(x, mask, present)

    def _combined(self, streams: Mapping[str, Stream], train: bool) -> tuple[jax.Array, jax.Array]:
        """Frames [B, T, D], the mean over the modalities that have them, and their mask [B, T]."""
        stream = activation_dtype(self.dtype)
        if len(self.modalities) == 1:
            ((modality, only),) = streams.items()
            return LayerNorm(dtype=stream, name=f"{modality}_norm")(only.tokens), only.mask
        fused = self.make_fusion(name="fusion")(streams, train=train).tokens
        masks = jnp.stack([s.mask for s in streams.values()])
        weights = masks.astype(stream)
        weights = weights / jnp.maximum(weights.sum(0, keepdims=True), 1)
        x = (jnp.stack([fused[m] for m in streams]) * weights[..., None]).sum(0)
        return shard(x, "batch", "length", "act_embed"), masks.any(0)


def ctc_head(tokens: int, dtype: str) -> Linear:
    """The map to logits of the tokens and the blank, which begins with a probability of 0.9.

    Without that start the loss is first dominated by blanks, and the frames' features become one
    large constant, from which training takes long to recover.
    """
    zeros = nn.initializers.zeros

    def bias(key, shape, dtype):
        return zeros(key, shape, dtype).at[-1].set(jnp.log(9.0 * tokens))

    names, inits = ("embed", "classes"), {"kernel_init": zeros, "bias_init": bias}
    return Linear((tokens + 1,), names, dtype=dtype, **inits, name="ctc")


def make_model(config: Mapping[str, Any]) -> AudioVisualSpeech:
    """The model that `config.model` describes. See `build`."""
    parts = ("video_front_end", "make_encoder", "make_fusion", "text_decoder")
    return build(AudioVisualSpeech, config, *parts)


def make_system(config: Mapping[str, Any]) -> System:
    """Audio-visual speech recognition; `config.loss` may set `label_smoothing`, of the decoder.

    The loss gives `ctc` (see `ctc_loss`) and `captioning`, the decoder's cross-entropy of the next
    token, with `token_accuracy`; `ctc_too_long` is the fraction of texts that do not fit their
    frames, which `ctc` leaves out.

    Generation takes `method`: "attention" (the default) with the settings of the decoder, or "ctc"
    with `beams` and `candidates` (see `mmjax.decode.ctc`).

    Raises:
      ValueError: an unknown setting.
    """
    model = make_model(config["model"])
    shown = {"kind": "transcription", "decode": {"method": "ctc"}, "modalities": model.modalities}
    drops = model.modality_dropout and len(model.modalities) > 1
    return System(
        model=model,
        spec=spec(model),
        loss=terms(**check_kwargs(terms, config["loss"], "config.loss")),
        corrupt=functools.partial(drop, model) if drops else None,
        evaluators={"ctc": shown},
        check_batch=check_batch,
        generate=functools.partial(make_transcribe, model),
        score=functools.partial(texts.make_choice, model),
    )


def drop(model: AudioVisualSpeech, batch: Batch, context: Context) -> Batch:
    """The batch with one of its two modalities missing from rows drawn by their keys."""
    names = [f"{m}_present" for m in model.modalities]
    ones = jnp.ones(len(context.rng), bool)
    present = jnp.stack([batch.get(name, ones) for name in names], axis=1)

    def one(row, key):
        return drop_modalities(row[None], model.modality_dropout, key)[0]

    kept = jax.vmap(one)(present, context.rng)
    return {**batch, **{name: kept[:, i] for i, name in enumerate(names)}}


def terms(label_smoothing: float = 0.0) -> Callable[..., Terms]:
    """The loss function for these settings of `config.loss`; see `make_system`."""

    def loss(outputs: Outputs, batch: Batch, context: Context) -> Terms:
        del context
        frames = outputs["ctc_frames"]
        return ctc_loss(outputs["ctc_logits"], frames, *ctc_labels(batch)) | captioning_loss(
            outputs["text_logits"], batch, label_smoothing
        )

    return loss


def check_batch(batch: Batch) -> None:
    """Raise ValueError for a batch on the host without a text, or whose texts all are too long."""
    language.check_text(batch)
    masks = [
        np.asarray(batch[f"{m}_mask"])[:, ::stride]
        for m, stride in (("audio", STRIDE), ("video", 1))
        if f"{m}_mask" in batch
    ]
    if jax.process_count() > 1 or not masks:
        return
    labels, mask = ctc_labels(batch)
    have, need = np.any(masks, axis=0).sum(1), np.asarray(needed_frames(labels, mask))
    if (need > have).all():
        raise ValueError(
            f"No text of the batch fits its clip: the first has {need[0]} tokens (with blanks "
            f"between equal ones) and {have[0]} frames at 25 Hz. Check that captions and clips "
            "belong together, or use a tokenizer with longer tokens."
        )


def make_transcribe(
    model: AudioVisualSpeech, tokenizer: Any, settings: Mapping[str, Any]
) -> Callable[..., Generated]:
    """`System.generate`: see `make_system`.

    Raises:
      ValueError: an unknown method, or a setting that it does not have.
    """
    settings = dict(settings)
    method = settings.pop("method", "attention")
    if method == "attention":
        return texts.make_texts(model, tokenizer, settings)
    if method != "ctc":
        raise ValueError(f"decode.method is {method!r}: use 'attention' or 'ctc'.")
    return make_ctc(model, tokenizer, **check_kwargs(make_ctc, settings, "decode"))


def spec(model: AudioVisualSpeech) -> Spec:
    """The arrays that the model and its loss need, for a batch of one."""
    arrays = {}
    if model.audio is not None:
        frames = STRIDE * model.frames
        arrays["audio"] = (frames, model.audio["mels"]), jnp.float32
        arrays["audio_mask"] = (frames,), jnp.bool_
    if model.video is not None:
        check_type(model.video["size"], tuple[int, int], "config.model.video.size")
        arrays["video"] = (model.frames, *model.video["size"], 3), jnp.uint8
        arrays["video_mask"] = (model.frames,), jnp.bool_
    made = {k: jax.ShapeDtypeStruct((1, *shape), dtype) for k, (shape, dtype) in arrays.items()}
    return made | language.spec(model)
