"""What went wrong with a file, as one sentence."""

import os
import re

# What tensorstore says of a bucket that it cannot reach.
_CODES = "UNAVAILABLE|DEADLINE_EXCEEDED|PERMISSION_DENIED|UNAUTHENTICATED|RESOURCE_EXHAUSTED"
_FORBIDDEN = re.compile(r"^Forbidden|PERMISSION_DENIED")
_LOGIN = {
    "gs": "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to "
    "the file of a service account",
    "s3": "run `aws configure`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
}


class StorageError(ValueError):
    """A file that cannot be read or written."""


class MissingFileError(StorageError, FileNotFoundError):
    """A file that does not exist."""


class ChangedFileError(StorageError):
    """A file that is no longer of the version that was asked for."""


def is_unreachable(error: BaseException) -> bool:
    """Whether an error says nothing about a file, but that its bucket could not be asked."""
    if isinstance(error, StorageError) and not isinstance(
        error, MissingFileError | ChangedFileError
    ):
        return True
    name = type(error).__name__
    return (
        type(error).__module__.startswith(("aiohttp.", "botocore.", "google.auth."))
        or isinstance(error, PermissionError | ConnectionError | TimeoutError)
        or name == "HttpError"
        or bool(re.search(rf"^Forbidden|\b({_CODES})\b", str(error)))
    )


def sentence(error: Exception, path: str | os.PathLike, what: str) -> StorageError:
    """The StorageError for an error of the system or of a store.

    Args:
      what: what was tried: "read", "write", ...
    """
    scheme, is_url, rest = os.fspath(path).partition("://")
    if not is_url:
        if isinstance(error, FileNotFoundError):
            return MissingFileError(f"{path} does not exist.")
        return StorageError(f"Cannot {what} {path}: {getattr(error, 'strerror', None) or error}.")
    bucket = f"{scheme}://{rest.partition('/')[0]}"
    if isinstance(error, FileNotFoundError):
        if what in ("write", "list"):
            return StorageError(
                f"Cannot {what} {path}: the bucket {bucket} does not exist; create it, or correct "
                "its name."
            )
        return MissingFileError(f"{path} does not exist, or its bucket does not.")
    name, code = type(error).__name__, str(getattr(error, "code", ""))
    if code == "401" or "Credentials" in name or "UNAUTHENTICATED" in str(error):
        return StorageError(
            f"Cannot {what} {path}: there are no credentials for {bucket} that are valid; "
            f"{_LOGIN[scheme]}."
        )
    if code == "403" or isinstance(error, PermissionError) or _FORBIDDEN.search(str(error)):
        return StorageError(
            f"Cannot {what} {path}: this account has no permission to do so in {bucket}; give it "
            "one to list, read and write there, or use another bucket."
        )
    why = " ".join(str(error).split())[:300] or name
    return StorageError(
        f"Cannot {what} {path}, after several tries ({why}): look whether {bucket} can be reached, "
        "and start again."
    )
