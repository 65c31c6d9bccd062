"""An encoded image as the input of a model, without the model."""

import numpy as np

from mmjax.data.image_files import check_image
from mmjax.data.transforms import parse as transforms
from mmjax.data.transforms.patch_steps import as_image


def prepared(data: bytes, transform: str) -> np.ndarray:
    """The model's input from an encoded image: uint8 `[H, W, 3]`, whole also where it is cut into
    patches.

    Args:
      transform: the chain of the model, `Pretrained.transform`.

    Raises:
      ValueError: see `check_image`; or the image is damaged.
    """
    check_image(data)
    try:
        example = transforms.parse(transform)({"image": data}, np.random.default_rng(0))
    except ValueError as error:
        raise ValueError(str(error).partition(": ")[2]) from None
    return as_image(example)
