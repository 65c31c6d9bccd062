"""Make tests/golden/chinese_clip/ with transformers' Chinese-CLIP at a small random size.

    python tests/golden/make_chinese_clip.py

Made with torch 2.13.0, transformers 5.23.0 and tokenizers 0.23.3, in half precision.
"""

import torch
from golden_files import write
from small_models import TEXT, embedded, folder, pixel_values, redraw, wordpiece, write_json
from transformers import ChineseCLIPConfig, ChineseCLIPModel

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def main():
    out = folder(__file__)
    wordpiece(out, 150)
    config = ChineseCLIPConfig(
        text_config=TEXT | {"num_attention_heads": 3},
        vision_config={
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 28,
            "image_size": 24,
            "patch_size": 8,
        },
        projection_dim=12,
    )
    model = redraw(ChineseCLIPModel(config)).half()
    model.save_pretrained(out)
    model = model.float()
    size = {"height": 24, "width": 24}
    write_json(
        out / "preprocessor_config.json",
        {
            "crop_size": size,
            "do_center_crop": False,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": MEAN,
            "image_std": STD,
            "image_processor_type": "ChineseCLIPImageProcessor",
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": size,
        },
    )
    found = embedded(model, 24, 24, MEAN, STD)
    pixels = pixel_values(found["image"], MEAN, STD)
    with torch.inference_mode():
        vision = model.vision_model(pixels, output_hidden_states=True)
    write(out, **found, image_layers=torch.stack(vision.hidden_states))


if __name__ == "__main__":
    main()
