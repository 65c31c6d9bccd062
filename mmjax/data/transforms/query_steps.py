"""The step that makes text queries of the names of an image's regions; see `parse.py`."""

import numpy as np

from mmjax.data.transforms import captions as captions_lib
from mmjax.data.transforms.cached import CAPTIONS, Cached


def name_queries(queries, length, templates="plain", *, tokenizer, class_names=None):
    """Sets `text` (int32 `[queries, length]`) and `text_mask`, and `box_label` to the query of each
    box; comes after `regions`.

    Queries are the names of the image's boxes, in random order with names that are not in it as
    negatives: first the example's `negative` classes, then any others but `not_exhaustive` ones.
    Each is in a random template. Boxes without a name, and those of names that do not fit, are left
    out of `boxes_mask`. With fewer class names than queries the last are padding.

    Args:
      queries: of an image; length: tokens of each.
      templates: a name in `captions.TEMPLATES`, or a list of strings with one `{}` each.

    Raises:
      ValueError: no class names.

    Source: pseudo-negatives and random prompts of OWL-ViT, Minderer et al. 2022
    (arXiv 2205.06230), section 4.2 and appendix A1.
    """
    templates = captions_lib.get_templates(templates)
    if not class_names:
        raise ValueError("queries are names of classes, and the data set has none")
    names = [str(name) for name in class_names]

    def encoded(text):
        tokens, mask, truncated = tokenizer.rows([text], length)
        return tokens[0], mask[0], int(truncated[0])

    row = Cached(encoded, CAPTIONS)

    def f(example, rng):
        if "boxes_mask" not in example:
            raise ValueError("name_queries comes after regions in the chain")
        label, mask = example["box_label"], example["boxes_mask"] & (example["box_label"] >= 0)
        found = rng.permutation(np.unique(label[mask]))[:queries]
        others = np.setdiff1d(np.arange(len(names)), example.get("not_exhaustive", ()))
        others = rng.permutation(others)
        given = rng.permutation(np.asarray(example.get("negative", ()), np.int64))
        order = np.concatenate([found, given, others]).astype(np.int64)
        order = order[np.sort(np.unique(order, return_index=True)[1])]  # each once, found first
        chosen = rng.permutation(order[:queries])
        text = np.full((queries, length), tokenizer.pad_id, np.int32)
        text_mask = np.zeros((queries, length), bool)
        for i, k in enumerate(chosen):
            template = templates[rng.integers(len(templates))]
            text[i], text_mask[i], truncated = row(captions_lib.fill(template, names[k]))
            tokenizer.count(1, truncated)
        place = np.full(len(names) + 1, -1, np.int32)  # the last is that of no name
        place[chosen] = np.arange(len(chosen))
        label = np.where(mask, place[label], np.int32(-1))
        arrays = {"box_label": label, "boxes_mask": mask & (label >= 0)}
        return {**example, **arrays, "text": text, "text_mask": text_mask}

    return f
