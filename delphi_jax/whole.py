"""Files that appear whole or not at all, and the folders that keep them."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

__all__ = ["make_own_folder", "write_whole"]


def make_own_folder(folder: Path) -> None:
    """Make ``folder``, for its owner alone, if it is not there.

    Raises OSError where it cannot be made, and PermissionError where it is someone else's or others can write to it:
    what lies there is not to be trusted then.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    owner = folder.stat()
    if os.name == "posix" and (owner.st_uid != os.getuid() or owner.st_mode & 0o022):
        raise PermissionError(errno.EPERM, "others can write to it: give a folder that is yours alone", str(folder))


def write_whole(target: Path, content: bytes) -> None:
    """Write ``content`` beside ``target`` and rename it over, so that no reader ever sees half a file."""
    scratch = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        scratch.write_bytes(content)
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)
