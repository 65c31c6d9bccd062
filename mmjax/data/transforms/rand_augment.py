"""RandAugment's operations."""

from mmjax.data.transforms import image_ops


def rand_augment_ops(level, fill=128):
    """The 14 operations as functions of (image, sign), sign being 1 or -1.

    Args:
      level: strength; 0 is (nearly) the identity, 1 is the full range: 30 degrees, a shear of 0.3,
        a shift by 0.45 of the side, color factors of 1 ± 0.9, 4 bits removed, all values inverted.
        Every operation grows with it, also above 1.
      fill: color (a number or RGB) outside the image.

    Source: Cubuk et al. 2019 (RandAugment), section 3, with the ranges of AutoAugment.
    """

    def enhance(op):
        # A factor of 1 leaves the image unchanged.
        return lambda image, sign: op(image, max(0.0, 1 + sign * 0.9 * level))

    def move(make):
        # `make(amount, height, width)` gives the arguments of `affine`.
        return lambda image, sign: image_ops.affine(
            image, **make(sign * level, *image_ops.size_of(image)), fill=fill
        )

    threshold = round(256 * max(0.0, 1 - level))
    bits = max(1, 8 - round(4 * level))
    return {
        "identity": lambda image, sign: image,
        "autocontrast": lambda image, sign: image_ops.autocontrast(image),
        "equalize": lambda image, sign: image_ops.equalize(image),
        "solarize": lambda image, sign: image_ops.solarize(image, threshold),
        "posterize": lambda image, sign: image_ops.posterize(image, bits),
        "color": enhance(image_ops.saturation),
        "contrast": enhance(image_ops.contrast),
        "brightness": enhance(image_ops.brightness),
        "sharpness": enhance(image_ops.sharpness),
        "rotate": move(lambda amount, h, w: {"degrees": 30 * amount}),
        "shear_x": move(lambda amount, h, w: {"shear": (0.3 * amount, 0)}),
        "shear_y": move(lambda amount, h, w: {"shear": (0, 0.3 * amount)}),
        "translate_x": move(lambda amount, h, w: {"translate": (0.45 * amount * w, 0)}),
        "translate_y": move(lambda amount, h, w: {"translate": (0, 0.45 * amount * h)}),
    }
