"""Make tests/golden/align/ with transformers' ALIGN at a small random size.

    python tests/golden/make_align.py

Made with torch 2.13.0, transformers 5.23.0 and tokenizers 0.23.3. Images have an odd height,
strides and kernels differ, and one block is padded the other way (depthwise_padding).
"""

from golden_files import write
from small_models import TEXT, embedded, folder, redraw, wordpiece, write_json
from transformers import AlignConfig, AlignModel


def main():
    out = folder(__file__)
    config = AlignConfig(
        text_config=TEXT | {"num_attention_heads": 4},
        vision_config={
            "kernel_sizes": [3, 5, 3],
            "image_size": 33,
            "width_coefficient": 0.25,
            "depth_coefficient": 1.4,
            "depth_divisor": 4,
            "in_channels": [32, 16, 24],
            "out_channels": [16, 24, 40],
            "depthwise_padding": [4],
            "strides": [1, 2, 2],
            "num_block_repeats": [1, 1, 1],
            "expand_ratios": [1, 6, 4],
            "hidden_dim": 64,
        },
        projection_dim=12,
        temperature_init_value=0.07,
    )
    model = redraw(AlignModel(config))
    model.save_pretrained(out)
    wordpiece(out, 150)
    write_json(
        out / "preprocessor_config.json",
        {
            "crop_size": {"height": 33, "width": 33},
            "do_center_crop": True,
            "do_normalize": False,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.485, 0.456, 0.406],
            "image_processor_type": "EfficientNetImageProcessor",
            "image_std": [0.47853944, 0.4732864, 0.47434163],
            "include_top": False,
            "resample": 2,
            "rescale_factor": 1 / 127.5,
            "rescale_offset": True,
            "size": {"height": 40, "width": 40},
        },
    )
    blocks = []
    for block in [model.vision_model.embeddings, *model.vision_model.encoder.blocks]:
        block.register_forward_hook(lambda _, args, y: blocks.append(y.permute(0, 2, 3, 1)))
    found = embedded(model, 33, 38, [0.5] * 3, [0.5] * 3)
    write(out, **found, **{f"image_block_{i}": x for i, x in enumerate(blocks)})


if __name__ == "__main__":
    main()
