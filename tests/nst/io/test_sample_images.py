"""Photographs from packages, files and folders: in order, with an error for each bad one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nst.errors import MissingExtraError, NstError
from nst.io.images import save_image
from nst.io.sample_images import held_out, load_photographs, packaged


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make ten grey images of different levels, two of them in a subfolder."""
    for number in range(10):
        name = f"{number}.png" if number < 8 else f"deeper/{number}.png"
        save_image(tmp_path / name, np.full((64, 80, 3), 10 * number, np.uint8))
    (tmp_path / ".hidden.png").write_text("no image")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_a_folder_and_a_file(folder: Path) -> None:
    photographs, skipped = load_photographs([folder, folder / "3.png"])
    assert [int(p[0, 0, 0]) // 10 for p in photographs] == [*range(10), 3]
    assert skipped == []


@pytest.mark.parametrize(("most", "numbers"), [(1, [0]), (2, [0, 5]), (4, [0, 2, 5, 7])])
def test_at_most_so_many_spread_evenly(folder: Path, most: int, numbers: list[int]) -> None:
    photographs, _ = load_photographs([folder], most)
    assert [int(p[0, 0, 0]) // 10 for p in photographs] == numbers


def test_bad_files_are_named_and_the_rest_go_on(folder: Path) -> None:
    (folder / "0.png").write_text("no image")
    save_image(folder / "1.png", np.zeros((63, 80, 3), np.uint8))
    photographs, skipped = load_photographs([folder])
    assert len(photographs) == 8
    assert "0.png" in str(skipped[0])
    assert "80×63" in str(skipped[1])


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(NstError, match="does not exist"):
        load_photographs([tmp_path / "nowhere"])
    with pytest.raises(NstError, match="no usable image;"):
        load_photographs([tmp_path])


def test_packaged_photographs_are_found_or_the_package_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert len(held_out()) == 2
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="scikit-image"):
        packaged("skimage/data/chelsea.png")
