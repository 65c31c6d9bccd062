"""Steps for examples with two images; see `parse.py`."""

import re

from mmjax.data.transforms.captions import example_name

_SIDES = {"left": "right", "right": "left"}
_WORD = re.compile(r"\b(left|right)\b", re.IGNORECASE)


def swap_images(p=0.5):
    """With probability `p` exchanges the two images, and "left" and "right" in `caption`.

    Comes after the step that chooses the caption. Source: salesforce/BLIP, data/nlvr_dataset.py.
    """

    def f(example, rng):
        image = example.get("image")
        several = isinstance(image, tuple) or getattr(image, "ndim", 0) == 4
        if "caption" not in example or not several or len(image) != 2:
            raise ValueError(
                f"swap_images needs two images and a caption, and comes after first_caption; "
                f"example {example_name(example)} has {', '.join(sorted(example))}"
            )
        if rng.random() >= p:
            return example
        caption = _WORD.sub(_other_side, example["caption"])
        swapped = {"image": image[::-1], "caption": caption}
        if "image_size" in example:
            swapped["image_size"] = example["image_size"][::-1]
        return {**example, **swapped}

    return f


def _other_side(found):
    word = found[0]
    other = _SIDES[word.lower()]
    return other.capitalize() if word[0].isupper() else other
