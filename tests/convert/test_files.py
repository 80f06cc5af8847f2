"""Files appear whole or not at all, and trouble is told in one sentence."""

import errno
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convert.errors import FileError
from convert.files import explained, locked, replacing, require_space, sha256_of


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    target.chmod(0o640)
    with replacing(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert os.name == "nt" or target.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_any_exception_leaves_the_old_file_and_no_neighbour(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write_and_fail() -> None:
        with replacing(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write_and_fail()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_or_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for target in (tmp_path, tmp_path / "file" / "below"):
        with pytest.raises(FileError) as caught, replacing(target):
            pass
        assert caught.value.hint


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_is_told() -> None:
    with pytest.raises(FileError, match="disk is full") as caught, explained("/dev/full"):
        Path("/dev/full").write_text("x")
    assert "Free some space" in caught.value.hint


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "No permission"), (errno.EROFS, "read-only")],
)
def test_the_common_errors_have_their_sentence(number: int, words: str) -> None:
    with pytest.raises(FileError, match=words) as caught, explained("here"):
        raise OSError(number, os.strerror(number), "there.gguf")
    assert "there.gguf" in str(caught.value)
    assert caught.value.hint


def test_the_hash_is_sha256(tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000
    (tmp_path / "x").write_bytes(data)
    assert sha256_of(tmp_path / "x") == hashlib.sha256(data).hexdigest()
    with pytest.raises(FileError, match="No such file"):
        sha256_of(tmp_path / "missing")


def test_too_little_space_is_refused_beforehand(tmp_path: Path) -> None:
    require_space(tmp_path / "not" / "yet" / "there", 1)
    with pytest.raises(FileError, match=r"needed, .* free"):
        require_space(tmp_path, 1 << 60)


def test_the_lock_waits_for_another_process_and_outlives_its_death(tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"
    code = (
        f"import time\nfrom convert.files import locked\nwith locked({str(target)!r}):\n    print('in', flush=True)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code + "    time.sleep(60)"], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "in\n"
        waited: list[float] = []

        def kill() -> None:
            waited.append(time.monotonic())
            holder.kill()

        with locked(target, on_wait=kill):
            assert len(waited) == 1
    finally:
        holder.kill()
        holder.communicate()
