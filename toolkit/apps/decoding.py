"""From the bytes of a file to lines of text: gzip, byte order marks, and encodings that nobody wrote down."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

from convert.files import explained
from toolkit.errors import DataError, UsageError

HEAD = 1 << 18
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_FALLBACK = "emotion-lrm-cp1252"


def _as_cp1252(error: UnicodeError) -> tuple[str, int]:
    """What is no UTF-8 is read as cp1252: so a stray byte deep in a file costs one character, not the run."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


codecs.register_error(_FALLBACK, _as_cp1252)


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """The content of a file, unpacked where it is gzip (by its first bytes, whatever its name).

    Raises:
        FileError: missing, a folder, no permission.
        DataError: for gzip that is damaged or cut off, whenever that is found.
    """
    with explained(path), contextlib.ExitStack() as stack:
        raw = stack.enter_context(open(path, "rb"))
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        try:
            yield stack.enter_context(gzip.open(raw)) if packed else raw  # type: ignore[misc]
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{path} is damaged or cut off: {error}.", "Get the file again.") from None


@contextlib.contextmanager
def open_text(path: Path, encoding: str, newline: str) -> Iterator[TextIO]:
    """The text of a file. ``newline`` as for :func:`open`; in utf-8 what is no UTF-8 is read as cp1252.

    Raises:
        FileError, DataError: as :func:`open_bytes`, and for UTF-16 or UTF-32 without a byte order mark.
    """
    errors = _FALLBACK if encoding.startswith("utf-8") else "replace"
    with open_bytes(path) as raw, io.TextIOWrapper(raw, encoding, errors, newline) as text:
        try:
            yield text
        except UnicodeError as error:
            raise DataError(f"{path} is no {encoding}: {error}.", "Choose another encoding, or none.") from None


def read_head(path: Path) -> bytes:
    """The first bytes of the unpacked content."""
    with open_bytes(path) as file:
        return file.read(HEAD)


def find_encoding(head: bytes) -> str:
    """The encoding by byte order mark, else by the zeros that UTF-16 has in Latin text, else utf-8 or cp1252."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    half = len(head) // 2
    if half and head[0::2].count(0) > 0.3 * half and not head[1::2].count(0):
        return "utf-16-be"
    if half and head[1::2].count(0) > 0.3 * half and not head[0::2].count(0):
        return "utf-16-le"
    return "cp1252" if _is_cp1252(head) else "utf-8"


def check_encoding(name: str) -> str:
    """The encoding as it was asked for; utf-8 allows for a byte order mark.

    Raises:
        UsageError: where Python knows none of that name.
    """
    try:
        found = codecs.lookup(name).name
    except LookupError:
        raise UsageError(f"There is no encoding {name!r}.", "For example utf-8, utf-16, cp1252, latin-1.") from None
    return "utf-8-sig" if found == "utf-8" else found


def _is_cp1252(head: bytes) -> bool:
    """Whether more bytes outside ASCII break UTF-8 than belong to whole UTF-8 characters."""
    text = head.decode("utf-8", "surrogateescape")
    broken = sum("\udc80" <= character <= "\udcff" for character in text[:-3])  # the head may end inside a character
    whole = sum(ord(character) > 0x7F for character in text) - broken
    return broken > whole
