"""The stores behind URLs: fsspec's file systems, set up for many processes that share a bucket."""

import functools
import importlib.util
import logging
import os

from mmjax.storage.errors import StorageError

PACKAGES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}  # of a scheme; and mmjax's extra
SILENT_SECONDS = 60  # without a byte, after which a request is repeated


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
