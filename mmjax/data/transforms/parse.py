"""Transforms of one example, and the one-line language that chains them.

`parse("decode | random_resized_crop(64, scale=(0.6, 1)) | flip | choose_caption | tokenize(32)")`
gives a function of (example, rng). A step's name is the name of a function below; its arguments
are Python literals. Arguments that only the program knows (the tokenizer, the class names) are
keyword-only and come from `parse`'s own keywords.
"""

import math
import re

import numpy as np

from mmjax.data.transforms import audio_ops, image_ops
from mmjax.data.transforms import captions as captions_lib
from mmjax.data.transforms.chain import make_chain
from mmjax.data.transforms.decode import as_rgb, decode_image
from mmjax.data.transforms.interleave import interleave
from mmjax.data.transforms.rand_augment import rand_augment_ops


def parse(spec, **context):
    """The transform that a chain in one string describes.

    Args:
      spec: steps joined by `|`; the empty string is the identity.
      **context: values for the steps' keyword-only arguments, e.g. `tokenizer=`, `class_names=`.

    Returns:
      `transform(example: dict, rng: np.random.Generator) -> dict`; the input is not changed.

    Raises:
      ValueError: bad syntax, an unknown step, wrong arguments, or a context value that lacks.
    """
    return make_chain(spec, TRANSFORMS, context)


def parse_batch(spec, **context):
    """As `parse`, for steps that work on a whole batch (`mixup`, `interleave`)."""
    return make_chain(spec, BATCH_TRANSFORMS, context)


# ---- images: pixels ------------------------------------------------------------------------------


def decode(min_size=None, background=(255, 255, 255)):
    """`image`: encoded bytes (or an array of grey, RGB or RGBA) to uint8 `[H, W, 3]`.

    `min_size` lets a JPEG be shrunk while it is decoded, both sides staying at least that many
    pixels: set it to the size that the chain makes of the image. See `decode.decode_image`.
    """

    def f(example, rng):
        image = example.get("image")
        try:
            if isinstance(image, np.ndarray):
                image = as_rgb(image, background)
            elif isinstance(image, bytes | bytearray | memoryview):
                image = decode_image(image, min_size, background)
            else:
                raise ValueError(
                    f"expected encoded bytes or an array, found {type(image).__name__}"
                )
        except ValueError as error:
            name = captions_lib.example_name(example)
            raise ValueError(f"cannot decode 'image' of example {name}: {error}") from None
        return {**example, "image": image}

    return f


def resize(size, method="bicubic", antialias=True):
    """To `size` pixels square, or (height, width), whatever the aspect ratio was."""
    size = _pair(size)
    image_ops.resampling(method)
    return _on_image(lambda image, rng: image_ops.resize(image, size, method, antialias))


def resize_short(size, method="bicubic"):
    """The shorter side to `size` pixels, the aspect ratio kept."""
    image_ops.resampling(method)
    return _on_image(lambda image, rng: image_ops.resize_short(image, size, method))


def center_crop(size, half="down"):
    """The middle `size` (number, or (height, width)); a smaller image is padded with black.

    Args:
      half: where that begins between two pixels: see `image_ops.center_crop`.
    """
    size = _pair(size)
    return _on_image(lambda image, rng: image_ops.center_crop(image, size, half))


def random_crop(size, padding=0, fill=0):
    """A random window of `size` after padding every side by `padding` pixels of colour `fill`."""
    size = _pair(size)

    def f(image, rng):
        if padding:
            image = image_ops.pad(image, (padding,) * 4, fill)
        image = image_ops.pad_to(image, size, fill)
        top = rng.integers(image.shape[0] - size[0] + 1)
        left = rng.integers(image.shape[1] - size[1] + 1)
        return image[top : top + size[0], left : left + size[1]]

    return _on_image(f)


def random_resized_crop(size, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), method="bicubic"):
    """A random part of the image, resized to `size`.

    Args:
      size: number, or (height, width).
      scale: the part's share of the area, drawn uniformly from this range.
      ratio: its width / height, drawn log-uniformly from this range.
      method: resize filter.

    Source: Szegedy et al. 2014 (Inception); the sampling is torchvision's `RandomResizedCrop`.
    """
    size = _pair(size)
    image_ops.resampling(method)
    if not 0 < scale[0] <= scale[1] or not 0 < ratio[0] <= ratio[1]:
        raise ValueError(f"scale {scale} and ratio {ratio} must be (low, high), both above 0")

    def f(image, rng):
        box = sample_crop(*image.shape[:2], scale, ratio, rng)
        return image_ops.resize(image, size, method, box=box)

    return _on_image(f)


def sample_crop(height, width, scale, ratio, rng):
    """(top, left, height, width) of a random part, as torchvision's `RandomResizedCrop` draws it.

    Ten tries at a window that fits; then the largest middle window whose ratio is in range.
    """
    area = height * width
    for _ in range(10):
        target = area * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w = round(math.sqrt(target * aspect))
        h = round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    if width / height < ratio[0]:
        w, h = width, round(width / ratio[0])
    elif width / height > ratio[1]:
        w, h = round(height * ratio[1]), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


def flip(p=0.5):
    """Left and right exchanged, with probability `p`."""
    return _on_image(lambda image, rng: image[:, ::-1] if rng.random() < p else image)


def random_affine(degrees=0.0, translate=0.0, scale=(1.0, 1.0), fill=255):
    """A small random rotation, shift and scaling.

    Args:
      degrees: rotation from ±degrees.
      translate: shift from ±translate, a share of the side, in each direction.
      scale: zoom, drawn uniformly from this range.
      fill: colour that comes in (white, as drawings have it).
    """

    def f(image, rng):
        h, w = image.shape[:2]
        angle = rng.uniform(-degrees, degrees)
        shift = rng.uniform(-translate, translate, 2) * (w, h)
        return image_ops.affine(image, angle, shift, rng.uniform(*scale), fill=fill)

    return _on_image(f)


# ---- images: colours -----------------------------------------------------------------------------


def color_jitter(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, p=1.0):
    """Random brightness, contrast, saturation (factors from 1 ± value) and hue (± value turns).

    The four come in random order. Source: torchvision's `ColorJitter`.
    """
    if not 0 <= hue <= 0.5:
        raise ValueError(f"hue must be between 0 and 0.5 turns, not {hue}")
    factors = (
        (image_ops.brightness, brightness),
        (image_ops.contrast, contrast),
        (image_ops.saturation, saturation),
    )

    def f(image, rng):
        if rng.random() >= p:
            return image
        for i in rng.permutation(4):
            if i == 3 and hue:
                image = image_ops.hue(image, rng.uniform(-hue, hue))
            elif i < 3 and factors[i][1]:
                op, amount = factors[i]
                image = op(image, rng.uniform(max(0.0, 1 - amount), 1 + amount))
        return image

    return _on_image(f)


def random_grayscale(p=0.1):
    """Grey (in three channels) with probability `p`."""
    return _on_image(lambda image, rng: image_ops.grayscale(image) if rng.random() < p else image)


def rand_augment(num_layers=2, magnitude=9, fill=128):
    """`num_layers` random operations of RandAugment at one magnitude, of which 10 is the full one.

    `fill` is the colour that comes in from outside. See `rand_augment.rand_augment_ops`.
    """
    ops = list(rand_augment_ops(magnitude / 10, fill).values())

    def f(image, rng):
        for i in rng.integers(len(ops), size=num_layers):
            image = ops[i](image, 1 if rng.random() < 0.5 else -1)
        return image

    return _on_image(f)


def random_erasing(p=0.25, scale=(0.02, 0.33), ratio=(0.3, 3.3)):
    """With probability `p` a random rectangle becomes noise.

    Source: Zhong et al. 2017 (Random Erasing), with the ranges of torchvision.
    """

    def f(image, rng):
        if rng.random() >= p:
            return image
        top, left, h, w = sample_crop(*image.shape[:2], scale, ratio, rng)
        image = image.copy()
        image[top : top + h, left : left + w] = rng.integers(0, 256, (h, w, 3), np.uint8)
        return image

    return _on_image(f)


# ---- text and labels -----------------------------------------------------------------------------


def choose_caption(
    templates="plain", template_p=1.0, languages="all", p_extra=0.0, *, class_names=None
):
    """Sets `caption`: one of `captions`, at random, perhaps in a template or another language.

    Args:
      templates: a preset's name in `captions.TEMPLATES`, or a list of strings with one `{}`.
      template_p: probability of a template.
      languages: which of the example's multilingual `names` may be drawn: 'all' or a list.
      p_extra: probability of drawing one of those in place of a caption.
      class_names: the class's name is the caption of an example that has none.
    """
    templates = captions_lib.get_templates(templates)

    def f(example, rng):
        own = captions_lib.captions_of(example, class_names)
        extra = captions_lib.foreign_names(example, languages) if p_extra else []
        caption = captions_lib.choose(own, rng, templates, template_p, extra, p_extra)
        return {**example, "caption": caption}

    return f


def first_caption(template="{}", *, class_names=None):
    """Sets `caption` to the first of `captions`, in a template: what evaluation uses."""
    (template,) = captions_lib.get_templates([template])

    def f(example, rng):
        own = captions_lib.captions_of(example, class_names)
        return {**example, "caption": captions_lib.fill(template, own[0])}

    return f


def longest_caption(*, class_names=None):
    """Sets `caption` to the longest of `captions`: the one that says most."""

    def f(example, rng):
        return {**example, "caption": max(captions_lib.captions_of(example, class_names), key=len)}

    return f


def drop_words(words):
    """Takes words out of `caption`, in any case: such as those that would give the label away."""
    unwanted = {word.casefold() for word in words}

    def f(example, rng):
        if "caption" not in example:
            raise ValueError("drop_words comes after choose_caption or first_caption in the chain")
        kept = [
            part
            for part in re.split(r"(\w+)", example["caption"])
            if part.casefold() not in unwanted
        ]
        return {**example, "caption": "".join(kept)}

    return f


def tokenize(length, *, tokenizer):
    """Sets `text` (int32 `[length]`) and `text_mask` (bool `[length]`) from `caption`."""

    def f(example, rng):
        if "caption" not in example:
            raise ValueError("tokenize comes after choose_caption or first_caption in the chain")
        text, mask = tokenizer.encode([example["caption"]], length)
        return {**example, "text": text[0], "text_mask": mask[0]}

    return f


def label(*, class_names=None):
    """Makes `label` an int32; a class's name is looked up, a number is checked."""
    numbers = {name: i for i, name in enumerate(class_names or ())}

    def f(example, rng):
        value = example.get("label")
        if isinstance(value, bytes | str):
            value = numbers.get(captions_lib.as_text(value), -1)
        if value is None or value < 0 or (numbers and value >= len(numbers)):
            name = captions_lib.example_name(example)
            raise ValueError(
                f"example {name} has label {example.get('label')!r}, which is none of the "
                f"{len(numbers)} classes"
            )
        return {**example, "label": np.int32(value)}

    return f


# ---- sound ---------------------------------------------------------------------------------------


def log_mel(frames, mels, window_ms=32, hop_ms=10, top_db=60.0):
    """`audio`: WAV bytes to its log-mel spectrogram, float32 `[frames, mels]` in [-1, 1].

    1 is the loudest of its entries, -1 all that is `top_db` decibels below it, so that a louder
    recording gives the same numbers. A longer sound loses its end; a shorter one is followed by
    silence. See `audio_ops.log_mel`.
    """
    if top_db <= 0:
        raise ValueError(f"top_db is {top_db}; it must be above 0")

    def f(example, rng):
        try:
            waveform, rate = audio_ops.decode_wav(example.get("audio", b""))
        except ValueError as error:
            name = captions_lib.example_name(example)
            raise ValueError(f"cannot decode 'audio' of example {name}: {error}") from None
        length = (frames - 1) * round(rate * hop_ms / 1000)
        waveform = np.pad(waveform[:length], (0, max(0, length - len(waveform))))
        decibels = (10 / np.log(10)) * audio_ops.log_mel(waveform, rate, mels, window_ms, hop_ms)
        below = np.maximum(decibels - decibels.max(), -top_db)
        return {**example, "audio": (1 + 2 * below / top_db).astype(np.float32)}

    return f


# ---- batches -------------------------------------------------------------------------------------


def mixup(alpha, num_classes):
    """Mixes every image of a batch with its neighbour's, and their labels in the same proportion.

    Takes `image [B, H, W, 3] uint8` and `label [B]` or `label_probs [B, C]`; gives `image` (uint8,
    rounded) and `label_probs [B, C] float32`. One proportion, drawn from Beta(alpha, alpha),
    serves the batch. Rows 2i and 2i + 1 are partners, which the order of the epoch has brought
    together at random: so the partners are the same however many processes share the batch. Raises
    ValueError where a process has an odd number of rows. Source: Zhang et al. 2017 (mixup).
    """
    if alpha <= 0:
        raise ValueError(f"alpha must be above 0, not {alpha}")

    def f(batch, rng):
        rows = len(batch["image"])
        if rows % 2:
            raise ValueError(
                f"mixup mixes pairs and a process has {rows} rows of the batch: set "
                "config.batch_size to an even multiple of the number of processes"
            )
        share = np.float32(rng.beta(alpha, alpha))
        other = np.arange(rows) ^ 1
        probs = batch.get("label_probs")
        if probs is None:
            label = batch["label"]
            if len(label) and not 0 <= label.min() <= label.max() < num_classes:
                raise ValueError(
                    f"mixup has num_classes={num_classes}, but the batch holds labels from "
                    f"{label.min()} to {label.max()}"
                )
            probs = np.eye(num_classes, dtype=np.float32)[label]
        image = batch["image"].astype(np.float32)
        mixed = share * image + (1 - share) * image[other]
        return {
            **batch,
            "image": np.rint(mixed).astype(np.uint8),
            "label_probs": share * probs + (1 - share) * probs[other],
        }

    return f


# ---- the tables ----------------------------------------------------------------------------------

TRANSFORMS = {
    f.__name__: f
    for f in (
        decode,
        resize,
        resize_short,
        center_crop,
        random_crop,
        random_resized_crop,
        flip,
        random_affine,
        color_jitter,
        random_grayscale,
        rand_augment,
        random_erasing,
        choose_caption,
        first_caption,
        longest_caption,
        drop_words,
        tokenize,
        label,
        log_mel,
    )
}
BATCH_TRANSFORMS = {"interleave": interleave, "mixup": mixup}


def _pair(size):
    """(height, width) of a number or a pair."""
    pair = (size, size) if isinstance(size, int) else size
    whole = isinstance(pair, tuple | list) and all(isinstance(side, int) for side in pair)
    if not whole or len(pair) != 2 or min(pair) <= 0:
        raise ValueError(f"a size is a positive whole number or (height, width), not {size!r}")
    return tuple(pair)


def _on_image(f):
    """A transform that replaces `image` by `f(image, rng)`."""

    def transform(example, rng):
        image = example.get("image")
        if not isinstance(image, np.ndarray):
            raise ValueError("put decode first in the chain: 'image' is not an array yet")
        return {**example, "image": f(image, rng)}

    return transform
