"""Loading, saving and resizing against Pillow and NumPy, with good and bad files."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms, ImageOps

from nst.errors import ImageError
from nst.io.images import (
    Array,
    center_square,
    encode_image,
    load_image,
    load_picture,
    load_style,
    resize_image,
    resize_long,
    resize_short,
    save_image,
)

images = hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3)))


@settings(max_examples=30)
@given(images)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_lossless_formats_give_back_the_pixels(suffix: str, image: Array) -> None:
    np.testing.assert_array_equal(load_image(encode_image(image, suffix)), image)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".JPEG"])
def test_lossy_formats_stay_close(suffix: str, photograph: Array) -> None:
    again = load_image(encode_image(photograph, suffix))
    assert np.abs(again.astype(int) - photograph).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_and_dropped(orientation: int, photograph: Array) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "a lighthouse"
    buffer = io.BytesIO()
    Image.fromarray(photograph).save(buffer, "PNG", exif=exif)
    picture = load_picture(buffer.getvalue())
    expected = np.asarray(ImageOps.exif_transpose(Image.open(buffer)))
    np.testing.assert_array_equal(picture.image, expected)
    assert picture.exif is not None
    kept = Image.Exif()
    kept.load(picture.exif)
    assert kept[0x010E] == "a lighthouse"
    assert 0x0112 not in kept


def test_exif_survives_a_round_trip(tmp_path: Path, photograph: Array) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a lighthouse"
    for suffix in (".jpg", ".png", ".webp", ".tif"):
        save_image(tmp_path / f"a{suffix}", photograph, exif=exif.tobytes())
        assert Image.open(tmp_path / f"a{suffix}").getexif()[0x010E] == "a lighthouse"


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / f"ramp{suffix}")
    image = load_image(tmp_path / f"ramp{suffix}")
    np.testing.assert_allclose(image[..., 1], ramp / 257.0, atol=0.51)


def test_16_bit_color_png_is_scaled(tmp_path: Path) -> None:
    import cv2

    ramp = np.linspace(0, 65535, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "ramp.png"), ramp[..., ::-1])
    np.testing.assert_allclose(load_image(tmp_path / "ramp.png"), ramp / 257.0, atol=1)


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_float_tiff_is_scaled(tmp_path: Path, top: float) -> None:
    ramp = np.linspace(0, top, 32 * 32, dtype=np.float32).reshape(32, 32)
    Image.fromarray(ramp).save(tmp_path / "ramp.tif")
    np.testing.assert_allclose(load_image(tmp_path / "ramp.tif")[..., 0], ramp * 255 / top, atol=1)


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "LA", "RGBA", "YCbCr"])
def test_every_mode_becomes_rgb(mode: str, photograph: Array) -> None:
    picture = Image.fromarray(photograph).convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, "TIFF")
    image = load_image(buffer.getvalue())
    expected = np.asarray(picture.convert("RGB"))
    assert image.shape == photograph.shape
    assert np.abs(image.astype(int) - expected).mean() < 2


def test_alpha_is_kept_apart_and_flattened_on_white(photograph: Array) -> None:
    alpha = np.zeros(photograph.shape[:2], np.uint8)
    alpha[:, 60:] = 255
    data = encode_image(photograph, ".png", alpha=alpha)
    picture = load_picture(data)
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha, alpha)
    np.testing.assert_array_equal(picture.image, photograph)
    flat = load_image(data)
    assert (flat[:, :60] == 255).all()
    np.testing.assert_array_equal(flat[:, 60:], photograph[:, 60:])


def test_palette_transparency_becomes_alpha() -> None:
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([0, 0, 0, 250, 10, 20])
    picture.putpixel((0, 0), 0)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", transparency=0)
    loaded = load_picture(buffer.getvalue())
    assert loaded.alpha is not None
    assert loaded.alpha[0, 0] == 0
    assert loaded.alpha[1, 1] == 255
    assert loaded.image[1, 1].tolist() == [250, 10, 20]


def test_an_icc_profile_is_converted_to_srgb() -> None:
    lab = Image.fromarray(np.full((8, 8, 3), (135, 128, 128), np.uint8)).convert("RGB")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    buffer = io.BytesIO()
    lab.save(buffer, "PNG", icc_profile=profile)
    np.testing.assert_allclose(load_image(buffer.getvalue()), np.asarray(lab), atol=1)
    buffer = io.BytesIO()
    lab.save(buffer, "PNG", icc_profile=b"broken")
    np.testing.assert_array_equal(load_image(buffer.getvalue()), np.asarray(lab))


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "empty", "truncated"])
def test_bad_files_raise_one_line_that_names_them(kind: str, bad_images: dict[str, Path]) -> None:
    with pytest.raises(ImageError) as caught:
        load_image(bad_images[kind])
    assert str(bad_images[kind]) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_exif_leaves_the_pixels(photograph: Array) -> None:
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "a lighthouse", 3
    buffer = io.BytesIO()
    Image.fromarray(photograph).save(buffer, "PNG", exif=exif)
    good = buffer.getvalue()
    start = good.index(b"eXIf") + 4
    rng = np.random.default_rng(0)
    for _ in range(200):
        bad = bytearray(good)
        for place in rng.integers(start, start + 60, 3):
            bad[place] = rng.integers(256)
        try:
            image = load_image(bytes(bad))
        except ImageError:  # Pillow may refuse the chunk's checksum
            continue
        assert image.shape in (photograph.shape, photograph.transpose(1, 0, 2).shape)


def test_a_damaged_file_is_decoded_or_one_line(photograph: Array) -> None:
    """Pillow raises nearly any error on damaged files; we raise `ImageError` only."""
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "a lighthouse", 6
    rng = np.random.default_rng(0)
    for suffix in (".jpg", ".tif", ".webp", ".png"):
        good = encode_image(photograph, suffix, exif=exif.tobytes())
        for _ in range(150):
            bad = bytearray(good)
            for place in rng.integers(0, min(len(bad), 600), 4):
                bad[place] = rng.integers(256)
            with contextlib.suppress(ImageError):
                assert load_image(bytes(bad)).ndim == 3


def test_bytes_that_are_no_image() -> None:
    for data in (b"", b"nonsense"):
        with pytest.raises(ImageError, match="image data"):
            load_image(data)


@pytest.mark.parametrize("size", [(1, 1), (31, 200)])
def test_a_style_too_small_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    save_image(tmp_path / "s.png", np.zeros((*size, 3), np.uint8))
    with pytest.raises(ImageError, match=r"s\.png is"):
        load_style(tmp_path / "s.png")


def test_unknown_suffix_writes_nothing(tmp_path: Path, photograph: Array) -> None:
    with pytest.raises(ImageError, match=r"\.xyz"):
        save_image(tmp_path / "a.xyz", photograph)
    assert list(tmp_path.iterdir()) == []


def test_a_format_too_small_for_the_image_says_so() -> None:
    with pytest.raises(ImageError, match=r"use \.png"):
        encode_image(np.zeros((1, 70000, 3), np.uint8), ".jpg")


def test_importing_changes_no_warning_filters() -> None:
    code = (
        "import warnings, numpy, PIL.Image, PIL.ImageCms, PIL.ImageOps\n"
        "before = list(warnings.filters)\n"
        "import nst.io.images\n"
        "assert list(warnings.filters) == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pillows_warnings_reach_the_caller(
    photograph: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", photograph[..., 0].size - 1)
    with pytest.warns(Image.DecompressionBombWarning):
        load_image(encode_image(photograph, ".png"))


@settings(max_examples=30)
@given(images, st.integers(1, 90))
def test_resizing_gives_the_side_that_is_asked_for(image: Array, side: int) -> None:
    assert min(resize_short(image, side).shape[:2]) == side
    assert max(resize_long(image, side).shape[:2]) == side
    assert center_square(image, side).shape == (side, side, 3)


def test_resizing_keeps_a_constant_and_the_mean(photograph: Array) -> None:
    assert (resize_image(np.full((50, 70, 3), 77, np.uint8), (13, 160)) == 77).all()
    half = resize_image(photograph, (48, 64))
    np.testing.assert_allclose(half.mean((0, 1)), photograph.mean((0, 1)), atol=1)
