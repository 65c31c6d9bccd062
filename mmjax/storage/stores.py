"""The stores behind URLs: fsspec's file systems, set up for many processes that share a bucket."""

import functools
import importlib.util
import logging
import os
import time

from mmjax.storage.errors import StorageError

PACKAGES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}  # of a scheme; and mmjax's extra
_PAUSES = (0.2, 1.0, 5.0)  # before a body that has broken off is asked for again
SILENT_SECONDS = 60  # without a byte, after which a request is repeated


class OtherVersionError(Exception):
    """An object that is of another version, or missing."""


def read_version(url: str | os.PathLike, version: str, start: int, end: int) -> bytes:
    """The bytes from `start` to `end` of an object of a version: its generation (gs) or ETag (s3).

    Raises:
      OtherVersionError: the object is of another one.
    """
    store, url = of(url), os.fspath(url)
    if url.startswith("gs://"):
        try:
            # gcsfs before 2026.8 does not pass the generation on.
            return store.cat_file(url, start=start, end=end, generation=version)
        except FileNotFoundError:
            raise OtherVersionError from None
    from fsspec.asyn import sync

    bucket, key, _ = store.split_path(url)
    wanted = {"Range": f"bytes={start}-{end - 1}", "IfMatch": f'"{version}"'}

    async def ask() -> bytes:
        answer = await store._call_s3("get_object", Bucket=bucket, Key=key, **wanted)
        async with answer["Body"] as body:
            return await body.read()

    def once() -> bytes:
        try:
            return sync(store.loop, ask)
        except FileNotFoundError:
            raise OtherVersionError from None
        except OSError as error:
            if "PreconditionFailed" in str(error.__cause__):
                raise OtherVersionError from None
            raise

    for pause in _PAUSES:
        try:
            return once()
        except Exception as error:
            # s3fs repeats requests, but not one whose answer breaks off in its body.
            if not type(error).__module__.startswith(("aiohttp.", "botocore.")):
                raise
        time.sleep(pause)
    return once()


def of(url: str | os.PathLike):
    """The fsspec file system of a URL; threads may share it.

    Raises:
      StorageError: a scheme that mmjax does not know, a URL without a bucket, or a package that is
        missing.
    """
    scheme, _, rest = os.fspath(url).partition("://")
    if scheme not in PACKAGES:
        known = " and ".join(f"{name}://" for name in PACKAGES)
        raise StorageError(f"{url} is no URL that mmjax can open: those begin with {known}.")
    if not rest.partition("/")[0]:
        raise StorageError(f"{url} names no bucket: write it as {scheme}://BUCKET/NAME.")
    return _opened(scheme, os.getpid())


@functools.cache
def _opened(scheme: str, process: int):
    """The file system of a scheme; one for each process, as a fork shares no connections."""
    package, extra = PACKAGES[scheme]
    if importlib.util.find_spec(package) is None:
        raise StorageError(
            f"{scheme}:// needs the package {package}: pip install 'mmjax[{extra}]' (in a "
            f"checkout: pip install -e '.[{extra}]')."
        )
    # Orbax opens file systems of its own: the settings are fsspec's defaults for them too.
    settings = {"use_listings_cache": False}  # other processes write
    if scheme == "gs":
        # Else it asks for the type of each bucket, by a second client.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        if "STORAGE_EMULATOR_HOST" in os.environ:  # gcsfs reads it, and tensorstore:
            os.environ.setdefault("TENSORSTORE_GCS_HTTP_URL", os.environ["STORAGE_EMULATOR_HOST"])
        import aiohttp

        settings["requests_timeout"] = aiohttp.ClientTimeout(
            sock_connect=SILENT_SECONDS, sock_read=SILENT_SECONDS
        )
    logging.getLogger(package).setLevel(logging.CRITICAL)  # it also logs what it raises
    import fsspec
    from fsspec.config import conf

    conf.setdefault(scheme, {}).update(settings)
    return fsspec.filesystem(scheme)
