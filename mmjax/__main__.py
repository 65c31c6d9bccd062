"""The commands by name: `python -m mmjax` lists them, `python -m mmjax train ...` runs one."""

import ast
import importlib.util
import runpy
import sys
from pathlib import Path

from mmjax.config import nearest

COMMANDS = {
    "train": "mmjax.train",
    "evaluate": "mmjax.evaluate",
    "plan": "mmjax.plan",
    "preflight": "mmjax.preflight",
    "replay": "mmjax.replay",
    "generate": "mmjax.generate",
    "sample": "mmjax.sample",
    "unclip": "mmjax.unclip",
    "transcribe": "mmjax.transcribe",
    "zero_shot": "mmjax.zero_shot",
    "detect": "mmjax.detect",
    "segment": "mmjax.segment",
    "search": "mmjax.search",
    "serve": "mmjax.serve",
    "interpolate": "mmjax.interpolate",
    "export": "mmjax.export",
    "inspect": "mmjax.data.inspect",
    "convert": "mmjax.data.convert",
    "shards": "mmjax.data.shards",
    "pack": "mmjax.pack",
    "cluster_video": "mmjax.cluster_video",
    "features": "mmjax.photos.features",
}


def summary(module: str) -> str:
    """The first line of a command's docstring, without importing it."""
    found = importlib.util.find_spec(module)
    if found.submodule_search_locations:
        found = importlib.util.find_spec(f"{module}.__main__")
    return ast.get_docstring(ast.parse(Path(found.origin).read_text())).partition("\n")[0]


def main() -> None:
    """Run the command that the first argument names, or list all."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print("usage: mmjax COMMAND ...   (mmjax COMMAND --help shows its flags)\n")
        for command, module in COMMANDS.items():
            print(f"  {command:14s}{summary(module)}")
        return
    if name not in COMMANDS:
        print(
            f"error: there is no command '{name}'.{nearest(name, COMMANDS)} The commands are "
            f"{', '.join(COMMANDS)}.",
            file=sys.stderr,
        )
        raise SystemExit(2)
    sys.argv = [f"mmjax {name}", *rest]
    runpy.run_module(COMMANDS[name], run_name="__main__")


if __name__ == "__main__":
    main()
