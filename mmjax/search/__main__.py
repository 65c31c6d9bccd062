"""Search a folder of images by text or by an image.

    python -m mmjax.search index ~/Photos
    python -m mmjax.search query "a dog on the beach"
    python -m mmjax.search query --image=FILE
    ... --model=runs/clip_emoji --index=INDEX

The model is a run's workdir or a published folder; the default one, for photographs, is built at
first use. Run `index` again after images were added, removed or changed: only new ones are
embedded. An interrupted `index` resumes when run again.
Search is exact, or approximate with --approximate (pip install -e '.[approximate]').
"""

# ruff: noqa: E402
import sys

from mmjax.process import command

if __name__ == "__main__":  # before jax is imported: see command.start
    ARGS = command.start(
        __doc__,
        ("action", {"choices": ("index", "query")}),
        ("what", {"nargs": "?", "help": "index: the folder; query: the text"}),
        ("--index", {"help": "folder of the index [one in the cache]"}),
        (
            "--model",
            {"help": "index: the model [the default]; query: its new location, if it was moved"},
        ),
        (
            "--rebuild",
            {
                "action": "store_true",
                "help": "index: make a new index; the old one is kept beside it",
            },
        ),
        ("--image", {"help": "query: an image file instead of text"}),
        ("--k", {"type": int, "default": 10, "help": "query: number of results"}),
        ("--storage", {"default": "float16", "help": "index: float32, float16 or int8 vectors"}),
        (
            "--approximate",
            {
                "action": "store_true",
                "help": "index: also build an HNSW graph; query: search it",
            },
        ),
        ("--json", {"action": "store_true", "help": "query: print one JSON object per line"}),
    )

    if ARGS.action == "query":
        from mmjax.search import quick

        command.run(lambda: quick.answer(ARGS) and sys.exit())  # before jax is imported

from pathlib import Path

from mmjax.data import image_files
from mmjax.embedder import open_embedder
from mmjax.photos.default import named_or_default
from mmjax.process.printable import printable
from mmjax.search import approximate, build, lookup, text_tower
from mmjax.search.index import (
    INDEX,
    Index,
    Writer,
    create,
    default_index,
    open_index,
    read_about,
    set_aside,
)
from mmjax.search.quick import print_hits
from mmjax.workdir import lock as workdir_lock

LISTED = 10  # maximum number of unreadable files printed; all are in the index


def index(args) -> None:
    """Create or update an index."""
    if not args.what:
        raise ValueError("`index` needs a folder of images: see --help.")
    root, folder = Path(args.what), Path(args.index or default_index())
    if not root.is_dir():
        raise ValueError(f"There is no folder '{root}' to index.")
    if not image_files.below(root, image_files.Skipped()):
        image_files.find([root])  # refuses it, before a model is built
    there = (folder / INDEX).exists() and not args.rebuild
    if there and Path(of := read_about(folder)["root"]) != root.resolve():
        raise ValueError(
            f"The index '{folder}' is of the folder '{of}': give '{root}' another --index."
        )
    if args.approximate:
        approximate.check_package()
    model = named_or_default(args.model)
    embedder = open_embedder(model)
    with workdir_lock.held(folder, "--index"):
        if args.rebuild and (folder / INDEX).exists():
            print(f"the old index is kept in {set_aside(folder)}")
        if not (folder / INDEX).exists():
            dim = embedder.loaded.config["embed_dim"]
            create(folder, root, model, embedder.fingerprint, dim, args.storage)
        writer = Writer(folder)
        writer.check_model(embedder.fingerprint, model)
        done = build.update(writer, embedder)
        lookup.write(folder, writer.about["generation"])
        text_tower.save(embedder)
        if args.approximate:
            approximate.build(Index(folder))
    print(
        f"{folder}: {writer.rows:,} different images in {writer.about['storage']}; "
        f"{done.embedded:,} embedded, {done.duplicates:,} duplicates added, {done.removed:,} "
        f"deleted files removed, {len(done.unreadable):,} unreadable"
    )
    for path, fault in list(done.unreadable.items())[:LISTED]:
        print(printable(f"  unreadable: {path}: {fault}"))
    if len(done.unreadable) > LISTED:
        print(f"  ... and {len(done.unreadable) - LISTED:,} more, in {folder}/files-*.jsonl")


def query(args) -> None:
    """Print the best images for a text or an image."""
    if bool(args.what) == bool(args.image):
        raise ValueError('Give `query` either words in quotes or --image=FILE: "a red bus".')
    opened = open_index(args.index)
    graph = approximate.Graph(opened) if args.approximate else None
    image = image_files.read(args.image) if args.image else b""
    model = named_or_default(args.model or opened.about["model"])
    embedder = open_embedder(model, sizes=(1,))
    opened.check_model(embedder.fingerprint, model)
    asked = embedder.images([embedder.prepare(image)]) if image else embedder.texts([args.what])
    (hits,) = opened.search(asked, args.k, by=graph)
    print_hits(hits, opened.root, args.json)


def main() -> None:
    """The command."""
    {"index": index, "query": query}[ARGS.action](ARGS)


if __name__ == "__main__":
    command.run(main)
