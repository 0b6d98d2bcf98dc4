"""Repaints image files with a model: single files, folders, or a pipe."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nst.color import transfer as color
from nst.config import KeepColor
from nst.errors import ImageError, NstError, UsageError
from nst.infer.runtime.stylizer import Stylizer
from nst.infer.runtime.tiles import TileCallback
from nst.io.files import same_file
from nst.io.images import WRITE_FORMATS, encode_image, image_files, load_picture, save_image

PIPE = "-"


@dataclass(frozen=True)
class Repainted:
    """A repainted image file.

    Attributes:
        size: (height, width) in pixels.
        seconds: time that repainting took, without reading and writing the files.
    """

    size: tuple[int, int]
    seconds: float


def plan_outputs(inputs: Sequence[str], out: str) -> list[tuple[str, str]]:
    """Pair each source image with its target.

    A single image goes to the file `out`, if that has a suffix. Otherwise `out` is a folder: files
    keep their names and folders their inner structure; formats that can't be written become PNG.

    Args:
        inputs: images, folders, or `-` for the standard input.
        out: file, folder, or `-` for the standard output.

    Returns:
        Pairs of (source, target), paths or `-`.

    Raises:
        UsageError: there are several inputs for one file, a target is its own source, or two
            sources have one target.
        ImageError: no image can be written with the suffix of `out`.
        NstError: a folder holds no images.
    """
    one = len(inputs) == 1 and not os.path.isdir(inputs[0])
    if out == PIPE:
        if not one:
            raise UsageError("the output - takes one image: give one input, or name a folder")
        return [(inputs[0], PIPE)]
    suffix = Path(out).suffix.lower()
    if one and suffix and not os.path.isdir(out):
        if suffix not in WRITE_FORMATS:
            known = " ".join(sorted(WRITE_FORMATS))
            raise ImageError(f"cannot write images as {suffix}: use {known}")
        jobs = [(inputs[0], out)]
    elif suffix in WRITE_FORMATS and not os.path.isdir(out):
        raise UsageError(f"the output {out} is one file for several images: name a folder")
    else:
        jobs = [
            (str(source), str(Path(out) / _writable(name)))
            for item in inputs
            for source, name in _expand(item, Path(out))
        ]
    targets: dict[str, str] = {}
    for source, target in jobs:
        if same_file(source, target):
            raise UsageError(f"the output would overwrite {source}: name another file or folder")
        if target in targets:
            raise UsageError(f"{source} and {targets[target]} would both become {target}")
        targets[target] = source
    return jobs


def repaint_file(
    stylizer: Stylizer,
    source: str,
    target: str,
    *,
    strength: float = 1.0,
    quality: int = 95,
    keep_color: KeepColor | None = None,
    report: TileCallback | None = None,
) -> Repainted:
    """Repaint an image file into another.

    Args:
        source: path of the image, or `-` for the standard input.
        target: path of the result, or `-` for the standard output, as PNG.
        strength: 0 gives the source's pixels, 1 the full style.
        quality: JPEG and WebP quality, 1 to 100.
        keep_color: method that gives the result the source's colours (see
            `nst.color.transfer.keep_color`); None to leave the model's.
        report: called after each tile of a large image.

    Raises:
        ImageError: the source can't be read.
        NstError: the target can't be written.
    """
    picture = load_picture(sys.stdin.buffer.read() if source == PIPE else source)
    start = time.perf_counter()
    stylized = stylizer(picture.image, strength, report)
    if keep_color is not None:
        stylized = color.keep_color(stylized, picture.image, keep_color)
    seconds = time.perf_counter() - start
    if target == PIPE:
        data = encode_image(stylized, ".png", alpha=picture.alpha, exif=picture.exif)
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        save_image(target, stylized, alpha=picture.alpha, exif=picture.exif, quality=quality)
    return Repainted(stylized.shape[:2], seconds)


def _expand(item: str, out: Path) -> list[tuple[Path | str, Path]]:
    """List the images of an input, each with its path below the output folder."""
    if item == PIPE:
        return [(PIPE, Path("stdin.png"))]
    path = Path(item)
    if not os.path.isdir(path):
        return [(path, Path(path.name))]
    own = out.resolve()  # if it is inside the folder, it may hold the results of an earlier run
    inside = own != path.resolve() and own.is_relative_to(path.resolve())
    found = [
        file for file in image_files(path) if not (inside and file.resolve().is_relative_to(own))
    ]
    if not found:
        raise NstError(f"{path} holds no images: give a folder of JPEG or PNG files")
    return [(file, file.relative_to(path)) for file in found]


def _writable(name: Path) -> Path:
    return name if name.suffix.lower() in WRITE_FORMATS else name.with_suffix(".png")
