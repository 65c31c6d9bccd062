"""Files that are written whole or not at all: a kill or a full disk leaves the old one."""

from mmjax.storage import write

__all__ = ["write"]
