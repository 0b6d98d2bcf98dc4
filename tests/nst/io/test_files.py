"""Files appear whole or not at all, with the permissions of any new file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from nst.errors import NstError
from nst.io.files import check_writable, replacing


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"old")

    def fail_midway() -> None:
        with replacing(target) as beside:
            assert beside.suffix == ".png"
            assert beside.name.startswith(".")
            assert beside.parent == tmp_path
            beside.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_midway()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_missing_folders_are_made(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "a.txt"
    check_writable(target)
    assert not target.parent.exists()
    with replacing(target) as beside:
        beside.write_text("text")
    assert [path.name for path in target.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("target", ["file/a.png", "."])
def test_an_impossible_target_is_one_line(tmp_path: Path, target: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NstError, match=r"cannot write .*; choose another path|is a folder"):
        check_writable(tmp_path / target)
    with (
        pytest.raises(NstError, match=r"cannot write .*; choose another path|is a folder"),
        replacing(tmp_path / target),
    ):
        pass


@pytest.mark.skipif(os.name != "posix", reason="Windows has no umask")
@pytest.mark.parametrize("private", [False, True])
def test_permissions_are_those_of_any_new_file(
    private: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a writer puts a private file of its own in place, as safetensors' does."""
    expected = tmp_path / "expected"
    expected.touch()
    with monkeypatch.context() as patch:
        patch.delattr(os, "umask")  # reading it would change it for all threads
        with replacing(tmp_path / "a.bin") as beside:
            if private:
                beside.unlink()
                beside.touch(mode=0o600)
            beside.write_bytes(b"data")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {stat.S_IMODE(expected.stat().st_mode)}
