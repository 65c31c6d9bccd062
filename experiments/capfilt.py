r"""CapFilt: add generated captions to a noisy set, and remove captions that do not match.

    python -m experiments.capfilt --captioner=runs/captioner --filter=runs/filter \
        --config=configs/blip_emoji.py --source=data.train --target=DIR

The captioner generates one caption per image by nucleus sampling; the filter keeps a caption, of
the set or generated, where it gives a match a probability of at least --threshold. Without
--captioner nothing is generated, without --filter nothing is removed. Both are workdirs or
published folders; an image that loses all captions is left out. DIR is then a source:

    --config.data.train="{'kind': 'array_record', 'root': 'DIR'}"

Beside each shard NAME.candidates.jsonl has every caption, kept or not, with its score, and
report.html shows examples. An interrupted command continues where it stopped.

Source: BLIP, Li et al. 2022 (arXiv 2201.12086), section 3.3; its nucleus has p = 0.9, and the
matching head decides at 0.5.
"""

# ruff: noqa: E402
from mmjax.process import command

if __name__ == "__main__":  # before jax is imported: see command.start
    ARGS = command.start(
        __doc__,
        ("--config", {"required": True, "help": "a file of configs/"}),
        ("--source", {"default": "data.train", "help": "the noisy source [data.train]"}),
        ("--target", {"required": True, "help": "output folder"}),
        ("--captioner", {"help": "a model that generates captions"}),
        ("--filter", {"help": "a model that matches images and texts"}),
        ("--threshold", {"type": float, "default": 0.5, "help": "probability of a match [0.5]"}),
        ("--top_p", {"type": float, "default": 0.9, "help": "of nucleus sampling [0.9]"}),
        ("--max_new_tokens", {"type": int, "default": 20, "help": "of a caption [20]"}),
        ("--batch_size", {"type": int, "default": 64}),
        ("--seed", {"type": int, "default": 0}),
        ("--shard_records", {"type": int, "default": 10_000, "help": "examples per shard [10000]"}),
    )

import dataclasses
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.serialization import msgpack_serialize

from experiments.capfilt_report import write_report
from mmjax import config as configs
from mmjax import pretrained
from mmjax.data.bad_records import BadRecord
from mmjax.data.open_source import open_source, sources_of
from mmjax.data.record_writer import Record, write_set
from mmjax.data.source import Source
from mmjax.data.transforms import parse as transforms
from mmjax.data.transforms.captions import captions_of
from mmjax.models.systems import make_system
from mmjax.pretrained import Pretrained
from mmjax.workdir import jsonl
from mmjax.workdir.checksum import checksums

CANDIDATES = ".candidates.jsonl"
ORIGINAL, GENERATED = "original", "generated"

Captioner = Callable[[Sequence[np.ndarray], int], list[str]]  # pixels, seed -> captions
Filter = Callable[[Sequence[np.ndarray], Sequence[str]], np.ndarray]  # -> P(match) [N]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What determines the result besides the models.

    Raises:
      ValueError: a value out of its range.
    """

    threshold: float = 0.5
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self):
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"--threshold is {self.threshold}; it must be a probability, 0 to 1.")
        if self.batch_size < 1:
            raise ValueError(f"--batch_size is {self.batch_size}; it must be 1 or more.")


def make_captioner(loaded: Pretrained, batch_size: int, decode: dict[str, Any]) -> Captioner:
    """A captioner from a loaded model.

    Raises:
      ValueError: a model that generates no text about images, or a wrong setting of decoding.
    """
    system, name = make_system({"model": loaded.config}), loaded.config["name"]
    if system.generate is None or not loaded.transform:
        raise ValueError(f"A '{name}' generates no captions: --captioner.")
    if loaded.config.get("answers"):
        raise ValueError(f"This '{name}' answers questions and generates no captions: --captioner.")
    generate = system.generate(loaded.need_tokenizer(), decode)

    def captions(images: Sequence[np.ndarray], seed: int) -> list[str]:
        rows = _padded([loaded.image(image) for image in images], batch_size)
        return list(generate(loaded.variables, {"image": np.stack(rows)}, seed).texts)[
            : len(images)
        ]

    return captions


def make_filter(loaded: Pretrained, batch_size: int) -> Filter:
    """A filter from a loaded model with a matching head (`match_logits` [B, 2]).

    Raises:
      ValueError: a model without one.
    """
    words, length = loaded.need_tokenizer(), loaded.text_length
    apply = jax.jit(loaded.model.apply)

    def batch_of(images, texts):
        text, mask = words.encode(_padded(texts, batch_size), length)
        pixels = np.stack(_padded([loaded.image(image) for image in images], batch_size))
        return {"image": pixels, "text": text, "text_mask": mask}

    blank = np.zeros((64, 64, 3), np.uint8)
    found = jax.eval_shape(loaded.model.apply, loaded.variables, batch_of([blank], ["a"]))
    if "match_logits" not in found or found["match_logits"].shape[-1] != 2:
        raise ValueError(
            f"A '{loaded.config['name']}' does not match images and texts: --filter needs a model "
            "with a matching head, such as a BLIP."
        )

    def probabilities(images, texts) -> np.ndarray:
        parts = []
        for start in range(0, len(texts), batch_size):
            part = slice(start, start + batch_size)
            logits = apply(loaded.variables, batch_of(images[part], texts[part]))["match_logits"]
            p = np.asarray(jax.nn.softmax(logits, -1))[:, 1]
            parts.append(p[: len(texts[part])])
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    return probabilities


def _padded(items: Sequence[Any], size: int) -> list[Any]:
    """The items, the last repeated up to `size`, so that every call has one shape."""
    return [*items, *[items[-1]] * (size - len(items))]


def bootstrap(
    open_noisy: Callable[[], Source],
    target: Path,
    captioner: Captioner | None,
    filter_: Filter | None,
    settings: Settings,
    *,
    models: dict[str, Any],
    shard_records: int = 10_000,
    max_bad_records: int | float = 0.01,
) -> None:
    """Write the bootstrapped set; see the module's docstring.

    Args:
      models: what identifies the models and the source, for the comparison with an earlier run.

    Raises:
      ValueError: neither a captioner nor a filter, or see `write_set`.
    """
    if captioner is None and filter_ is None:
        raise ValueError("Neither --captioner nor --filter is given: the set would be copied.")

    def records(source: Source, indices: range, shard: Path) -> Iterator[Record]:
        rows: list[dict[str, Any]] = []
        for start in range(0, len(indices), settings.batch_size):
            part = indices[start : start + settings.batch_size]
            yield from _batch(source, part, captioner, filter_, settings, rows)
        path = shard.with_name(shard.name + CANDIDATES)
        path.unlink(missing_ok=True)
        jsonl.append(path, rows)

    write_set(
        target,
        open_noisy,
        records,
        settings={**models, **dataclasses.asdict(settings)},
        what="Bootstrapping",
        shard_records=shard_records,
        max_bad_records=max_bad_records,
        extra=(CANDIDATES, "report.html"),
    )


def _batch(source, indices, captioner, filter_, settings, rows) -> Iterator[Record]:
    """The records of a batch; adds a row per candidate to `rows`."""
    read = {i: _read(source, i) for i in indices}
    examples = {i: found for i, found in read.items() if not isinstance(found, BadRecord)}
    candidates = [
        {"index": i, "kind": ORIGINAL, "text": text, **_noise(example)}
        for i, (example, _) in examples.items()
        for text in captions_of(example, source.class_names)
    ]
    if captioner is not None and examples:
        # The first index makes the seed: a batch has the same captions after a resume.
        seed = settings.seed + indices[0]
        texts = captioner([pixels for _, pixels in examples.values()], seed)
        candidates += [
            {"index": i, "kind": GENERATED, "text": text}
            for i, text in zip(examples, texts, strict=True)
            if text.strip()
        ]
    candidates.sort(key=lambda c: c["index"])  # stable: the original captions first
    if filter_ is not None and candidates:
        images = [examples[c["index"]][1] for c in candidates]
        scores = filter_(images, [c["text"] for c in candidates])
        for candidate, score in zip(candidates, scores, strict=True):
            candidate["score"] = round(float(score), 4)
    for candidate in candidates:
        candidate["kept"] = bool(candidate.get("score", 1.0) >= settings.threshold)
    rows += candidates
    for i, found in read.items():
        if isinstance(found, BadRecord):
            yield found
            continue
        kept = [c["text"] for c in candidates if c["index"] == i and c["kept"]]
        kept = list(dict.fromkeys(kept))  # a generated caption may equal an original one
        yield msgpack_serialize({**found[0], "captions": kept}) if kept else None


def _noise(example: dict[str, Any]) -> dict[str, bool]:
    """Whether the captions are those of another image, where the source says so."""
    return {"swapped": bool(example["swapped"])} if "swapped" in example else {}


def _read(source: Source, index: int) -> tuple[dict[str, Any], np.ndarray] | BadRecord:
    """An example and its pixels."""
    key, kind = f"number {index}", "unreadable_image"
    try:
        example = source[index]
        key = example.get("key", key)
        pixels = _decode(example, np.random.default_rng(0))["image"]
        kind = "missing_caption"
        captions_of(example, source.class_names)
    except OSError as error:
        return BadRecord(key, "missing_file", str(error))
    except ValueError as error:
        return BadRecord(key, kind, str(error))
    return example, pixels


_decode = transforms.parse("decode")


def _identity(path: str, loaded: Pretrained) -> str:
    """The model's path and a checksum of its parameters, which further training changes."""
    sums = {name: int(x) for name, x in checksums(loaded.params).items()}
    return f"{path} ({zlib.crc32(json.dumps(sums, sort_keys=True).encode()):08x})"


def main() -> None:
    """The command."""
    config = configs.load(ARGS.config, ARGS.overrides)
    sources = sources_of(config)
    if ARGS.source not in sources:
        raise ValueError(
            f"{ARGS.config} has no source '{ARGS.source}'; it has {', '.join(sources)}."
        )
    target, noisy = Path(ARGS.target).expanduser(), sources[ARGS.source].to_dict()
    settings = Settings(ARGS.threshold, ARGS.batch_size, ARGS.seed)
    captioner = filter_ = None
    models: dict[str, Any] = {"source": noisy, "captioner": None, "filter": None}
    decode = {"temperature": 1.0, "top_p": ARGS.top_p, "max_new_tokens": ARGS.max_new_tokens}
    if ARGS.captioner:
        loaded = pretrained.load(ARGS.captioner)
        captioner = make_captioner(loaded, ARGS.batch_size, decode)
        models |= {"captioner": _identity(ARGS.captioner, loaded), "decode": decode}
    if ARGS.filter:
        loaded = pretrained.load(ARGS.filter)
        filter_ = make_filter(loaded, ARGS.batch_size)
        models["filter"] = _identity(ARGS.filter, loaded)
    bootstrap(
        lambda: open_source(noisy, workdir=target),
        target,
        captioner,
        filter_,
        settings,
        models=models,
        shard_records=ARGS.shard_records,
        max_bad_records=noisy.get("max_bad_records", 0.01),
    )
    rows = [row for path in sorted(target.glob(f"*{CANDIDATES}")) for row in jsonl.read(path)]
    source = open_source(noisy, workdir=target)
    write_report(target / "report.html", source, rows, models | {"threshold": ARGS.threshold})
    for kind in (ORIGINAL, GENERATED):
        own = [row["kept"] for row in rows if row["kind"] == kind]
        if own:
            print(f"{kind} captions: {sum(own):,} of {len(own):,} kept")
    print(f"report: {target / 'report.html'}")
    if not any(row["kept"] for row in rows):
        raise ValueError(
            f"No caption is kept, so the set in {target} is empty: lower --threshold "
            f"({ARGS.threshold}), or use another --filter."
        )
    print("the set:", {"kind": "array_record", "root": str(target)})


if __name__ == "__main__":
    command.run(main)
