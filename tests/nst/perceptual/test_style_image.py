"""Style images of every size and shape reach VGG whole, bounded in size, and with notes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nst.config import ObjectiveConfig
from nst.errors import ImageError
from nst.io.images import Array, load_image, load_style, resize_image, resize_short, save_image
from nst.perceptual.losses import PerceptualLoss
from nst.perceptual.style_image import MOST_PIECES, cut_pieces, prepare_style, style_pieces
from nst.perceptual.tensors import to_tensor


@settings(max_examples=60)
@given(st.integers(1, 60), st.integers(1, 900))
def test_pieces_tile_the_image(height: int, width: int) -> None:
    numbers = np.arange(height * width * 3, dtype=np.uint32)
    image = numbers.astype(np.uint8).reshape(height, width, 3)
    pieces = cut_pieces(image)
    long_axis = 0 if height > width else 1
    np.testing.assert_array_equal(np.concatenate(pieces, long_axis), image)
    short, long = sorted((height, width))
    assert (len(pieces) > 1) == (long > 3 * short)
    if len(pieces) > 1:
        lengths = [piece.shape[long_axis] for piece in pieces]
        assert min(lengths) > 0.8 * short - 1
        assert max(lengths) < 1.2 * short + 1


@settings(max_examples=25)
@given(st.integers(32, 50), st.integers(32, 5000), st.integers(32, 70), st.booleans())
def test_pieces_have_the_short_side_and_weights_by_area(
    short: int, long: int, side: int, upright: bool
) -> None:
    image = np.zeros((long, short, 3) if upright else (short, long, 3), np.uint8)
    pieces, weights = style_pieces(image, side)
    assert len(pieces) == len(weights) <= MOST_PIECES
    assert sum(weights) == pytest.approx(1)
    areas = np.array([piece.size for piece in pieces])
    np.testing.assert_allclose(weights, areas / areas.sum(), rtol=0.04)
    if len(pieces) > 1:
        assert {piece.shape[1 if upright else 0] for piece in pieces} == {side}
    else:
        assert min(pieces[0].shape[:2]) == side


def test_pieces_have_the_statistics_of_the_whole(photograph: Array) -> None:
    image = np.concatenate([resize_image(photograph, (96, 96)), photograph, photograph[:, ::-1]], 1)
    pieces, weights = style_pieces(image, 96)
    assert len(pieces) == 4
    whole, cut, first = (
        PerceptualLoss([to_tensor(x) for x in images], shares, ObjectiveConfig(style_loss="gram"))
        for images, shares in (([image], ()), (pieces, weights), (pieces[:1], ()))
    )
    for name, tolerance in (("relu1_2", 0.05), ("relu2_2", 0.2), ("relu3_3", 1), ("relu4_3", 1)):
        target, mean, alone = (
            loss.style_losses[name].get_buffer("target") for loss in (whole, cut, first)
        )
        distance = (mean - target).norm()
        assert distance < tolerance * target.norm()
        assert distance < (alone - target).norm()


def test_an_ordinary_style_is_one_piece_without_notes(tmp_path: Path, photograph: Array) -> None:
    save_image(tmp_path / "s.png", photograph)
    style = prepare_style(tmp_path / "s.png", 90)
    np.testing.assert_array_equal(style.image, resize_short(photograph, 90))
    (piece,), weights = style_pieces(style.image, 90)
    np.testing.assert_array_equal(piece, style.image)
    assert weights == (1.0,)
    assert style.notes == ()


def test_a_small_style_is_enlarged_with_a_note(tmp_path: Path, photograph: Array) -> None:
    path = tmp_path / "wave.png"
    save_image(path, resize_image(photograph, (150, 200)))
    style = prepare_style(path, 384)
    assert style.image.shape == (384, 512, 3)
    assert style.notes == (
        f"{path} is 200×150 pixels: enlarged 2.6 times for the style size 384, its strokes will "
        "be soft; a larger image or a smaller style size is better",
    )
    assert prepare_style(path, 150).notes == prepare_style(path, 160).notes == ()


@pytest.mark.parametrize(
    ("size", "words", "count"),
    [
        ((96, 600), "6.2 times as wide as high: seen in 6 pieces", 6),
        ((1600, 40), "40.0 times as high as wide: seen in 40 pieces", 40),
        ((9600, 32), "300.0 times as high as wide: seen in 64 pieces", 64),
    ],
)
def test_a_long_style_is_cut_with_a_note(
    tmp_path: Path, photograph: Array, size: tuple[int, int], words: str, count: int
) -> None:
    save_image(tmp_path / "scroll.png", resize_image(photograph, size))
    style = prepare_style(tmp_path / "scroll.png", 32)
    pieces, _ = style_pieces(style.image, 32)
    assert len(pieces) == count
    assert all(max(piece.shape[:2]) <= 48 for piece in pieces)
    (note,) = style.notes
    assert words in note


def test_a_style_of_one_color_is_noted(tmp_path: Path, photograph: Array) -> None:
    grain = np.random.default_rng(0).normal(120, 2, (80, 90, 3)).astype(np.uint8)
    save_image(tmp_path / "wall.png", grain)
    (note,) = prepare_style(tmp_path / "wall.png", 64).notes
    assert "wall.png is nearly of one colour" in note
    save_image(tmp_path / "grey.png", np.repeat(photograph[..., :1], 3, 2))
    assert prepare_style(tmp_path / "grey.png", 64).notes == ()


@pytest.mark.parametrize("size", [(1, 1), (31, 200)])
def test_a_tiny_style_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    save_image(tmp_path / "s.png", np.zeros((*size, 3), np.uint8))
    with pytest.raises(ImageError, match=r"s\.png is only"):
        prepare_style(tmp_path / "s.png", 64)


def test_only_a_jpeg_may_exceed_pillows_limit(
    tmp_path: Path, photograph: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = resize_image(photograph, (960, 1280))
    save_image(tmp_path / "huge.png", huge)
    save_image(tmp_path / "huge.jpg", huge)
    Image.fromarray(huge).save(tmp_path / "progressive.jpg", progressive=True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500_000)
    style = prepare_style(tmp_path / "huge.jpg", 96)
    assert style.image.shape == (96, 128, 3)
    assert style.notes == ()
    assert np.abs(style.image.astype(int) - photograph).mean() < 5
    for name, side in (("huge.png", 96), ("progressive.jpg", 96), ("huge.jpg", 480)):
        with pytest.raises(ImageError, match=f"{name} has too many pixels: scale it down"):
            prepare_style(tmp_path / name, side)
    with pytest.raises(ImageError, match="too many pixels"):
        load_image(tmp_path / "huge.jpg")


def test_long_images_load(tmp_path: Path) -> None:
    save_image(tmp_path / "s.png", np.zeros((40, 700, 3), np.uint8))
    assert load_style(tmp_path / "s.png").shape == (40, 700, 3)
