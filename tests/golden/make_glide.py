"""Make tests/golden/{glide,glide_upsampler,glide_inpaint}: small random models of the original
code, with what they give for some inputs.

    pip install torch==2.13.0 && git clone https://github.com/openai/glide-text2im
    PYTHONPATH=glide-text2im python tests/golden/make_glide.py

The texts have 5, 1 and no valid tokens. The upsampler's images are not square.
"""

import json
import types
from pathlib import Path

import torch
from glide_text2im import nn, text2im_model, unet
from golden_files import randomize, write
from safetensors.torch import save_file

HERE = Path(__file__).parent
GROUPS = 2
VOCABULARY, LENGTH = 11, 6
CLASSES = {
    "glide": text2im_model.Text2ImUNet,
    "glide_upsampler": text2im_model.SuperResText2ImUNet,
    "glide_inpaint": text2im_model.InpaintText2ImUNet,
}


def smaller_groups(channels, swish=0.0):
    """The original's norm, which has 32 groups at any width."""
    return nn.GroupNorm32(num_channels=channels, num_groups=GROUPS, swish=swish)


def make(name, size, given, **config):
    """One golden folder."""
    torch.manual_seed(0)
    multiples = [int(x) for x in config["channel_mult"].split(",")]
    sides = [int(x) for x in config["attention_resolutions"].split(",")]
    model = CLASSES[name](
        text_ctx=LENGTH,
        xf_width=config["xf_width"],
        xf_layers=config["xf_layers"],
        xf_heads=config["xf_heads"],
        xf_final_ln=True,
        tokenizer=types.SimpleNamespace(n_vocab=VOCABULARY),
        xf_padding=True,
        in_channels=3,
        model_channels=config["num_channels"],
        out_channels=6,
        num_res_blocks=config["num_res_blocks"],
        attention_resolutions=tuple(config["image_size"] // side for side in sides),
        channel_mult=multiples,
        num_head_channels=config["num_head_channels"],
        use_scale_shift_norm=True,
        resblock_updown=True,
    )
    with torch.no_grad():
        for table in (model.positional_embedding, model.padding_embedding):
            table.normal_(0, 0.1)
    model = randomize(model).eval()
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    save_file({k: x.contiguous() for k, x in model.state_dict().items()},
              folder / "model.safetensors")  # fmt: skip
    config |= {"text_ctx": LENGTH, "n_vocab": VOCABULARY, "num_groups": GROUPS, "dropout": 0.0}
    config |= {"inpaint": name == "glide_inpaint", "super_res": name == "glide_upsampler"}
    (folder / "config.json").write_text(json.dumps({"model_type": "glide", **config}, indent=1))
    rows = 3
    x = torch.randn(rows, 3, *size)
    time = torch.tensor([0, 37, 999])
    text = torch.randint(0, VOCABULARY, (rows, LENGTH))
    mask = torch.arange(LENGTH)[None] < torch.tensor([[5], [1], [0]])
    with torch.no_grad():
        found = model(x, time, tokens=text, mask=mask, **given)
        text_emb = model.get_text_emb(text, mask)
    image = given.get("inpaint_image")
    pixels = {} if image is None else {"image": ((image + 1) * 127.5).round().to(torch.uint8)}
    given = {**given, **pixels}
    last = {k: v.permute(0, 2, 3, 1) for k, v in {"noised": x, "output": found, **given}.items()}
    rest = {"time": time.float(), "text": text.int(), "text_mask": mask}
    rest |= {"condition": text_emb["xf_proj"], "context": text_emb["xf_out"].permute(0, 2, 1)}
    write(folder, **last, **rest)


if __name__ == "__main__":
    unet.normalization = smaller_groups
    sizes = {"num_channels": 4, "num_res_blocks": 1, "num_head_channels": 2}
    sizes |= {"xf_width": 12, "xf_layers": 2, "xf_heads": 3, "image_size": 8}
    base = {**sizes, "channel_mult": "1,2", "attention_resolutions": "4"}
    make("glide", (8, 8), {}, **base)
    low = torch.randn(3, 3, 2, 3, generator=torch.Generator().manual_seed(1))
    wide = {**sizes, "channel_mult": "1,1,2", "attention_resolutions": "4,2"}
    make("glide_upsampler", (8, 12), {"low_res": low}, **wide, noise_schedule="linear")
    generator = torch.Generator().manual_seed(2)
    image = torch.randint(0, 256, (3, 3, 8, 8), generator=generator, dtype=torch.uint8)
    known = {"inpaint_image": image / 127.5 - 1}
    known["inpaint_mask"] = (torch.rand(3, 1, 8, 8, generator=generator) < 0.5).float()
    make("glide_inpaint", (8, 8), known, **base)
