"""AutoAugment's policy for CIFAR-10."""

from mmjax.data.transforms import image_ops
from mmjax.data.transforms.rand_augment import rand_augment_ops

# Each pair of operations: name, probability, magnitude from 0 to 9. Cubuk et al. 2018 (arXiv
# 1805.09501), table 7.
CIFAR10 = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 7), ("autocontrast", 0.4, 8)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
    (("color", 0.9, 9), ("equalize", 0.6, 6)),
    (("autocontrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 3)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 1)),
)
POLICIES = {"cifar10": CIFAR10}


def auto_augment_policy(name, fill=128):
    """The pairs of a policy as (function of (image, sign), probability), sign being 1 or -1.

    Args:
      fill: color (a number or RGB) outside the image.

    Raises:
      ValueError: an unknown policy.
    """
    if name not in POLICIES:
        raise ValueError(f"auto_augment has the policies {', '.join(POLICIES)}, not {name!r}")
    levels = [rand_augment_ops(magnitude / 9, fill) for magnitude in range(10)]
    for ops in levels:
        ops["invert"] = lambda image, sign: image_ops.solarize(image, 0)
    return [[(levels[magnitude][op], p) for op, p, magnitude in pair] for pair in POLICIES[name]]
