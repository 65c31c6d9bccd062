"""Data from a Debian package: downloaded and unpacked without root privileges."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path


def find_tree(
    package: str, folder: str, pattern: str, root: str | os.PathLike | None, cache: Path
) -> Path:
    """The package's `folder`: below `root`, or unpacked from the package into `cache`.

    Args:
      package: its name; folder: path of its data, such as 'usr/share/openclipart/svg'.
      pattern: glob of the files that must exist, such as '*.svg'.
      root: a manually unpacked package or the folder itself; None: download the package.

    Raises:
      ValueError: no such files, or the package cannot be downloaded; names the commands.
    """
    by_hand = (
        f"run `apt-get download {package} && dpkg -x {package}_*.deb {package}` on a Debian or "
        "Ubuntu machine and set root to that folder."
    )
    if root is not None:
        tree = next((t for t in (Path(root) / folder, Path(root)) if t.is_dir()), None)
        if tree is None or next(tree.rglob(pattern), None) is None:
            raise ValueError(f"There are no {pattern} files under root {root}: {by_hand}")
        return tree
    unpacked = cache / package
    if not unpacked.is_dir():
        if not (shutil.which("apt-get") and shutil.which("dpkg")):
            raise ValueError(
                f"This data set needs Debian's package '{package}' and there is no apt-get here: "
                f"{by_hand}"
            )
        with tempfile.TemporaryDirectory(dir=cache) as work:
            _run(["apt-get", "download", package], work, by_hand)
            _run(["dpkg", "-x", next(Path(work).glob("*.deb")).name, "tree"], work, by_hand)
            Path(work, "tree").rename(unpacked)
    return unpacked / folder


def _run(command: list[str], folder: str, by_hand: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ValueError(
            f"`{' '.join(command)}` failed ({reason}): run `apt-get update` first, or {by_hand}"
        )
