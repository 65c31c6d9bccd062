"""Make tests/golden/open_clip*/ with open_clip's own models at a small random size.

    python tests/golden/make_open_clip.py

Made with torch 2.13.0, open_clip_torch 3.3.0 and tokenizers 0.23.3. Torchvision, which open_clip
imports for its image transforms alone, may be missing. `open_clip` is its plain layout, on images
that are not square; `open_clip_custom` has its text tower apart ("custom_text"), QuickGELU, a norm
after pooling, and text that is pooled at its end token; `open_clip_coca` is a CoCa.
"""

import importlib.util
import json
import sys
from unittest.mock import MagicMock

import transformers  # noqa: F401  first, as it asks for torchvision in its own way

if importlib.util.find_spec("torchvision") is None:
    for name in ("", ".transforms", ".transforms.functional", ".ops", ".ops.misc"):
        sys.modules["torchvision" + name] = MagicMock()

import torch
from golden_files import write
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from safetensors.torch import save_file
from small_models import byte_level, folder, images, padded, pixel_values, redraw

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
VISION = {"image_size": [24, 16], "layers": 2, "width": 24, "head_width": 8, "patch_size": 8}
TEXT = {"context_length": 10, "vocab_size": 300, "width": 16, "heads": 2, "layers": 3}


def main():
    out, model, pixels, ids, more = make("open_clip", CLIP, {})
    finish(out, more, model(pixels, ids), model, ids, pixels)

    vision = {**VISION, "image_size": 24, "mlp_ratio": 2.5, "norm_kwargs": {"eps": 1e-6}}
    vision |= {"final_ln_after_pool": True}
    text = {**TEXT, "pool_type": "eos", "eos_id": 2}
    settings = {"vision_cfg": vision, "text_cfg": text, "quick_gelu": True, "init_logit_bias": -10}
    out, model, pixels, ids, more = make("open_clip_custom", CustomTextCLIP, settings)
    finish(out, more, model(pixels, ids), model, ids, pixels)

    vision = {**VISION, "attentional_pool": True, "attn_pooler_queries": 6, "attn_pooler_heads": 4}
    multimodal = {**TEXT, "layers": 2, "attn_pooler_heads": 2}
    settings = {
        "vision_cfg": {**vision, "output_tokens": True},
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": multimodal,
    }
    out, model, pixels, ids, more = make("open_clip_coca", CoCa, settings)
    found = model(pixels, ids, output_labels=False)
    finish(out, {**more, "text_logits": found["logits"]}, found, model, ids, pixels)


def make(name, kind, settings):
    """The folder, the model, and inputs for it."""
    out = folder(__file__, name)
    byte_level(out, 290, ["!", "<|startoftext|>", "<|endoftext|>"], wrapped=False)
    config = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT, **settings}
    model = redraw(kind(**config, **({"output_dict": True} if kind is not CoCa else {})))
    if kind is not CLIP:
        config["custom_text"] = True
    mode = "shortest" if isinstance(config["vision_cfg"]["image_size"], int) else "squash"
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": mode}
    whole = {"model_cfg": config, "preprocess_cfg": preprocess}
    (out / "open_clip_config.json").write_text(json.dumps(whole, indent=2) + "\n")
    tensors = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(tensors, out / "open_clip_model.safetensors")
    # The end token is the largest id, as in CLIP's vocabulary, or 2 where the config says so.
    end = 2 if "eos_id" in config["text_cfg"] else 299
    ids, mask = padded([10, 6, 3], 10, 3, 299)
    ids[torch.arange(3), mask.sum(1) - 1] = end
    size = config["vision_cfg"]["image_size"]
    image = images(3, *((size, size) if isinstance(size, int) else size))
    inputs = {"image": image, "text": ids.int(), "text_mask": mask}
    return out, model, pixel_values(image, MEAN, STD), ids, inputs


def finish(out, more, found, model, ids, pixels):
    """Write what the model gave, and what its layers give."""
    layers = model.visual.forward_intermediates(
        pixels, output_fmt="NLC", output_extra_tokens=True, intermediates_only=True
    )
    if isinstance(model, CLIP):
        text = model.forward_intermediates(text=ids, intermediates_only=True)
    else:
        text = model.text.forward_intermediates(ids, intermediates_only=True, output_fmt="NLC")
    prefix, patches = layers["image_intermediates_prefix"], layers["image_intermediates"]
    write(
        out,
        **more,
        image_embed=found["image_features"],
        text_embed=found["text_features"],
        logit_scale=found["logit_scale"],
        image_layers=torch.stack([torch.cat(pair, 1) for pair in zip(prefix, patches)]),
        text_layers=torch.stack(text["text_intermediates"]),
    )


if __name__ == "__main__":
    with torch.inference_mode():
        main()
