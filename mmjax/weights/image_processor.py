"""`preprocessor_config.json`, how a published model's images are prepared, and our transforms."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmjax.models.vit import ViT

# Pillow's numbers of its filters.
FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class Images(NamedTuple):
    """The chain of transforms up to uint8 pixels, and what the model takes from and divides them by
    (of values in [0, 1], for each channel)."""

    transform: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def read(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> Images:
    """What a preprocessor_config.json asks for.

    Args:
      settings: the file's content; defaults: what its class takes for what it leaves out.

    Raises:
      ValueError: settings that our transforms lack.
    """
    s = {**defaults, **{k: v for k, v in settings.items() if v is not None}}
    steps = ["decode"]
    if s.get("do_resize", True):
        steps.append(_resize(s["size"], FILTERS[int(s["resample"])]))
    if s.get("do_center_crop", False):
        steps.append(f"center_crop({_sides(s['crop_size'])})")
    if s.get("do_rescale", True) and abs(s.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-9:
        raise ValueError(
            f"preprocessor_config.json has rescale_factor {s['rescale_factor']}; pixels are "
            "divided by 255 here."
        )
    if not s.get("do_normalize", True):
        s |= {"image_mean": (0.0,) * 3, "image_std": (1.0,) * 3}
    return Images(" | ".join(steps), tuple(s["image_mean"]), tuple(s["image_std"]))


def _resize(size: int | Mapping[str, int], method: str) -> str:
    if isinstance(size, int):
        size = {"shortest_edge": size}
    if set(size) == {"shortest_edge"}:
        return f"resize_short({size['shortest_edge']}, '{method}')"
    if set(size) == {"height", "width"}:
        return f"resize({_sides(size)}, '{method}')"
    raise ValueError(
        f"preprocessor_config.json has size {dict(size)}; 'shortest_edge' alone, or 'height' and "
        "'width', can be read."
    )


def _sides(size: int | Mapping[str, int] | Sequence[int]) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping):
        return int(size["height"]), int(size["width"])
    return tuple(size)


def write(image: ViT, transform: str, processor: str) -> dict[str, Any]:
    """preprocessor_config.json for an image tower of ours.

    Args:
      transform: the chain that prepares its images; of it, how the sides are brought to size.
      processor: the class that reads it.
    """
    height, width = image.train_size
    sides = {"height": height, "width": width}
    crops = "center_crop" in transform
    return {
        "image_processor_type": processor,
        "do_resize": True,
        "size": {"shortest_edge": min(height, width)} if crops else sides,
        "resample": FILTERS.index("bicubic"),
        "do_center_crop": crops,
        "crop_size": sides,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(image.image_mean),
        "image_std": list(image.image_std),
    }
