"""Reads and writes videos as numbered images, such as `frames/%04d.png`, and writes GIFs."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from nst.config import check_number
from nst.errors import ImageError, UsageError, VideoError
from nst.infer.runtime.resize import resized
from nst.infer.video.colors import BT709
from nst.infer.video.reader import LATEST, AnyPacket, Extra, Frame
from nst.io.files import Closing, cannot_write, check_writable, replacing
from nst.io.images import READ_SUFFIXES, WRITE_FORMATS, Array, image_names, load_image, save_image

if TYPE_CHECKING:
    from av.container.core import Chapter

_NUMBER = re.compile(r"%0?(\d*)d")
_TICK = Fraction(1, 100)  # GIF's unit of time, in seconds
_SHORTEST = 2  # ticks; players show a shorter frame for a tenth of a second


def has_pattern(path: str | os.PathLike[str]) -> bool:
    """Return whether a path names numbered images by a pattern such as `%04d.png`."""
    # A video may have a name like `50%done.mp4`.
    image = Path(path).suffix.lower() in READ_SUFFIXES
    return image and _NUMBER.search(Path(path).name) is not None


def is_sequence(path: str | os.PathLike[str]) -> bool:
    """Return whether a source is numbered images: a folder, or a pattern."""
    return os.path.isdir(path) or (has_pattern(path) and not os.path.exists(path))


def overwrites(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> bool:
    """Return whether writing `target`, a file or pattern, replaces images of `source`."""
    if not is_sequence(source):
        return False
    names = _numbered(Path(target)) if has_pattern(target) else [Path(target)]
    taken = {path.resolve() for path in _numbered(Path(source))}
    return any(path.resolve() in taken for path in names)


class SequenceReader(Closing):
    """Iterates over numbered images as the frames of a video; see `VideoReader` for more.

    Args:
        path: a pattern such as `frames/%04d.png`, or a folder, whose images come in the order of
            the numbers in their names.
        rate: frames per second.
        start: second at which to begin.
        duration: seconds to read; None for the rest.

    Attributes:
        skipped: paths of the images that can't be read, each with the reason.

    Raises:
        VideoError: there is no such image. UsageError: `start` is beyond the last one.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        rate: Fraction,
        *,
        start: float = 0.0,
        duration: float | None = None,
    ) -> None:
        check_number("start", start, most=LATEST)
        if duration is not None:
            check_number("duration", duration, above=True, most=LATEST)
        self.path = os.fspath(path)
        found = _numbered(Path(path))
        if not found:
            raise VideoError(
                f"{self.path} names no images: give a folder, or a pattern as %04d.png"
            )
        first = round(start * rate)
        if first >= len(found):
            raise UsageError(
                f"start {start:g} is beyond the end of {self.path}: "
                f"{float(len(found) / rate):.2f} s"
            )
        last = None if duration is None else first + max(1, round(duration * rate))
        self._files = found[first:last]
        self.skipped: dict[Path, str] = {}
        self.rate, self.time_base = rate, 1 / rate
        first_image = next(self._images(), None)
        if first_image is None:
            raise VideoError(f"{self.path} holds no image that can be read")
        self.size = first_image[1].shape[:2]
        self.pixel_aspect = Fraction(1)
        self.colors = BT709
        self.extras: tuple[Extra, ...] = ()
        self.metadata: dict[str, str] = {}
        self.seconds = float(len(self._files) / rate)
        self.shortfall = 0.0

    @property
    def damaged(self) -> int:
        """Number of images that can't be read."""
        return len(self.skipped)

    def chapters(self) -> list[Chapter]:
        """Return an empty list."""
        return []

    def __iter__(self) -> Iterator[Frame | AnyPacket]:
        """Yield the images that can be read, at the size of the first."""
        for number, image in self._images():
            yield Frame(resized(image, self.size), number, 1)

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def _images(self) -> Iterator[tuple[int, Array]]:
        """Yield the number and the pixels of each image that can be read; note the others."""
        for number, path in enumerate(self._files):
            try:
                image = load_image(path)
            except ImageError as error:
                self.skipped[path] = str(error)
            else:
                yield number, image


class SequenceWriter(Closing):
    """Writes frames as images numbered from 1.

    Args:
        path: a pattern such as `painted/%04d.png`; missing folders are created.
        extras: streams of sound and subtitles, which are left out and noted.

    Raises:
        UsageError: the suffix names no image format.
    """

    def __init__(self, path: str | os.PathLike[str], extras: tuple[Extra, ...] = ()) -> None:
        self.path = Path(path)
        suffix = self.path.suffix.lower()
        if suffix not in WRITE_FORMATS:
            known = " ".join(sorted(WRITE_FORMATS))
            raise UsageError(f"cannot write images as {suffix or self.path.name}: use {known}")
        self.frames, self.encoder = 0, suffix.removeprefix(".")
        self.notes = _left_out(extras, "images")

    def write(self, part: Frame | AnyPacket) -> None:
        """Write the next frame.

        Raises:
            NstError: it can't be written.
        """
        if isinstance(part, Frame):
            name = _named(self.path.name, self.frames + 1)
            save_image(self.path.parent / name, part.image)
            self.frames += 1

    def close(self) -> None:
        """Do nothing: every image is whole already."""


class GIFWriter(Closing):
    """Writes an animated GIF that repeats for ever, each frame with its own 256 colours.

    A GIF shows at most fifty frames a second; further ones are left out. The file appears whole or
    not at all.

    Args:
        time_base: unit of the frames' timestamps, in seconds.
        rate: frames per second, for the last frame.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        time_base: Fraction,
        rate: Fraction,
        extras: tuple[Extra, ...] = (),
    ) -> None:
        self.path, self.frames, self.encoder = Path(path), 0, "gif"
        self.notes = _left_out(extras, "GIF")
        self._unit, self._rate = time_base, rate
        check_writable(path)
        # Pillow needs all frames at once, and keeps a byte of each pixel even if they are files.
        self._folder = tempfile.TemporaryDirectory(prefix="nst-")
        self._times: list[int] = []
        self._end = 0

    def write(self, part: Frame | AnyPacket) -> None:
        """Write the next frame to a temporary file.

        Raises:
            NstError: the folder for temporary files is full.
        """
        if not isinstance(part, Frame):
            return
        self.frames += 1
        now = part.pts * self._unit / _TICK
        length = part.duration * self._unit if part.duration else 1 / self._rate
        self._end = round(now + length / _TICK)
        if self._times and round(now) - self._times[-1] < _SHORTEST:
            return  # no player shows a frame so briefly: it would slow the video down
        image = Image.fromarray(part.image).quantize(256)
        try:
            image.save(self._file(len(self._times)))
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self._times.append(round(now))

    def close(self) -> None:
        """Write the file.

        Raises:
            NstError: it can't be written.
        """
        with self._folder:
            if not self.frames:
                return
            ends = [*self._times[1:], self._end]
            spans = [max(_SHORTEST, b - a) for a, b in zip(self._times, ends, strict=True)]
            first, *others = (self._file(number) for number in range(len(self._times)))
            with replacing(self.path) as beside, Image.open(first) as image:
                image.save(
                    beside,
                    format="GIF",
                    save_all=True,
                    append_images=map(Image.open, others),
                    duration=[10 * span for span in spans],
                    loop=0,
                    disposal=1,
                    optimize=False,
                )

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.close()
        else:
            self._folder.cleanup()

    def _file(self, number: int) -> Path:
        return Path(self._folder.name) / f"{number:06d}.png"


def _left_out(extras: tuple[Extra, ...], what: str) -> list[str]:
    kinds = ["subtitles" if extra.type == "subtitle" else "sound" for extra in extras]
    return [f"{kind} left out: {what} take none" for kind in dict.fromkeys(kinds)]


def _numbered(path: Path) -> list[Path]:
    """Return the images of a folder or a pattern, in the order of their numbers."""
    if os.path.isdir(path):
        names = image_names(path)
        return [path / name for name in sorted(names, key=_order)]
    before, _, after = _NUMBER.split(path.name, 1)
    shape = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
    if not os.path.isdir(path.parent):
        return []
    found = []
    for file in path.parent.iterdir():
        match = shape.fullmatch(file.name)
        if match is not None and _named(path.name, int(match[1])) == file.name:
            found.append((int(match[1]), file))
    return [file for _, file in sorted(found)]


def _named(pattern: str, number: int) -> str:
    """Return the name of an image of a pattern."""
    return _NUMBER.sub(lambda match: f"{number:0{match[1] or 1}d}", pattern, count=1)


def _order(name: str) -> list[object]:
    """Return a sort key that compares numbers in names by value: 2 before 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
