"""Settings that a file of an image processor may omit, by the class that it names."""

# In the order of Pillow's filter numbers.
FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


_BICUBIC = {"resample": FILTERS.index("bicubic"), "default_to_square": False}
_CLIP = {
    **_BICUBIC,
    "size": {"shortest_edge": 224},
    "do_center_crop": True,
    "crop_size": _square(224),
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
}
_HALF = {"image_mean": (0.5,) * 3, "image_std": (0.5,) * 3}
_SQUARE = {"size": _square(224), **_HALF}
_TILES = {
    **_HALF,
    "resample": FILTERS.index("lanczos"),
    "size": {"longest_edge": 4 * 364},
    "max_image_size": {"longest_edge": 364},
    "do_image_splitting": True,
    "do_pad": True,
}
_VIDEO = {
    **_HALF,
    "resample": FILTERS.index("bilinear"),
    "default_to_square": False,
    "do_center_crop": True,
    "crop_size": _square(224),
}
# Settings that a file may omit, by its image_processor_type: defaults of transformers 5.23.
CLASSES = {
    "BitImageProcessor": _CLIP,
    "BlipImageProcessor": {
        **_BICUBIC,
        "default_to_square": True,
        "size": _square(384),
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
    },
    "CLIPImageProcessor": _CLIP,
    "ChineseCLIPImageProcessor": _CLIP,
    "DeiTImageProcessor": {
        **_BICUBIC,
        **_HALF,
        "default_to_square": True,
        "size": _square(256),
        "do_center_crop": True,
        "crop_size": _square(224),
    },
    "EfficientNetImageProcessor": {
        **_BICUBIC,
        **_HALF,
        "default_to_square": True,
        "size": _square(346),
        "crop_size": _square(289),
        "include_top": True,
    },
    "FlavaImageProcessor": {
        **_CLIP,
        "default_to_square": True,
        "size": _square(224),
        "codebook_do_resize": True,
        "codebook_size": _square(112),
        "codebook_resample": FILTERS.index("lanczos"),
        "codebook_do_center_crop": True,
        "codebook_crop_size": _square(112),
        "codebook_do_rescale": True,
        "codebook_rescale_factor": 1 / 255,
        "codebook_do_map_pixels": True,
        "codebook_do_normalize": True,
        "codebook_image_mean": (0.0,) * 3,
        "codebook_image_std": (1.0,) * 3,
    },
    "Idefics3ImageProcessor": _TILES,
    "OwlViTImageProcessor": {
        **_CLIP,
        "default_to_square": True,
        "size": _square(768),
        "do_center_crop": False,
    },
    "Owlv2ImageProcessor": {
        **_CLIP,
        "default_to_square": True,
        "size": _square(960),
        "do_center_crop": False,
        "do_pad": True,
        "anti_aliasing": True,
    },
    "SamImageProcessor": {
        "resample": FILTERS.index("bilinear"),
        "size": {"longest_edge": 1024},
        "do_pad": True,
        "pad_size": _square(1024),
        "image_mean": (0.485, 0.456, 0.406),
        "image_std": (0.229, 0.224, 0.225),
    },
    "Siglip2ImageProcessor": {
        **_HALF,
        "resample": FILTERS.index("bilinear"),
        "patch_size": 16,
        "max_num_patches": 256,
    },
    "SiglipImageProcessor": {**_BICUBIC, **_SQUARE},
    "SmolVLMImageProcessor": _TILES,
    "ViltImageProcessor": {
        **_BICUBIC,
        **_HALF,
        "size": {"shortest_edge": 384},
        "size_divisor": 32,
        "do_pad": True,
    },
    "VideoMAEImageProcessor": {
        **_VIDEO,
        "size": {"shortest_edge": 224},
    },
    "VivitImageProcessor": {
        **_VIDEO,
        "size": {"shortest_edge": 256},
        "rescale_factor": 1 / 127.5,
        "rescale_offset": True,
    },
    "ViTImageProcessor": {
        **_SQUARE,
        "resample": FILTERS.index("bilinear"),
        "default_to_square": True,
    },
}
