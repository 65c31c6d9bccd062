"""The preprocessing of images in open_clip's files: preprocess_cfg, and our transforms."""

from typing import Any

from mmjax.weights import image_defaults, image_processor
from mmjax.weights.published import OPEN_CLIP, Published

SIZE = 224  # the default of CLIPVisionCfg


def pixels(found: Published) -> dict[str, Any]:
    """The means and deviations of the pixels."""
    given, channels = found.preprocessor or {}, image_processor.channels
    mean = channels(given.get("mean") or image_defaults.CLIP_MEAN, "mean")
    std = channels(given.get("std") or image_defaults.CLIP_STD, "std")
    return {"image_mean": tuple(mean.tolist()), "image_std": tuple(std.tolist())}


def transform(found: Published) -> str:
    """The chain of transforms from an image to the input of the model.

    Raises:
      ValueError: a resize mode that is not supported.

    Source: open_clip's transform.py, image_transform.
    """
    sizes = (found.preprocessor.get("size"), found.config["vision_cfg"].get("image_size"))
    height, width = image_processor.sides(sizes[0] or sizes[1] or SIZE, "size")
    method = found.preprocessor.get("interpolation", "bicubic")
    mode = found.preprocessor.get("resize_mode", "shortest")
    if mode == "squash":
        return f"decode | resize(({height}, {width}), '{method}')"
    if mode == "shortest" and height == width:
        crop = f"center_crop(({height}, {width}), 'even')"
        return f"decode | resize_short({height}, '{method}') | {crop}"
    raise ValueError(
        f"'{found.folder / OPEN_CLIP}' resizes images by '{mode}' to {height}x{width}; 'squash', "
        "or 'shortest' to a square, can be read."
    )


def preprocess_cfg(image: Any, transform: str) -> dict[str, Any]:
    """preprocess_cfg for an image tower whose images this transform prepares.

    Raises:
      ValueError: a transform that open_clip does not support.
    """
    steps = image_processor.write(image, transform or "decode", "open_clip")
    size, crop = steps["size"], steps["crop_size"] if steps["do_center_crop"] else None
    if crop is None and "height" in size:
        sides, mode = [size["height"], size["width"]], "squash"
    elif crop is not None and set(crop.values()) == {size.get("shortest_edge")}:
        sides, mode = [crop["height"], crop["width"]], "shortest"
    else:
        raise ValueError(
            f"open_clip cannot prepare images by '{transform}': save the model with "
            "resize to both sides, or with resize_short and center_crop to the same square."
        )
    return {
        "size": sides,
        "mean": steps["image_mean"],
        "std": steps["image_std"],
        "interpolation": image_defaults.FILTERS[steps["resample"]],
        "resize_mode": mode,
    }
