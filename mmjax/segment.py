r"""Segment images with a SAM: what points and boxes mean, or everything.

    python -m mmjax.segment photos/ --model=sam-vit-base --out=masks
    python -m mmjax.segment cat.jpg --model=runs/sam --out=masks --point=120,80 --point=40,9,0
    python -m mmjax.segment cat.jpg --model=sam-vit-base --out=masks --box=10,20,200,180

The model is a workdir or a published folder. For each image NAME there is, in the folder --out,
NAME.json with the masks as RLE as in COCO, the best first, and NAME.png, the image with the masks
in colors. A point is x,y in pixels, on the object; with ",0" behind it is beside the object. All
points and the box are of one object; a single point gives three masks, as it may mean a part, a
whole or what is around it. Without any, masks are looked for from a grid of points.
"""

# ruff: noqa: E402
from mmjax.process import command

if __name__ == "__main__":  # before jax is imported: see command.start
    ARGS = command.start(
        __doc__,
        ("images", {"nargs": "+", "help": "image files and folders of them"}),
        ("--model", {"required": True, "help": "a run's workdir or a published folder"}),
        ("--out", {"required": True, "help": "the folder for the results"}),
        ("--point", {"action": "append", "default": [], "help": "x,y or x,y,0; may be repeated"}),
        ("--box", {"help": "x0,y0,x1,y1"}),
        ("--points", {"type": int, "default": 32, "help": "along a side of the grid"}),
        ("--crop_layers", {"type": int, "default": 0, "help": "layers of 2x2, 4x4, ... crops"}),
        ("--iou", {"type": float, "default": 0.88, "help": "smallest predicted IoU"}),
        ("--stability", {"type": float, "default": 0.95, "help": "smallest stability"}),
        ("--overlap_iou", {"type": float, "default": 0.7, "help": "largest IoU of two boxes"}),
    )

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mmjax import pretrained, storage
from mmjax.data import image_files, rle
from mmjax.data.transforms import parse as transforms
from mmjax.masks import rules
from mmjax.masks.automatic import Found, Settings, automatic_masks
from mmjax.masks.prompted import prompted_masks
from mmjax.masks.segmenter import Prompt, Segmenter
from mmjax.process.printable import printable
from mmjax.process.progress import Progress


def numbers(text: str, counts: Sequence[int], form: str) -> list[float]:
    """The numbers of a flag.

    Raises:
      ValueError: no numbers, or another count than one of `counts`.
    """
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) not in counts or not np.isfinite(found).all():
        raise ValueError(f"'{text}' is not of the form {form}.")
    return found


def read_prompt(points: Sequence[str], box: str | None) -> Prompt | None:
    """The prompt that the flags describe; None without any.

    Raises:
      ValueError: a flag of another form.
    """
    if not points and box is None:
        return None
    form = "x,y or x,y,0 (--point)"
    given = [numbers(point, (2, 3), form) for point in points]
    for text, point in zip(points, given):
        if point[2:] not in ([], [0], [1]):
            raise ValueError(f"'{text}' is not of the form {form}: 0 is beside the object.")
    return Prompt(
        [(point[0], point[1]) for point in given],
        [int(point[2]) if len(point) == 3 else 1 for point in given],
        None if box is None else tuple(numbers(box, (4,), "x0,y0,x1,y1 (--box)")),
    )


def as_json(found: Sequence[Found]) -> str:
    """The masks as one JSON text, with COCO's names."""
    rows = [
        {
            "segmentation": {
                "size": [x.mask.height, x.mask.width],
                "counts": rle.to_string(x.mask),
            },
            "bbox": rle.box(x.mask).tolist(),
            "area": rle.area(x.mask),
            "predicted_iou": round(x.iou, 6),
            "stability_score": round(x.stability, 6),
            "point": list(x.point),
        }
        for x in found
    ]
    return json.dumps(rows, indent=1)


def colored(image: np.ndarray, found: Sequence[Found]) -> bytes:
    """A PNG of the image [H, W, 3] with the masks in colors, small ones on top."""
    canvas, rng = image.astype(np.float32), np.random.default_rng(0)
    for one in sorted(found, key=lambda x: -rle.area(x.mask)):
        mask = rle.decode(one.mask)
        canvas[mask] = 0.45 * canvas[mask] + 0.55 * rng.integers(0, 256, 3)
    buffer = io.BytesIO()
    Image.fromarray(canvas.round().astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def main() -> None:
    """The command."""
    prompt = read_prompt(ARGS.point, ARGS.box)
    settings = Settings(
        points=ARGS.points,
        crop_layers=ARGS.crop_layers,
        iou=ARGS.iou,
        stability=ARGS.stability,
        overlap_iou=ARGS.overlap_iou,
    )
    settings.check()
    paths, out = image_files.find(ARGS.images), Path(ARGS.out)
    names = [path.stem for path in paths]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"Two images are called '{printable(twice[0])}': segment them apart.")
    results = [out / f"{name}.{kind}" for name in names for kind in ("json", "png")]
    old = [path for path in results if path.exists()]  # perhaps an image that is segmented
    if old:
        raise ValueError(f"'{printable(old[0])}' exists already: give another --out.")
    segmenter = Segmenter(pretrained.load(ARGS.model))
    out.mkdir(parents=True, exist_ok=True)
    faults = 0
    for path, name in zip(paths, names):
        try:
            data = path.read_bytes()
            image_files.check_image(data)
            image = transforms.parse("decode")({"image": data}, np.random.default_rng(0))["image"]
            if prompt is not None:
                prompt.check(image.shape[:2], segmenter.low)
                found = prompted_masks(segmenter, segmenter.see(image), prompt)
            else:
                crops = rules.crop_boxes(*image.shape[:2], settings.crop_layers, settings.overlap)
                with Progress(printable(path), len(crops) * settings.points**2) as bar:
                    found = automatic_masks(segmenter, image, settings, bar.advance)
        except (OSError, ValueError) as error:
            faults += 1
            print(printable(f"{path}: {error}"), file=sys.stderr)
            continue
        storage.write(out / f"{name}.png", colored(image, found))
        storage.write(out / f"{name}.json", as_json(found))
        best = f", the best with a predicted IoU of {found[0].iou:.3f}" if found else ""
        print(printable(f"{path}: {len(found)} masks{best}"), flush=True)
    if faults == len(paths):
        raise ValueError(f"None of the {len(paths)} images could be segmented: see above.")


if __name__ == "__main__":
    command.run(main)
