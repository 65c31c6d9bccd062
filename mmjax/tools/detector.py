"""Where things are in an image, by an OWL-ViT."""

from mmjax.data.transforms.decode import decode_image
from mmjax.detection.detector import Detector, open_detector
from mmjax.tools.labels import read_labels
from mmjax.tools.run import Given

TEMPLATES = ("a photo of a {}",)
THRESHOLD = 0.1  # lowest score
OVERLAP = 0.5  # largest IoU with a better box
MOST = 8  # boxes of a result


class Detect:
    """A tool: "cat, dog" -> "dog 0.62 at 0.10, 0.25, 0.60, 0.90; ..." in the latest image.

    Boxes are x0, y0, x1, y1 from 0 to 1, as `crop` takes them, the best first.
    """

    def __init__(self, detector: Detector):
        self._detector = detector

    def __call__(self, arguments: str, given: Given) -> str:
        labels = read_labels(arguments)
        if not labels:
            raise ValueError("say what to find, such as 'cat, dog'")
        image = self._detector.prepare(given.image())
        height, width = decode_image(given.image()).shape[:2]
        queries = self._detector.texts(labels, TEMPLATES)
        (found,) = self._detector.find([image], [(height, width)], queries, THRESHOLD, OVERLAP)
        boxes = found.boxes / [width, height, width, height]
        lines = [
            f"{labels[label]} {score:.2f} at {', '.join(f'{x:.2f}' for x in box)}"
            for box, score, label in zip(boxes, found.scores, found.labels)
        ]
        return "; ".join(lines[:MOST]) or "nothing is found"


def open_detect(path: str) -> Detect:
    """The tool of a model's folder.

    Raises:
      ValueError: see `open_detector`.
    """
    return Detect(open_detector(path))
