"""Steps that choose captions, tokenize them and check labels; see `parse.py`."""

import re

import numpy as np

from mmjax.data.text.bpe_dropout import BPEDropout
from mmjax.data.text.special_tokens import is_of_whisper, prompt
from mmjax.data.text.swaps import alternatives
from mmjax.data.transforms import captions as captions_lib
from mmjax.data.transforms.cached import CAPTIONS, Cached


def choose_caption(
    templates="plain", template_p=1.0, languages="all", p_extra=0.0, *, class_names=None
):
    """Sets `caption`: a random one of `captions`, optionally in a template or another language.

    Args:
      templates: a name in `captions.TEMPLATES`, or a list of strings with one `{}` each.
      template_p: probability of a template.
      languages: languages of the example's `names` that may be drawn: 'all' or a list.
      p_extra: probability of drawing one of those names in place of a caption.
      class_names: the class name is used as caption of an example that has none.
    """
    templates = captions_lib.get_templates(templates)

    def f(example, rng):
        own = captions_lib.captions_of(example, class_names)
        extra = captions_lib.foreign_names(example, languages) if p_extra else []
        caption = captions_lib.choose(own, rng, templates, template_p, extra, p_extra)
        return {**example, "caption": caption}

    return f


def first_caption(template="{}", *, class_names=None):
    """Sets `caption` to the first of `captions`, in a template; used in evaluation."""
    (template,) = captions_lib.get_templates([template])

    def f(example, rng):
        own = captions_lib.captions_of(example, class_names)
        return {**example, "caption": captions_lib.fill(template, own[0])}

    return f


def longest_caption(*, class_names=None):
    """Sets `caption` to the longest of `captions`."""

    def f(example, rng):
        return {**example, "caption": max(captions_lib.captions_of(example, class_names), key=len)}

    return f


def choose_features(noise=0.0):
    """Sets `text_features` to a random row of them, [K, E] -> [E], and `caption` to its caption.

    Of `image_features` [C, D], those of C augmented copies of the image, it takes a random mean of
    two rows.

    Args:
      noise: standard deviation of normal noise that is added, relative to the row's length.
    """

    def f(example, rng):
        rows, captions = _features(example, "choose_features")
        chosen = rng.integers(len(rows))
        row = np.asarray(rows[chosen], np.float32)
        if noise:
            scale = noise * np.linalg.norm(row) / len(row) ** 0.5
            row = row + np.float32(scale) * rng.standard_normal(len(row), np.float32)
        made = {"text_features": row, "caption": captions[chosen]}
        images = example.get("image_features")
        if np.ndim(images) == 2:
            one, other = rng.integers(len(images), size=2)
            made["image_features"] = images[one] + np.float32(rng.random()) * (
                images[other] - images[one]
            )
        return {**example, **made}

    return f


def first_features():
    """`choose_features` without randomness: the first caption, the first copy of the image."""

    def f(example, rng):
        rows, captions = _features(example, "first_features")
        made = {"text_features": np.asarray(rows[0], np.float32), "caption": captions[0]}
        images = example.get("image_features")
        if np.ndim(images) == 2:
            made["image_features"] = np.asarray(images[0], np.float32)
        return {**example, **made}

    return f


def _features(example, step):
    """The features of an example's captions, [K, E], and the captions."""
    rows, captions = example.get("text_features"), captions_lib.captions_of(example)
    if np.ndim(rows) != 2 or len(rows) != len(captions):
        raise ValueError(
            f"{step} needs text_features [K, E] of {len(captions)} captions, as "
            "mmjax.photos.features writes them"
        )
    return rows, captions


def drop_words(words):
    """Removes words (in any case) from `caption`, for instance those that reveal the label."""
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


def tokenize(length, words=False, dropout=0.0, *, tokenizer):
    """Sets `text` (int32 `[length]`) and `text_mask` (bool `[length]`) from `caption`.

    Args:
      length: tokens of a text.
      words: also set `text_word` (int32 `[length]`), the number of each token's word, -1 for none,
        for whole-word masking.
      dropout: probability that a merge of the BPE is left out, for training; see `BPEDropout`.
    """
    if dropout:
        return _tokenize_anew(length, words, BPEDropout(tokenizer, dropout), tokenizer)

    def encoded(caption):
        text, mask, truncated = tokenizer.rows([caption], length)
        arrays = {"text": text[0], "text_mask": mask[0]}
        if words:
            arrays["text_word"] = tokenizer.words(caption, length)
        for array in arrays.values():
            array.flags.writeable = False  # several rows may get it
        return arrays, int(truncated[0])

    row = Cached(encoded, CAPTIONS)

    def f(example, rng):
        if "caption" not in example:
            raise ValueError("tokenize comes after choose_caption or first_caption in the chain")
        arrays, truncated = row(example["caption"])
        tokenizer.count(1, truncated)
        return {**example, **arrays}

    return f


def _tokenize_anew(length, words, ids, tokenizer):
    """`tokenize` by ids(text, rng)."""
    if words:
        raise ValueError("tokenize has words and dropout: choose one of the two.")

    def f(example, rng):
        if "caption" not in example:
            raise ValueError("tokenize comes after choose_caption or first_caption in the chain")
        caption = example["caption"]
        text, mask, truncated = tokenizer.placed([ids(caption, rng)], [caption], length)
        tokenizer.count(1, int(truncated[0]))
        return {**example, "text": text[0], "text_mask": mask[0]}

    return f


def label_words(length, *, tokenizer):
    """Sets `text_label` (int32 `[length]`), the class of each token's word in `caption`.

    The example's `word_labels` has a class for each word as the tokenizer splits them, or -1 for
    none; special tokens and padding have -1 too. With `tokenize(length)` of the same length.
    """

    def f(example, rng):
        if "caption" not in example:
            raise ValueError("label_words comes after choose_caption or first_caption in the chain")
        caption, labels = example["caption"], np.asarray(example.get("word_labels", ()), np.int32)
        whole = tokenizer.words(caption, 4 * len(caption) + 16)  # longer than the text
        if labels.shape != (whole.max() + 1,):
            raise ValueError(
                f"example {captions_lib.example_name(example)} has {len(labels)} word_labels and "
                f"its caption {whole.max() + 1} words: give one for each, punctuation included"
            )
        word = tokenizer.words(caption, length)
        return {**example, "text_label": np.where(word < 0, np.int32(-1), labels[word])}

    return f


def hard_negative(length, *, tokenizer):
    """Sets `text_negative` (int32 `[length]`) and `text_negative_mask` to a swapped caption.

    It is a random one of the example's `swapped_captions`, or else of the `alternatives` of
    `caption`, of a random kind; a caption that has none gets a mask without any token.
    """
    none = np.full(length, tokenizer.pad_id, np.int32), np.zeros(length, bool)

    def f(example, rng):
        if "caption" not in example:
            raise ValueError(
                "hard_negative comes after choose_caption or first_caption in the chain"
            )
        kinds = [example["swapped_captions"]] if example.get("swapped_captions") else None
        kinds = kinds or list(alternatives(example["caption"]).values())
        text, mask = none
        if kinds:
            texts = kinds[rng.integers(len(kinds))]
            rows = tokenizer.rows([captions_lib.as_text(texts[rng.integers(len(texts))])], length)
            text, mask = rows[0][0], rows[1][0]
        return {**example, "text_negative": text, "text_negative_mask": mask}

    return f


def running_text(length, *, tokenizer):
    """Sets `text` (int32 `[length]`) and `text_mask` to the first tokens of the first caption, for
    windows of a longer text: nothing is stripped, and no end token follows."""

    def f(example, rng):
        ids = tokenizer.prompts(example["captions"][:1])[0][:length]
        text = np.full(length, tokenizer.pad_id, np.int32)
        text[: len(ids)] = ids
        return {**example, "text": text, "text_mask": np.arange(length) < len(ids)}

    return f


def transcript(length, language="en", task="transcribe", *, tokenizer):
    """Sets `text` (int32 `[length]`), `text_mask` and `text_loss_mask` from `caption`, as Whisper
    is trained: the tokens of language and task come first, and do not count in the loss.

    With a tokenizer that has no such tokens the text begins with its begin token.

    Raises:
      ValueError: a language or task that the tokenizer does not have.
    """
    before = prompt(tokenizer, language, task)
    begin = 0 if tokenizer.bos_id is None else 1
    space = " " if is_of_whisper(tokenizer) else ""  # before the first word, as in running text

    def f(example, rng):
        if "caption" not in example:
            raise ValueError("transcript comes after choose_caption or first_caption in the chain")
        spoken = tokenizer.prompts([space + example["caption"].strip()])[0][begin:]
        room = length - len(before) - 1
        tokenizer.count(1, int(len(spoken) > room))
        ids = (*before, *spoken[:room], tokenizer.eos_id)
        text = np.full(length, tokenizer.pad_id, np.int32)
        text[: len(ids)] = ids
        place = np.arange(length)
        mask = place < len(ids)
        loss_mask = mask & (place >= len(before))
        return {**example, "text": text, "text_mask": mask, "text_loss_mask": loss_mask}

    return f


def answer(length, *, tokenizer):
    """Sets `text` and `text_mask`, of `[length]`, to a random one of `answers`, which may also be
    a single text; those that `tokenize` has set, of a question, become `question` and
    `question_mask`."""
    answered = tokenize(length, tokenizer=tokenizer)

    def f(example, rng):
        if "text" not in example or not example.get("answers"):
            raise ValueError("answer needs answers, and comes after tokenize in the chain")
        answers = example["answers"]
        answers = [answers] if isinstance(answers, bytes | str) else answers
        chosen = captions_lib.as_text(answers[rng.integers(len(answers))])
        question = {k.replace("text", "question"): example[k] for k in ("text", "text_mask")}
        return answered({**example, **question, "caption": chosen}, rng)

    return f


def multi_hot(num_classes):
    """`label_probs` (float32 `[num_classes]`): 1 for each of the example's `labels`, which are
    numbers of classes, and 0 for the others."""

    def f(example, rng):
        rest = {key: value for key, value in example.items() if key != "labels"}
        numbers = np.asarray(example.get("labels", ()), np.int64).reshape(-1)
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < num_classes:
            name = captions_lib.example_name(example)
            raise ValueError(
                f"example {name} has the labels {numbers.tolist()}, and multi_hot {num_classes} "
                "classes, from 0: set its num_classes"
            )
        probs = np.zeros(num_classes, np.float32)
        probs[numbers] = 1
        return {**rest, "label_probs": probs}

    return f


def label(*, class_names=None):
    """Makes `label` an int32: a class name is looked up, a number is checked."""
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
