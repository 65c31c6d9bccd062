"""Make tests/golden/sam: a small random SAM of the original code, with what it gives for some
images and prompts, layer by layer.

    pip install torch==2.13.0 torchvision==0.28.0 transformers==5.23.0 pillow
    python tests/golden/make_sam.py

Images of 32 pixels make a grid of 4 x 4 patches, and windows of 3 x 3 that are padded.
"""

import numpy as np
import torch
import transformers as t
from golden_files import write
from small_models import folder, redraw

SIDE, PATCH, WIDE = 32, 8, 16
GRID = {"image_size": SIDE, "patch_size": PATCH}
VISION = {
    **GRID,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "mlp_dim": 24,
    "output_channels": WIDE,
    "num_pos_feats": WIDE // 2,
    "window_size": 3,
    "global_attn_indexes": [1],
    "layer_norm_eps": 1e-5,
}
PROMPTS = {**GRID, "hidden_size": WIDE, "mask_input_channels": 8, "layer_norm_eps": 1e-5}
DECODER = {
    "hidden_size": WIDE,
    "mlp_dim": 24,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 12,
    "layer_norm_eps": 1e-5,
}
SHAPES = {"wide": (22, 38), "tall": (48, 19)}


def main():
    """Write the folder."""
    out = folder(__file__)
    torch.manual_seed(0)
    config = t.SamConfig(
        vision_config=VISION, prompt_encoder_config=PROMPTS, mask_decoder_config=DECODER
    )
    config._attn_implementation = "eager"
    model = redraw(t.SamModel(config))
    square = {"height": SIDE, "width": SIDE}
    small = 4 * SIDE // PATCH
    processor = t.SamProcessor(
        t.SamImageProcessorPil(
            size={"longest_edge": SIDE},
            pad_size=square,
            mask_size={"longest_edge": small},
            mask_pad_size={"height": small, "width": small},
        )
    )
    model.save_pretrained(out)
    processor.image_processor.save_pretrained(out)

    rng = np.random.default_rng(0)
    kept, images = {}, []
    for name, shape in SHAPES.items():
        images.append(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
        kept[f"{name}_image"] = images[-1]
    # Two objects in each image; the first image has three points for each, the second two.
    points = [rng.uniform(0, 18, (2, n, 2)).round(1).tolist() for n in (3, 2)]
    labels = [[[1, 0, 1], [0, 1, 1]], [[1, 1], [1, -1]]]
    boxes = [
        [[2.0, 3.0, 20.5, 17.0], [8.0, 1.0, 36.0, 21.0]],
        [[0.0, 5.0, 18.0, 41.0], [3, 4, 9, 8]],
    ]
    inputs = processor(images, input_boxes=boxes, return_tensors="pt")
    each = [
        processor(i, input_points=[p], input_labels=[kind], return_tensors="pt")
        for i, p, kind in zip(images, points, labels)
    ]
    # `transformers` pads the points of images, with -10, but not those of objects.
    places, kinds = (
        [torch.nn.functional.pad(x[k].float(), pad, value=-10) for x, pad in zip(each, pads)]
        for k, pads in (
            ("input_points", ((0, 0, 0, 0), (0, 0, 0, 1))),
            ("input_labels", ((0, 0), (0, 1))),
        )
    )
    given = {
        "input_points": torch.cat(places),
        "input_labels": torch.cat(kinds).long(),
        "input_boxes": inputs["input_boxes"].float(),
        "input_masks": torch.randn(2, 1, small, small, generator=torch.Generator().manual_seed(0)),
    }
    kept["sizes"] = inputs["reshaped_input_sizes"].int()
    kept |= {k.removeprefix("input_"): x for k, x in given.items()}
    kept |= {"raw_points": np.asarray(points[0]), "raw_boxes": np.asarray(boxes)}
    p, c, b, m = "input_points", "input_labels", "input_boxes", "input_masks"
    cases = {
        "points": (p, c),
        "boxes": (b,),
        "points_boxes": (p, c, b),
        "masks": (m,),
        "points_masks": (p, c, m),
        "boxes_masks": (b, m),
        "all": (p, c, b, m),
        "none": (),
    }
    with torch.no_grad():
        vision = model.vision_encoder(inputs["pixel_values"], output_hidden_states=True)
        kept["layers"] = torch.stack(vision.hidden_states[-3:]).flatten(2, 3)
        kept["embedding"] = vision.last_hidden_state.permute(0, 2, 3, 1)
        for name, keys in cases.items():
            args = {k: given[k] for k in keys}
            sparse, dense = model.get_prompt_embeddings(**args)
            if name == "points":
                kept["points_tokens"] = sparse
            if name == "masks":
                kept["masks_dense"] = dense.permute(0, 2, 3, 1)
            for which, multimask in (("several", True), ("one", False)):
                out_ = model(
                    image_embeddings=vision.last_hidden_state, multimask_output=multimask, **args
                )
                kept[f"{name}_{which}"], kept[f"{name}_{which}_iou"] = (
                    out_.pred_masks,
                    out_.iou_scores,
                )
        full = processor.post_process_masks(
            list(kept["points_several"]),
            inputs["original_sizes"],
            inputs["reshaped_input_sizes"],
            binarize=False,
        )
        kept["wide_full"] = full[0][0]
    write(out, **kept)


if __name__ == "__main__":
    main()
