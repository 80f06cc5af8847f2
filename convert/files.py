"""Files that appear whole or not at all: temporary neighbour, fsync, rename; hashes; JSON; a lock between processes."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from convert.errors import ConvertError, FileError

_READ_SIZE = 1 << 20


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary neighbour of ``path`` to write; rename it over ``path`` when the block ends well.

    Whatever ends the block early (an exception, Ctrl-C) removes the neighbour and leaves ``path`` as it was. A killed
    process may leave a ``.NAME.*.partial`` file, which nothing ever reads.

    Raises:
        FileError: no space, no permission, a read-only or missing folder.
    """
    path = Path(path)
    with explained(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            _flush_to_disk(temporary)
            temporary.chmod(_mode_of(path))  # mkstemp makes files that only their owner can read
            temporary.replace(path)
            _flush_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def explained(path: Path | str) -> Iterator[None]:
    """Turn an ``OSError`` inside the block into a ``FileError`` that says what to do about it."""
    try:
        yield
    except OSError as error:
        cause, hint = _explanation(error)
        where = error.filename or path
        raise FileError(f"{cause}: {where}", hint) from error


def sha256_of(*paths: Path | str) -> str:
    """Return the SHA-256 of a file, or of all as one, as 64 hexadecimal digits, reading 1 MiB at a time."""
    digest = hashlib.sha256()
    for path in paths:
        with explained(path), open(path, "rb") as file:
            while block := file.read(_READ_SIZE):
                digest.update(block)
    return digest.hexdigest()


def read_json_object(path: Path, refusal: Callable[[str, str], ConvertError]) -> dict[str, Any]:
    """Return the JSON object that a file of a model or adapter folder holds.

    Args:
        path: the file.
        refusal: makes the error from what is wrong with the folder, as in "it has no config.json", and a hint, which
            may be empty.

    Raises:
        ConvertError: what ``refusal`` makes of a missing file, or of one that holds no JSON object.
        FileError: unreadable.
    """
    if not path.is_file():
        raise refusal(f"it has no {path.name}", "Give the folder that save_pretrained wrote.")
    with explained(path):
        raw = path.read_bytes()
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise refusal(f"its {path.name} is no valid JSON ({error})", "") from error
    if not isinstance(value, dict):
        raise refusal(f"its {path.name} is no JSON object", "")
    return value


def require_space(folder: Path | str, n_bytes: int) -> None:
    """Refuse to start where ``folder`` (or its nearest existing parent) has less than ``n_bytes`` free.

    Raises:
        FileError: with both figures in the message.
    """
    place = Path(folder).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    with explained(place):
        free = shutil.disk_usage(place).free
    if free < n_bytes:
        raise FileError(
            f"Not enough disk space in {place}: {_megabytes(n_bytes)} needed, {_megabytes(free)} free",
            "Free some space, or choose another folder.",
        )


@contextlib.contextmanager
def locked(path: Path | str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the one lock that all processes share for ``path`` (a ``.NAME.lock`` beside it).

    Waits as long as it takes; ``on_wait`` is called once if another process holds the lock. The operating system
    releases the lock of a process that dies. The empty lock file stays: removing it would let two processes in.
    """
    import filelock

    path = Path(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            if on_wait is not None:
                on_wait()
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _explanation(error: OSError) -> tuple[str, str]:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return "The disk is full", "Free some space, or choose another folder."
        case errno.EFBIG:
            return "The file is larger than is allowed here", "Choose another folder."
        case errno.EACCES | errno.EPERM:
            return "No permission", "Check who owns it and its permissions, or choose another folder."
        case errno.EROFS:
            return "The file system is read-only", "Choose a folder that can be written."
        case errno.ENOENT:
            return "No such file or folder", "Check the path."
        case errno.EISDIR:
            return "This is a folder, not a file", "Give the path of a file."
        case errno.ENOTDIR | errno.EEXIST:
            return "A file stands where a folder is needed", "Move it away, or choose another folder."
    return error.strerror or str(error), ""


def _mode_of(path: Path) -> int:
    """Return the permissions a file at ``path`` should have: its old ones, else what the umask allows."""
    if path.exists():
        return path.stat().st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def _flush_to_disk(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Make the rename itself durable; folders cannot be opened for this on Windows."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems refuse to sync a folder; the rename is still atomic
    finally:
        os.close(descriptor)


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.0f} MB"
