"""What went wrong with a file, as one sentence."""

import os

_LOGIN = {
    "gs": "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to "
    "the file of a service account",
    "s3": "run `aws configure`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
}


class StorageError(ValueError):
    """A file that cannot be read or written."""


class MissingFileError(StorageError, FileNotFoundError):
    """A file that does not exist."""


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
        if what == "write":
            return StorageError(
                f"Cannot write {path}: the bucket {bucket} does not exist; create it, or correct "
                "its name."
            )
        return MissingFileError(f"{path} does not exist, or its bucket does not.")
    name, code = type(error).__name__, str(getattr(error, "code", ""))
    if code == "401" or "Credentials" in name or name == "RefreshError":
        return StorageError(
            f"Cannot {what} {path}: there are no credentials for {bucket} that are valid; "
            f"{_LOGIN[scheme]}."
        )
    if code == "403" or isinstance(error, PermissionError) or str(error).startswith("Forbidden"):
        return StorageError(
            f"Cannot {what} {path}: this account has no permission to do so in {bucket}; give it "
            "one to list, read and write there, or use another bucket."
        )
    why = (str(error).strip().splitlines() or [name])[0][:300]
    return StorageError(
        f"Cannot {what} {path}, after several tries ({why}): look whether {bucket} can be reached, "
        "and start again."
    )
