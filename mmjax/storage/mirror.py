"""A folder of a bucket as a local folder: pulled when it is opened, pushed as it changes.

A run's files besides its arrays are small, and are written by many (TensorBoard, matplotlib, JSON
lines that are appended to). They are written in a temporary folder, its mirror, and every file that
has changed is written whole into the bucket: at each checkpoint, at the end, and meanwhile from
time to time. A kill loses at most the lines since then, all of them after the last checkpoint.

One process writes. Another one of the run may write files of its own, see `own`, which are pushed
in the same way.

Checkpoints in gs:// are not mirrored: orbax writes them there itself, each process its part. In
s3://, which orbax cannot write, they are.
"""

import concurrent.futures
import contextlib
import os
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from mmjax.storage import files
from mmjax.storage.errors import StorageError

MARK = ".url"  # in a mirror: what it is a mirror of
CHECKPOINTS = "checkpoints"
WHOLE = "_CHECKPOINT_METADATA"  # pushed last of a checkpoint: without it, it is not whole
PUSH_SECONDS = 20.0
_BLOCK = 64 << 20
_NOT_MIRRORED = re.compile(
    rf"{re.escape(MARK)}|.*\.lock(/.*)?|.*\.partial|.*\.orbax-checkpoint-tmp(/.*)?"
)


@contextlib.contextmanager
def opened(folder: str | os.PathLike, write: bool = False) -> Iterator[Path]:
    """The local folder to use for a folder that may be a URL; a local one is that folder itself.

    A single file is read as well, such as a model of one file.

    Args:
      write: push what changes. Only one process may, the one that holds the lock.

    Raises:
      StorageError: the bucket cannot be read; or what was written could not be pushed at the end:
        it then stays in the mirror, which is named.
    """
    if not files.is_url(folder):
        yield Path(folder)
        return
    url, above = os.fspath(folder).rstrip("/"), Path(tempfile.mkdtemp(prefix="mmjax-")).resolve()
    here = above / url.rpartition("/")[2]  # its name is that of the run
    pushed = True
    try:
        if not write and _is_file(url):
            _download(url, here)
            yield here
            return
        here.mkdir()
        mirror = _OPEN[str(here)] = Mirror(url, here, write)
        mirror.pull()
        with mirror.pushing():
            try:
                yield here
            finally:
                pushed = False
                mirror.push()
                pushed = True
    except StorageError as error:
        if pushed:
            raise
        raise StorageError(f"{error} What is not there yet is in {here}.") from error
    finally:
        _OPEN.pop(str(here), None)
        if pushed:
            shutil.rmtree(above, ignore_errors=True)


def local(folder: str | os.PathLike) -> Path:
    """A folder that must be a local one.

    Raises:
      StorageError: it is a URL.
    """
    if files.is_url(folder):
        raise StorageError(f"{folder} is a URL here: open it by mmjax.storage.mirror.opened.")
    return Path(folder)


def url_of(folder: str | os.PathLike) -> str | None:
    """The URL that a local folder is a mirror of; None if it is none."""
    try:
        return (Path(folder) / MARK).read_text()
    except OSError:
        return None


def checkpoints_of(folder: Path) -> Path | epath.Path:
    """Where the checkpoints of a run are: in its folder, or in gs:// if that is a mirror of it."""
    url = url_of(folder) or ""
    return (epath.Path(url) if url.startswith("gs://") else folder) / CHECKPOINTS


def shown(path: str | os.PathLike) -> str:
    """A path for a message: inside a mirror, the URL that stands for it."""
    if files.is_url(path):
        return os.fspath(path)
    path = Path(path)
    for folder in (path, *path.parents):
        if url := url_of(folder):
            inside = path.relative_to(folder).as_posix()
            return url if inside == "." else files.join(url, inside)
    return str(path)


def own(path: Path) -> Path:
    """A file that this process may write: the path itself, but in a mirror that is open for reading
    one whose name is that of this process."""
    mirror = _OPEN.get(str(path.parent))
    if mirror is None or mirror.write:
        return path
    return path.with_name(f"{path.stem}{mirror.mine}{path.suffix}")


def push(folder: str | os.PathLike) -> None:
    """Push what has changed in a mirror that is open for writing, now; else nothing.

    Raises:
      StorageError: the bucket cannot be written.
    """
    mirror = _OPEN.get(str(folder))
    if mirror and mirror.write:
        mirror.push()


def sync(folder: str | os.PathLike) -> None:
    """`push`; a mirror that is open for reading pulls instead what another process has pushed.

    Raises:
      StorageError: the bucket cannot be read or written.
    """
    mirror = _OPEN.get(str(folder))
    if mirror:
        (mirror.push if mirror.write else mirror.pull)()


class Mirror:
    """A local folder and its URL."""

    def __init__(self, url: str, here: Path, write: bool):
        self.url, self.here, self.write = url, here, write
        self.mine = f"-{socket.gethostname()}-{os.getpid()}"
        self._pulled: dict[str, files.Stat] = {}
        self._pushed: dict[str, tuple[int, int]] = {}  # name -> size and time of change
        self._lock = threading.Lock()
        (here / MARK).write_text(url)

    def pull(self) -> None:
        """Read what the bucket has and the local folder has not, or of another version."""
        there = {name[len(self.url) + 1 :]: x for name, x in files.listing(self.url).items()}
        steps = {name.rpartition("/")[0] for name in there if name.endswith(f"/{WHOLE}")}
        if any(name.startswith(f"{CHECKPOINTS}/") for name in there):
            (self.here / CHECKPOINTS).mkdir(exist_ok=True)
        wanted = {
            name: stat
            for name, stat in there.items()
            if self._is_mirrored(name)
            and (_step_of(name) is None or _step_of(name) in steps)
            and (self.write or self.mine not in name)  # which is newer here
        }
        changed = [name for name, stat in wanted.items() if self._pulled.get(name) != stat]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda k: _download(files.join(self.url, k), self.here / k), changed))
        self._pulled = wanted
        if self.write:
            self._pushed = self._changes()

    def push(self) -> None:
        """Write what has changed into the bucket; checkpoints after all else, each mark last."""
        with self._lock:
            now = self._changes()
            if not self.write and not now:
                return
            if not (self.here / MARK).exists():  # else all of it would be removed from the bucket
                raise StorageError(
                    f"The temporary folder {self.here} of {self.url} has been emptied: set TMPDIR "
                    "to one that nothing cleans up, and start again."
                )
            changed = [name for name in now if self._pushed.get(name) != now[name]]
            for name in sorted(changed, key=_order):
                try:
                    content = (self.here / name).read_bytes()
                except FileNotFoundError:  # removed meanwhile
                    continue
                files.write(files.join(self.url, name), content)
                self._pushed[name] = now[name]
            gone = [name for name in self._pushed if name not in now and self.write]
            for name in sorted(gone, key=_order, reverse=True):
                files.remove(files.join(self.url, name))
                del self._pushed[name]

    @contextlib.contextmanager
    def pushing(self) -> Iterator[None]:
        """Push from time to time while inside, at most a tenth of the time."""
        done = threading.Event()

        def keep_pushing():
            pause = PUSH_SECONDS
            while not done.wait(pause):
                began = time.monotonic()
                with contextlib.suppress(StorageError, OSError):  # again the next time
                    self.push()
                pause = max(PUSH_SECONDS, 10 * (time.monotonic() - began))

        thread = threading.Thread(target=keep_pushing, name="mmjax.storage.mirror", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _changes(self) -> dict[str, tuple[int, int]]:
        found = {}
        for at, _, names in os.walk(self.here):
            for name in names:
                path = Path(at, name)
                inside = path.relative_to(self.here).as_posix()
                written = self.write or self.mine in inside
                if written and self._is_mirrored(inside):
                    with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                        stat = path.stat()
                        found[inside] = (stat.st_size, stat.st_mtime_ns)
        return found

    def _is_mirrored(self, name: str) -> bool:
        if self.url.startswith("gs://") and name.startswith(f"{CHECKPOINTS}/"):
            return False
        return not _NOT_MIRRORED.fullmatch(name)


_OPEN: dict[str, Mirror] = {}  # the mirrors of this process, by their folder


def _is_file(url: str) -> bool:
    try:
        files.stat(url)
    except FileNotFoundError:
        return False
    return True


def _download(url: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    at = 0
    with open(path, "wb") as file:
        while block := files.read(url, at, _BLOCK):
            file.write(block)
            at += len(block)
            if len(block) < _BLOCK:
                break


def _step_of(name: str) -> str | None:
    """The folder of the checkpoint that a file is of."""
    parts = name.split("/")
    return "/".join(parts[:2]) if parts[0] == CHECKPOINTS and len(parts) > 2 else None


def _order(name: str) -> tuple[tuple[int, str], bool, str]:
    """Checkpoints last, one after the other, each with its mark last: a kill costs only one."""
    folder = _step_of(name) or ""
    step = folder.rpartition("/")[2]
    return (int(step) if step.isdecimal() else -1, folder), name.endswith(f"/{WHOLE}"), name
