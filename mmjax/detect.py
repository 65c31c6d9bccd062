"""Find the boxes of given labels in images, or of what another image shows (one-shot detection).

    python -m mmjax.detect photos/ cat.jpg --model=MODEL --labels="cat,dog" --output=found/
    python -m mmjax.detect photos/ --model=MODEL --query_image=cup.jpg

Each image gives one line of JSON: its path, and of each detection the label, the score from 0 to 1,
and the box x0, y0, x1, y1 in pixels. With --query_image also `relative`, the score on a scale where
that of the best detection in the image is 1. MODEL is a run of an `owlvit`, or a published folder
of OWL-ViT or OWLv2.
"""

# ruff: noqa: E402
from mmjax.process import command

if __name__ == "__main__":  # before jax is imported: see command.start
    ARGS = command.start(
        __doc__,
        ("images", {"nargs": "+", "help": "image files and folders of them"}),
        ("--model", {"required": True, "help": "a run's workdir or a published folder"}),
        ("--labels", {"help": '"cat,dog", or a file with one per line'}),
        ("--query_image", {"help": "an image of the object to be found, in place of labels"}),
        ("--templates", {"nargs": "+", "default": ["a photo of a {}"], "help": "for labels"}),
        ("--threshold", {"type": float, "help": "lowest score; 0.1, or 0.6 with --query_image"}),
        (
            "--overlap",
            {"type": float, "help": "largest IoU with a better box; 1, or 0.3 with --query_image"},
        ),
        ("--output", {"help": "a folder for the images with their boxes drawn"}),
    )

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mmjax.data import image_files
from mmjax.data.transforms import image_ops
from mmjax.data.transforms.decode import decode_image
from mmjax.detection.boxes import Detections, relative_scores
from mmjax.detection.detector import BATCH, Detector, open_detector
from mmjax.detection.drawing import draw
from mmjax.process.printable import printable
from mmjax.process.progress import Progress
from mmjax.workdir import jsonl
from mmjax.zero_shot import read_labels, read_templates


def detect(
    detector: Detector,
    queries: np.ndarray,
    paths: Sequence[Path],
    threshold: float,
    overlap: float = 1.0,
) -> Iterator[tuple[Path, Detections | ValueError]]:
    """Each path, in order, with its detections in pixels, or why it cannot be read.

    Args:
      queries: [Q, E], from `Detector.texts` or `Detector.object_in`.
    """

    def prepare(path: Path) -> tuple[np.ndarray, tuple[int, int]]:
        data = path.read_bytes()
        return detector.prepare(data), decoded(data).size[::-1]

    waiting: list[tuple[Path, tuple | ValueError]] = []

    def flush() -> Iterator[tuple[Path, Detections | ValueError]]:
        good = [read for _, read in waiting if not isinstance(read, ValueError)]
        images, sizes = zip(*good, strict=True) if good else ((), ())
        found = iter(detector.find(images, sizes, queries, threshold, overlap) if good else ())
        for path, read in waiting:
            yield path, read if isinstance(read, ValueError) else next(found)
        waiting.clear()

    for read in image_files.stream(prepare, paths):
        waiting.append(read)
        if len(waiting) == BATCH:
            yield from flush()
    yield from flush()


def decoded(data: bytes) -> Image.Image:
    """An encoded image, as the model's transform decodes it."""
    return image_ops.to_pillow(decode_image(data, None, (255, 255, 255)))


def check_fraction(name: str, value: float | None, default: float) -> float:
    """The value, or its default; raises ValueError if it is not from 0 to 1."""
    value = default if value is None else value
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}: use a number from 0 to 1.")
    return value


def main() -> None:
    """The command."""
    if (ARGS.labels is None) == (ARGS.query_image is None):
        raise ValueError('Say what is to be found: either --labels="cat,dog" or --query_image.')
    shown = ARGS.query_image is not None
    labels = [Path(ARGS.query_image).stem] if shown else read_labels(ARGS.labels)
    templates = read_templates(ARGS.templates)
    threshold = check_fraction("--threshold", ARGS.threshold, 0.6 if shown else 0.1)
    overlap = check_fraction("--overlap", ARGS.overlap, 0.3 if shown else 1.0)
    query = image_files.read_checked(ARGS.query_image) if shown else b""
    paths = image_files.find(ARGS.images)
    output = Path(ARGS.output) if ARGS.output else None
    if output:
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"--output '{output}' is not a folder ({error.strerror}).") from None
    detector = open_detector(ARGS.model)
    if shown:
        queries, _ = detector.object_in(detector.prepare(query))
    else:
        queries = detector.texts(labels, templates)
    faults = 0
    with Progress("Images", len(paths)) as bar:
        for number, (path, found) in enumerate(
            detect(detector, queries, paths, threshold, overlap)
        ):
            if isinstance(found, ValueError):
                faults += 1
                print(jsonl.line({"path": str(path), "error": str(found)}), flush=True)
            else:
                print(jsonl.line(_line(path, found, labels, shown)), flush=True)
                if output:
                    drawn = draw(decoded(path.read_bytes()), found, labels)
                    drawn.save(output / f"{number:05d}_{printable(path.stem)}.png")
            bar.advance()
    if faults == len(paths):
        raise ValueError(f"None of the {len(paths)} images can be read: see above.")
    if faults:
        print(f"{faults} of {len(paths)} images cannot be read.", file=sys.stderr)


def _line(path: Path, found: Detections, labels: Sequence[str], relative: bool) -> dict:
    detections = [
        {
            "label": labels[int(label)],
            "score": round(float(score), 4),
            "box": [round(float(x), 1) for x in box],
        }
        for box, score, label in zip(*found, strict=True)
    ]
    if relative:
        for one, score in zip(detections, relative_scores(found.scores), strict=True):
            one["relative"] = round(float(score), 4)
    return {"path": str(path), "detections": detections}


if __name__ == "__main__":
    command.run(main)
