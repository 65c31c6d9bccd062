"""Make tests/golden/sam_automatic.json: the masks that the mask-generation pipeline of the original
code finds with the model of tests/golden/sam in one image, without and with crops.

    pip install torch==2.13.0 transformers==5.23.0 pillow
    python tests/golden/make_sam_automatic.py

Suppression is torchvision's; where that cannot be imported, a plain loop replaces it.
"""

import json
import sys
import types
from pathlib import Path

import numpy as np
import torch
import transformers as t
from PIL import Image
from transformers.models.sam import image_processing_pil_sam as original

HERE = Path(__file__).parent
CASES = {
    "whole": {"points_per_crop": 5, "points_per_batch": 7},
    "crops": {"points_per_crop": 4, "points_per_batch": 16, "crops_n_layers": 1},
}
SHIFT, OFFSET = 4.0, 0.2
OVERLAP = 0.7  # IoU of boxes, from which on the worse one is suppressed


def batched_nms(boxes, scores, idxs, iou_threshold):
    """Boxes that overlap no better one too much."""
    assert not idxs.any()
    kept = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        for j in kept:
            low = torch.maximum(boxes[i, :2], boxes[j, :2])
            high = torch.minimum(boxes[i, 2:], boxes[j, 2:])
            common = (high - low).clamp(min=0).prod()
            areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (boxes[i], boxes[j])]
            if common / (sum(areas) - common) > iou_threshold:
                break
        else:
            kept.append(i)
    return torch.tensor(kept, dtype=torch.long)


def suppressed(*given):
    """The last step of the pipeline, with torchvision or without."""
    try:
        import torchvision.ops.boxes  # noqa: F401
    except ImportError:
        for name in ("torchvision", "torchvision.ops", "torchvision.ops.boxes"):
            sys.modules[name] = types.ModuleType(name)
        sys.modules["torchvision.ops.boxes"].batched_nms = batched_nms
    return original._post_process_for_mask_generation(*given)


def main():
    """Write the file."""
    model = t.SamModel.from_pretrained(HERE / "sam", attn_implementation="eager").eval()
    with torch.no_grad():  # its IoUs are negative
        model.mask_decoder.iou_prediction_head.proj_out.bias += SHIFT
    processor = t.SamImageProcessorPil.from_pretrained(HERE / "sam")
    colors = np.random.default_rng(5).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    image = Image.fromarray(colors.repeat(10, 0).repeat(10, 1))
    found = {"colors": colors.tolist(), "shift": SHIFT, "offset": OFFSET}
    for name, settings in CASES.items():
        parts = []
        given = {k: v for k, v in settings.items() if k != "points_per_batch"}
        crops = processor.generate_crop_boxes(
            image,
            32,
            crop_n_layers=given.get("crops_n_layers", 0),
            points_per_crop=given["points_per_crop"],
        )
        boxes, points, images, labels = crops
        points, labels = torch.as_tensor(points).float(), torch.as_tensor(labels)
        inputs = processor(images, return_tensors="pt")
        every, stable = [], []
        with torch.no_grad():
            for c, pixels in enumerate(inputs["pixel_values"]):
                embedding = model.get_image_embeddings(pixels[None])
                out = model(
                    image_embeddings=embedding,
                    input_points=points[:, :, c : c + 1],
                    input_labels=labels[:, :, c : c + 1],
                )
                every.append(out.iou_scores.flatten())
                masks = processor.post_process_masks(
                    out.pred_masks,
                    inputs["original_sizes"][c : c + 1].tolist(),
                    inputs["reshaped_input_sizes"][c : c + 1].tolist(),
                    binarize=False,
                )
                parts.append((masks[0], out.iou_scores[0], boxes[c]))
                stable.append(original._compute_stability_score(masks[0], 0.0, OFFSET).flatten())
        threshold = torch.cat(every).quantile(0.3).item()
        stability = torch.cat(stable).nanquantile(0.4).item()
        kept = [
            processor.filter_masks(
                masks,
                scores,
                (90, 120),
                crop,
                threshold,
                stability,
                stability_score_offset=OFFSET,
            )
            for masks, scores, crop in parts
        ]
        rles = sum((list(x[0]) for x in kept), [])
        scores = torch.cat([torch.as_tensor(x[1]) for x in kept])
        places = torch.cat([torch.as_tensor(x[2]) for x in kept])
        _, scores, rles, places = suppressed(rles, scores, places, OVERLAP)
        found[name] = {
            "threshold": threshold,
            "stability": stability,
            "before": sum(len(x[0]) for x in kept),
            "crops": [[int(v) for v in box] for box in boxes],
            "scores": scores.tolist(),
            "boxes": places.tolist(),
            "counts": [[int(v) for v in rle["counts"]] for rle in rles],
        }
        print(name, len(scores), found[name]["before"], len(torch.cat(every)))
    (HERE / "sam_automatic.json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
