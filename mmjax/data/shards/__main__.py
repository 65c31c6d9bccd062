"""Index webdataset shards ahead of training, on one machine or on several that share the cache.

    python -m mmjax.data.shards --pattern='DIR/{00000..41407}.tar' --part=0/16

Only headers and captions are read. A run with these shards indexes them by itself where that is
missing; an indexing that was interrupted goes on when the command is run again.
"""

# ruff: noqa: E402
from mmjax.process import command

if __name__ == "__main__":  # before anything heavy is imported: see command.start
    ARGS = command.start(
        __doc__,
        ("--pattern", {"required": True, "help": "as in the source's config"}),
        ("--caption_key", {"default": "caption", "help": "as in the source's config [caption]"}),
        ("--media", {"default": "image", "choices": ("image", "video"), "help": "[image]"}),
        (
            "--part",
            {"default": "0/1", "metavar": "I/N", "help": "each N-th shard from I on [0/1]"},
        ),
        (
            "--window",
            {
                "type": int,
                "default": 0,
                "metavar": "SHARDS",
                "help": "as in the source's config: by one process, in the order of a run [0]",
            },
        ),
        ("--processes", {"type": int, "help": "how many work at the same time [one per CPU]"}),
        ("--cache", {"help": "the folder of the indexes [shard_index in the data cache]"}),
    )

import os
import re
import sys
from pathlib import Path

from mmjax.data.shards.build import Part, Settings, build, build_windows
from mmjax.data.shards.merged import cache_folder
from mmjax.data.shards.pattern import find_shards


def _part(text: str) -> Part:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise ValueError(f"--part is '{text}': write I/N with I from 0 to N - 1, such as 0/16.")
    return int(match[1]), int(match[2])


def main() -> None:
    """Index, and print what was done: a line per shard where another process of mmjax reads it."""
    if ARGS.window < 0:
        raise ValueError(f"--window is {ARGS.window}: use a number of shards, or 0.")
    if ARGS.window and ARGS.processes not in (None, 1):
        raise ValueError(
            f"--processes is {ARGS.processes}, and with --window one process indexes: start more "
            "of them, each with its --part."
        )
    shards, part = find_shards(ARGS.pattern), _part(ARGS.part)
    settings = Settings(ARGS.caption_key, ARGS.media)
    cache = Path(ARGS.cache) if ARGS.cache else cache_folder()
    one = ARGS.processes == 1 and not sys.stdout.isatty()
    advance = (lambda: print("indexed", flush=True)) if one else None
    if ARGS.window:
        os.nice(10)  # beside a run
        build_windows(ARGS.pattern, shards, settings, cache, ARGS.window, part, advance)
    else:
        build(ARGS.pattern, shards, settings, cache, part, ARGS.processes, advance)
    if not one:
        # In windows a part says what comes first, and all are indexed in the end.
        mine = shards if ARGS.window else shards[part[0] :: part[1]]
        print(f"indexed: {len(mine):,} of {len(shards):,} shards, in {cache}")


if __name__ == "__main__":
    command.run(main)
