"""The baseline of configs/sam_boards.py: the region of one color that is connected with the click.

    python -m experiments.sam_boards

One click in the middle of each object; the region of pixels whose color differs from that of the
clicked one by at most a tolerance, connected with it. The tolerance is that with the highest mean
IoU on the training boards.
"""

import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw

from configs.sam_boards import HELD_OUT, OBJECTS, SIZE, TRAINING, scenes
from mmjax.data.draws import EVAL, row_rng
from mmjax.data.open_source import open_source
from mmjax.data.transforms.parse import parse
from mmjax.evals.metrics.mask_overlap import mask_iou
from mmjax.models.sam_clicks import central_click
from mmjax.process import command

TOLERANCES = (10, 30, 60, 100, 160)  # sum over the three channels
NEW = (255, 0, 255)


def color_region(image: np.ndarray, row: int, column: int, tolerance: int) -> np.ndarray:
    """The mask [H, W] of the region of one color at a pixel of an image [H, W, 3] uint8."""
    canvas = Image.fromarray(image // 2)  # leaves a color that is in no image
    ImageDraw.floodfill(canvas, (column, row), NEW, thresh=tolerance // 2)
    return (np.asarray(canvas) == NEW).all(-1)


def ious(boards: str, count: int, seed: int) -> np.ndarray:
    """[objects, tolerances]: IoU of the region at the click."""
    source = open_source(scenes(boards, count, seed))
    prepare = parse(f"decode | pad_corner({SIZE}) | regions({OBJECTS}, masks=True)")
    found = []
    for i in range(len(source)):
        made = prepare(source[i], row_rng(0, i, EVAL))  # the same objects as in an evaluation
        masks = made["masks"][made["boxes_mask"]]
        rows, columns, _ = (np.asarray(x) for x in central_click(jnp.asarray(made["masks"])))
        for mask, row, column in zip(masks, rows, columns):
            each = [color_region(made["image"], row, column, t) for t in TOLERANCES]
            found.append(mask_iou(np.stack(each), np.stack([mask] * len(each))))
    return np.stack(found)


def main() -> None:
    """Print the baseline."""
    training, held_out = ious(TRAINING, 40, 2), ious(HELD_OUT, 100, 1)
    best = int(training.mean(0).argmax())
    for name, x in (("training", training), ("held out", held_out)):
        print(
            f"{name} boards, {len(x)} objects:", dict(zip(TOLERANCES, x.mean(0).round(4).tolist()))
        )
    print(f"tolerance {TOLERANCES[best]}: held-out mean IoU {held_out[:, best].mean():.4f}")


if __name__ == "__main__":
    command.run(main)
