"""Make tests/golden/dall_e/ with the discrete VAE of openai/DALL-E, small.

    python tests/golden/make_dall_e.py

Made with torch 2.13.0 and DALL-E 0.1 (whose checks of minimal sizes are off). The parameters are
in half precision; `expected` has the output of every convolution.
"""

import attr
import torch
from dall_e import Decoder, Encoder, map_pixels, unmap_pixels
from dall_e.utils import Conv2d
from golden_files import write
from safetensors.torch import save_file
from small_models import folder, images, redraw, write_json

SIZES = {"n_hid": 4, "n_blk_per_group": 2, "vocab_size": 20}
FIRST = 6


def traced(model, name, x):
    """The output of a model, and that of each of its convolutions by name."""
    found = {}
    for path, module in model.named_modules():
        if isinstance(module, Conv2d):
            module.register_forward_hook(
                lambda _, __, y, path=path: found.__setitem__(f"{name}.{path}", y)
            )
    return model(x), found


def main():
    out = folder(__file__)
    attr.validators.set_disabled(True)
    parts = {"encoder": Encoder(**SIZES), "decoder": Decoder(n_init=FIRST, **SIZES)}
    tensors = {}
    for seed, (name, part) in enumerate(parts.items()):
        redraw(part, seed).half().float()
        tensors |= {f"{name}.{k}": x.half() for k, x in part.state_dict().items()}
    save_file(tensors, out / "model.safetensors")
    sizes = {"n_init": FIRST, "group_count": 4, "image_size": 24}
    write_json(out / "config.json", {"model_type": "dall_e", **SIZES, **sizes})
    image = images(1, 16, 24)
    pixels = (image.double() / 255).permute(0, 3, 1, 2).float().contiguous()
    with torch.inference_mode():
        logits, layers = traced(parts["encoder"], "encoder", map_pixels(pixels))
        codes = logits.argmax(1)
        one_hot = torch.nn.functional.one_hot(codes, SIZES["vocab_size"])
        stats, more = traced(parts["decoder"], "decoder", one_hot.permute(0, 3, 1, 2).float())
        rebuilt = unmap_pixels(torch.sigmoid(stats[:, :3]))
        layers = {k: x.permute(0, 2, 3, 1) for k, x in {**layers, **more}.items()}
    found = {"codes": codes.int(), "reconstruction": rebuilt.permute(0, 2, 3, 1)}
    write(out, image=image, **found, **layers)


if __name__ == "__main__":
    main()
