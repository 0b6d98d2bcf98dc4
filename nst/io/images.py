"""Load, save and resize images as HWC uint8 RGB arrays."""

from __future__ import annotations

import contextlib
import io
import math
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from PIL.ExifTags import IFD, Base
from PIL.JpegImagePlugin import JpegImageFile

from nst.errors import ImageError
from nst.io.files import replacing

Array = NDArray[np.uint8]
Source = str | os.PathLike[str] | bytes

READ_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"})
WRITE_FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
# EXIF tags that a repainted file keeps: texts and dates, not the layout of the pixels (a TIFF keeps
# both in one table).
_KEPT_EXIF = (
    *(Base.ImageDescription, Base.Make, Base.Model, Base.Software, Base.DateTime, Base.Artist),
    *(Base.Copyright, IFD.Exif, IFD.GPSInfo),  # the two tables hold exposure, lens, dates, place
)
_MOST_EXIF = 65_000  # bytes, the most that a JPEG can hold
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@dataclass(frozen=True)
class Picture:
    """A decoded image file: upright sRGB pixels, and what is needed to write it back.

    Attributes:
        image: HWC uint8 RGB.
        alpha: HW uint8, or None if the file has no alpha.
        exif: the file's EXIF block without orientation and layout, or None.
    """

    image: Array
    alpha: Array | None = None
    exif: bytes | None = None


def load_picture(source: Source, *, hint: int | None = None) -> Picture:
    """Decode an image file, or the bytes of one, to upright 8-bit sRGB.

    EXIF orientation is applied; 16-bit and float samples are scaled to 8 bits; an embedded
    ICC profile (CMYK too) is converted to sRGB; grey and palette images become RGB. Pillow's
    warnings about large images and odd tags pass through; the `nst` command hides them.

    Args:
        source: path of the file, or its bytes.
        hint: short side in pixels that is large enough; a JPEG may then decode to a smaller
            image, and may exceed Pillow's limit on pixels.

    Raises:
        ImageError: missing, a folder, not an image, truncated, or too large for Pillow.
    """
    name = "image data" if isinstance(source, bytes) else os.fspath(source)
    if not isinstance(source, bytes) and os.path.isdir(source):
        raise ImageError(f"{name} is a folder: name an image file")
    try:
        with _open(source, hint) as file:
            return _decode(file)
    except FileNotFoundError as error:
        raise ImageError(f"{name} does not exist: check the path") from error
    except PermissionError as error:
        raise ImageError(f"{name} may not be read: check its permissions") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not an image that can be read: give a JPEG or PNG") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} has too many pixels: scale it down") from error
    except Exception as error:  # damaged files make Pillow raise nearly anything
        raise ImageError(f"{name} cannot be decoded ({error}): is the file complete?") from error


def load_image(source: Source, *, hint: int | None = None) -> Array:
    """Load the pixels of an image: HWC uint8 RGB, alpha composited over white.

    Arguments and errors are those of `load_picture`.
    """
    picture = load_picture(source, hint=hint)
    if picture.alpha is None:
        return picture.image
    alpha = picture.alpha[..., None].astype(np.uint16)
    return ((picture.image * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def load_style(path: str | os.PathLike[str], *, hint: int | None = None) -> Array:
    """Load a style image, HWC uint8 RGB; `hint` as for `load_picture`.

    Raises:
        ImageError: it can't be read, or a side is under 32 pixels.
    """
    return load_large(path, 32, "a style image", hint)


def load_large(
    path: str | os.PathLike[str], smallest: int, what: str, hint: int | None = None
) -> Array:
    """Load an image, HWC uint8 RGB; `hint` as for `load_picture`.

    Raises:
        ImageError: it can't be read, or a side is under `smallest` pixels, too few for `what`.
    """
    image = load_image(path, hint=hint)
    height, width = image.shape[:2]
    if min(height, width) < smallest:
        size = f"{width}×{height} pixels"
        raise ImageError(f"{os.fspath(path)} is only {size}: {what} needs {smallest} or more")
    return image


def image_names(folder: str | os.PathLike[str]) -> list[str]:
    """List the files below a folder that have the suffix of an image and are not hidden.

    Returns:
        Sorted names, relative to the folder, with `/` between the parts.
    """
    found: list[str] = []
    endings = tuple(READ_SUFFIXES)
    for root, _, names in os.walk(folder):
        below = Path(root).relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        found += [
            prefix + name
            for name in names
            if name.lower().endswith(endings) and not name.startswith(".")
        ]
    return sorted(found)


def image_files(folder: str | os.PathLike[str]) -> list[Path]:
    """List the paths of the files that `image_names` finds."""
    return [Path(folder, name) for name in image_names(folder)]


def encode_image(
    image: Array,
    suffix: str,
    *,
    alpha: Array | None = None,
    exif: bytes | None = None,
    quality: int = 95,
) -> bytes:
    """Encode `image` (HWC uint8 RGB) in the format that `suffix` names; return the file's bytes.

    Args:
        alpha: HW uint8; JPEG drops it.
        exif: EXIF block to embed where the format has room for it.
        quality: quality of JPEG and WebP, 1 to 100.

    Raises:
        ImageError: no format has that suffix, or the format can't hold an image of that size.
    """
    form = WRITE_FORMATS.get(suffix.lower())
    if form is None:
        known = " ".join(sorted(WRITE_FORMATS))
        raise ImageError(
            f"cannot write images as {suffix or 'a file without suffix'!r}: use {known}"
        )
    picture = Image.fromarray(image)
    if alpha is not None and form != "JPEG":
        picture.putalpha(Image.fromarray(alpha))
    options: dict[str, Any] = {}
    if form in ("JPEG", "WEBP"):
        options["quality"] = quality
    if form == "JPEG":
        options["subsampling"] = 0  # keeps thin coloured strokes sharp
    if form == "TIFF":
        options["compression"] = "tiff_lzw"
    if exif and len(exif) <= _MOST_EXIF and form in ("JPEG", "PNG", "WEBP", "TIFF"):
        options["exif"] = exif
    buffer = io.BytesIO()
    try:
        picture.save(buffer, form, **options)
    except (OSError, ValueError) as error:
        height, width = image.shape[:2]
        raise ImageError(
            f"{form} cannot hold {width}×{height} pixels ({error}): use .png"
        ) from error
    return buffer.getvalue()


def save_image(
    path: str | os.PathLike[str],
    image: Array,
    *,
    alpha: Array | None = None,
    exif: bytes | None = None,
    quality: int = 95,
) -> None:
    """Write `image` (HWC uint8 RGB) in the format that the suffix of `path` names.

    Arguments are those of `encode_image`. The file appears whole or not at all.

    Raises:
        ImageError: as from `encode_image`. NstError: the target can't be written.
    """
    data = encode_image(image, Path(path).suffix, alpha=alpha, exif=exif, quality=quality)
    with replacing(path) as beside:
        beside.write_bytes(data)


def resize_image(image: Array, size: tuple[int, int]) -> Array:
    """Resize `image` (HWC or HW uint8) to `size` = (height, width): Lanczos with antialiasing."""
    if image.shape[:2] == size:
        return image
    height, width = size
    picture = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def resize_short(image: Array, side: int) -> Array:
    """Resize `image` so that its short side has `side` pixels; keep the aspect ratio."""
    return _rescale(image, side / min(image.shape[:2]))


def resize_long(image: Array, side: int) -> Array:
    """Resize `image` so that its long side has `side` pixels; keep the aspect ratio."""
    return _rescale(image, side / max(image.shape[:2]))


def center_square(image: Array, side: int) -> Array:
    """Cut out the central square of `image` and resize it to `side` × `side` pixels."""
    height, width = image.shape[:2]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    return resize_image(image[top : top + edge, left : left + edge], (side, side))


def _rescale(image: Array, scale: float) -> Array:
    height, width = image.shape[:2]
    return resize_image(image, (max(1, round(height * scale)), max(1, round(width * scale))))


def _open(source: Source, hint: int | None) -> Image.Image:
    def stream() -> Any:
        return io.BytesIO(source) if isinstance(source, bytes) else source

    if hint is None:
        return Image.open(stream())
    try:
        file = Image.open(stream())
    except Image.DecompressionBombError:
        # Pillow checks the full size, but `draft` bounds the memory of a JPEG: try it first. A
        # progressive JPEG stays refused, because libjpeg holds all its coefficients.
        with contextlib.suppress(SyntaxError):
            jpeg = JpegImageFile(stream())
            jpeg.draft(None, (hint, hint))
            if math.prod(jpeg.size) <= (Image.MAX_IMAGE_PIXELS or 0) and not (
                jpeg.info.get("progressive")
            ):
                return jpeg
            jpeg.close()
        raise
    file.draft(None, (hint, hint))
    return file


def _decode(file: Image.Image) -> Picture:
    file.load()  # so that a truncated file fails here
    icc = file.info.get("icc_profile")
    exif = _kept_exif(file)
    picture = file
    with contextlib.suppress(Exception):  # damaged EXIF must not lose good pixels
        if file.getexif().get(Base.Orientation, 1) != 1:  # exif_transpose always copies
            picture = ImageOps.exif_transpose(file)
    alpha = None
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        alpha = np.asarray(picture.convert("RGBA").getchannel("A"))
        if alpha.min() == 255:
            alpha = None
    picture = _to_srgb(_to_8_bit(picture), icc)
    return Picture(np.array(picture), alpha, exif)


def _kept_exif(file: Image.Image) -> bytes | None:
    with contextlib.suppress(Exception):  # damaged EXIF must not lose good pixels
        whole, kept = file.getexif(), Image.Exif()
        for tag in _KEPT_EXIF:
            if tag in whole:
                table = whole.get_ifd(tag) if isinstance(tag, IFD) else None
                kept[tag] = table or whole[tag]
        return kept.tobytes() if len(kept) else None
    return None


def _to_8_bit(picture: Image.Image) -> Image.Image:
    """Convert 16-bit, 32-bit and float grey images to 8-bit grey; return others unchanged."""
    if not picture.mode.startswith(("I", "F")):
        return picture
    samples = np.nan_to_num(np.asarray(picture, dtype=np.float64))
    if picture.mode == "F":
        # Float files hold either 0–1 or 0–255; no photograph lies below level 1 of 255.
        top = 1.0 if samples.max(initial=0.0) <= 1.0 else 255.0
    else:
        top = 65535.0 if picture.mode.startswith("I;16") or samples.max(initial=0) > 255 else 255.0
    grey = np.clip(samples * (255.0 / top), 0, 255)
    return Image.fromarray(np.rint(grey).astype(np.uint8))


def _to_srgb(picture: Image.Image, icc: bytes | None) -> Image.Image:
    if picture.mode in ("P", "PA", "LA", "La", "RGBa", "1"):
        picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
    if picture.mode == "RGBA":
        picture = picture.convert("RGB")
    if icc and picture.mode in ("RGB", "L", "CMYK", "LAB"):
        # A broken profile must not lose the pixels.
        with contextlib.suppress(ImageCms.PyCMSError, OSError, TypeError, ValueError):
            return _to_srgb_from(icc, picture.mode).apply(picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


@lru_cache(maxsize=16)  # building takes as long as applying, and most files share a few profiles
def _to_srgb_from(icc: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    return ImageCms.ImageCmsTransform(profile, _SRGB, mode, "RGB")
