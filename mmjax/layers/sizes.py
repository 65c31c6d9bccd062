"""Transformer sizes by name."""

import re
from typing import Any

# name: width, depth, mlp_dim, heads.
# Ti, S, M, B, L, H, g: DeiT, ViT and "Scaling vision transformers" (arXiv 2106.04560, table 2);
# So400m: arXiv 2305.13035. The same table as big_vision's models/vit.py.
IMAGE_SIZES = {
    "Ti": (192, 12, 768, 3),
    "S": (384, 12, 1536, 6),
    "M": (512, 12, 2048, 8),
    "B": (768, 12, 3072, 12),
    "L": (1024, 24, 4096, 16),
    "So400m": (1152, 27, 4304, 16),
    "H": (1280, 32, 5120, 16),
    "g": (1408, 40, 6144, 16),
}

# The matching text towers: B and L as in CLIP (arXiv 2103.00020, table 19); S, M, H and g as in
# open_clip's model configs; Ti as the image Ti. SigLIP's text towers have the sizes of its image
# towers: set width, depth, heads and mlp_dim.
TEXT_SIZES = {size: IMAGE_SIZES[size] for size in ("Ti", "S", "M")} | {
    "B": (512, 12, 2048, 8),
    "L": (768, 12, 3072, 12),
    "H": (1024, 24, 4096, 16),
    "g": (1024, 24, 4096, 16),
}


def _size(name: str, sizes: dict, variant: str) -> dict[str, int]:
    if name not in sizes:
        raise ValueError(f"Unknown model variant '{variant}': the sizes are {', '.join(sizes)}.")
    return dict(zip(("width", "depth", "mlp_dim", "heads"), sizes[name]))


def decode_variant(variant: str) -> dict[str, int]:
    """Sizes of an image transformer: "ViT-B/16" or "B/16" -> width, depth, ..., patch_size.

    The keys are width, depth, mlp_dim, heads and, with a "/16", patch_size.

    Raises:
      ValueError: an unknown size, or a variant of another form.
    """
    match = re.fullmatch(r"(?:ViT-)?(\w+?)(?:/(\d+))?", variant)
    if not match:
        raise ValueError(f"Model variant '{variant}' is not of the form 'ViT-B/16' or 'B/16'.")
    size = _size(match[1], IMAGE_SIZES, variant)
    return size | ({"patch_size": int(match[2])} if match[2] else {})


def decode_text_variant(variant: str) -> dict[str, int]:
    """Sizes of a text transformer: "B" -> width, depth, mlp_dim, heads.

    Raises:
      ValueError: an unknown size.
    """
    return _size(variant, TEXT_SIZES, variant)


def resolve(decoded: dict[str, int], fields: dict[str, int | None], where: str) -> dict[str, int]:
    """The decoded sizes, overridden by each field that is not None.

    Raises:
      ValueError: a size that neither gives, or that is below 1.
    """
    sizes = {name: decoded.get(name) if value is None else value for name, value in fields.items()}
    missing = [name for name, value in sizes.items() if value is None]
    if missing:
        raise ValueError(
            f"{', '.join(missing)} missing in {where}: set {where}.variant, or each of them."
        )
    small = [f"{name} {value}" for name, value in sizes.items() if value < 1]
    if small:
        raise ValueError(f"{where} has {', '.join(small)}; the smallest is 1.")
    return sizes


def image_tower_sizes(tower: Any, where: str) -> dict[str, int]:
    """width, depth, heads, mlp_dim and patch_size, from a tower's variant and its fields.

    Raises:
      ValueError: as `decode_variant` and `resolve`.
    """
    names = ("width", "depth", "heads", "mlp_dim", "patch_size")
    decoded = decode_variant(tower.variant) if tower.variant else {}
    return resolve(decoded, {n: getattr(tower, n) for n in names}, where)


def height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of an image size; a single number means a square image."""
    return (size, size) if isinstance(size, int) else tuple(size)


class TrainSize:
    """A module with the field `image_size`, the size of the images in training."""

    @property
    def train_size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        return height_width(self.image_size)
