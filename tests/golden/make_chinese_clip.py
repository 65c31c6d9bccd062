"""Make tests/golden/chinese_clip/ with transformers' Chinese-CLIP at a small random size.

    python tests/golden/make_chinese_clip.py

Made with torch 2.13.0, transformers 5.23.0 and tokenizers 0.23.3, in half precision.
"""

import torch
from golden_files import write
from small_models import folder, images, padded, pixel_values, redraw, wordpiece, write_json
from transformers import ChineseCLIPConfig, ChineseCLIPModel

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def main():
    out = folder(__file__)
    wordpiece(out, 150)
    config = ChineseCLIPConfig(
        text_config={
            "vocab_size": 160,
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "intermediate_size": 40,
            "max_position_embeddings": 20,
        },
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
    ids, mask = padded([12, 7, 3], 12, 5, 160)
    image = images(3, 24, 24)
    with torch.inference_mode():
        found = model(ids, pixel_values(image, MEAN, STD), mask.long(), output_hidden_states=True)
        text = model.text_model(ids, mask.long(), output_hidden_states=True)
        vision = model.vision_model(pixel_values(image, MEAN, STD), output_hidden_states=True)
    write(
        out,
        image=image,
        text=ids.int(),
        text_mask=mask,
        image_embed=found.image_embeds,
        text_embed=found.text_embeds,
        logits_per_image=found.logits_per_image,
        text_layers=torch.stack(text.hidden_states),
        image_layers=torch.stack(vision.hidden_states),
    )


if __name__ == "__main__":
    main()
