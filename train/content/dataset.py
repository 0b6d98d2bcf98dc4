"""Supplies content images for training: built-in photographs and drawn scenes, or any folder.

The n-th crop is a pure function of the seed and n, whichever thread prepares it.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from nst.errors import ImageError, NstError
from nst.io.images import Array, image_names, load_image
from nst.io.sample_images import SMALLEST_PHOTOGRAPH, TRAINING_PHOTOGRAPHS, packaged
from nst.train.content.coco import DownloadProgress, coco_folder
from nst.train.content.scenes import (
    BUILTIN_ZOOM,
    ZOOM,
    Random,
    draw_scene,
    random_crop,
    random_tint,
)

GREY_PHOTOGRAPHS = (
    "skimage/data/brick.png",
    "skimage/data/camera.png",
    "skimage/data/grass.png",
    "skimage/data/gravel.png",
)

PHOTOGRAPHS = 0.5  # share of photographs in the built-in content; the rest are drawn scenes
COLORED = 0.85  # share of colour among these photographs; grey ones are close-ups of textures
SCENES = 256  # drawn scenes that are kept; every crop of one is zoomed, flipped and tinted anew
THREADS = 8  # that prepare crops for a GPU; more slow each other down
CACHE_BYTES = 2 << 30
COCO = "coco"  # name of the content that is downloaded
CALIBRATION_IMAGES, CALIBRATION_SIDE = 16, 256


class BuiltinContent:
    """Half photographs from scikit-image and scikit-learn, half drawn scenes.

    Args:
        seed: random seed of all crops.
        side: side of full-size crops, pixels.
    """

    def __init__(self, seed: int = 0, side: int = 256) -> None:
        self.seed = seed
        self.skipped: dict[Path, str] = {}
        self._colored, self._grey = (
            [load_image(packaged(name)) for name in names]
            for names in (TRAINING_PHOTOGRAPHS, GREY_PHOTOGRAPHS)
        )
        self._scenes: dict[int, Array] = {}
        self._scene_side = math.ceil(1.5 * side)
        self._scene_count = max(16, min(SCENES, CACHE_BYTES // (3 * self._scene_side**2)))
        self._side = side

    @cached_property
    def fingerprint(self) -> str:
        """Short hash of what determines the crops: seed, side, names and sizes of the files."""
        names = (*TRAINING_PHOTOGRAPHS, *GREY_PHOTOGRAPHS)
        return _fingerprint(self.seed, self._side, names, map(packaged, names))

    def crop(self, index: int, side: int) -> Array:
        """Return the `index`-th training image, HWC uint8 RGB, `side` × `side`."""
        rng = np.random.default_rng((self.seed, index))
        if rng.random() < PHOTOGRAPHS:
            photographs = self._colored if rng.random() < COLORED else self._grey
            image = photographs[rng.integers(len(photographs))]
        else:
            image = self._scene(int(rng.integers(self._scene_count)))
        return random_tint(random_crop(image, side, self._side, rng, BUILTIN_ZOOM), rng)

    def _scene(self, number: int) -> Array:
        scene = self._scenes.get(number)
        if scene is None:
            rng = np.random.default_rng((self.seed, 1 << 40, number))
            scene = draw_scene([*self._colored, *self._grey], self._scene_side, rng)
            self._scenes[number] = scene
        return scene


class FolderContent:
    """All images below a folder; unreadable and tiny ones are skipped.

    Args:
        folder: folder to search, with all folders in it.
        seed: random seed of all crops.
        side: side of full-size crops, pixels.

    Attributes:
        skipped: path of each skipped file -> reason.

    Raises:
        NstError: the folder is missing, or holds no usable image.
    """

    def __init__(self, folder: Path, seed: int = 0, side: int = 256) -> None:
        if not folder.is_dir():
            raise NstError(f"{folder} is not a folder: name a folder of photographs")
        self.seed = seed
        self.skipped: dict[Path, str] = {}
        self._folder = folder
        self._side = side
        self._names = image_names(folder)
        self._cache: OrderedDict[Path, Array] = OrderedDict()
        self._cached_bytes = 0
        self._orders: dict[int, NDArray[np.int64]] = {}
        self._lock = threading.Lock()
        self._load_usable(0, np.random.default_rng(seed))

    @cached_property
    def fingerprint(self) -> str:
        """Short hash of what determines the crops: seed, side, names and sizes of the files.

        The contents of the files are not read.
        """
        paths = (f"{self._folder}/{name}" for name in self._names)
        return _fingerprint(self.seed, self._side, self._names, paths)

    def crop(self, index: int, side: int) -> Array:
        """Return the `index`-th training image, HWC uint8 RGB, `side` × `side`."""
        rng = np.random.default_rng((self.seed, index))
        return random_crop(self._load_usable(index, rng), side, self._side, rng)

    def _load_usable(self, index: int, rng: Random) -> Array:
        """Return the `index`-th image of endless shuffled epochs, or another one if it is unusable.

        The replacement depends on seed, index and files alone, not on what was loaded before, so
        that a resumed run sees the same images.
        """
        if count := len(self._names):
            epoch, place = divmod(index, count)
            order = self._order(epoch)
            image = self._load(self._names[order[place]])
            if image is not None:
                return image
            start = int(rng.integers(count))
            for place in range(start, start + count):
                image = self._load(self._names[order[place % count]])
                if image is not None:
                    return image
        why = f": {len(self.skipped)} unreadable or tiny" if self.skipped else ""
        raise NstError(
            f"{self._folder} holds no usable image{why}; give a folder of JPEG or PNG photographs"
        )

    def _order(self, epoch: int) -> NDArray[np.int64]:
        with self._lock:
            if epoch not in self._orders:
                shuffled = np.random.default_rng((self.seed, 1 << 41, epoch))
                # Threads are at most one epoch apart.
                self._orders = {k: v for k, v in self._orders.items() if k >= epoch - 1}
                self._orders[epoch] = shuffled.permutation(len(self._names))
            return self._orders[epoch]

    def _load(self, name: str) -> Array | None:
        path = self._folder / name
        with self._lock:
            if path in self.skipped:
                return None
            if path in self._cache:
                self._cache.move_to_end(path)
                return self._cache[path]
        short = math.ceil(self._side * ZOOM)
        try:
            image = load_image(path, hint=short)
            if min(image.shape[:2]) < SMALLEST_PHOTOGRAPH:
                raise ImageError(f"{path} is only {image.shape[1]}×{image.shape[0]} pixels")
        except ImageError as error:
            with self._lock:
                self.skipped[path] = str(error)
            return None
        if (scale := short / min(image.shape[:2])) < 1:
            # Crops are resized again, so Pillow's Lanczos would only cost five times as much.
            height, width = (round(length * scale) for length in image.shape[:2])
            smaller = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            image = np.asarray(smaller, np.uint8)
        with self._lock:
            if path not in self._cache:  # another thread may have been faster
                self._cache[path] = image
                self._cached_bytes += image.nbytes
            while self._cached_bytes > CACHE_BYTES:
                self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return image


def _fingerprint(
    seed: int, side: int, names: Sequence[str], paths: Iterable[str | os.PathLike[str]]
) -> str:
    lines = [f"{seed} {side}"]
    for name, path in zip(names, paths, strict=True):
        try:
            size = os.stat(path).st_size  # noqa: PTH116 - a Path each takes 3 times as long
        except OSError:  # the file will be skipped
            size = -1
        lines.append(f"{name} {size}")
    return hashlib.sha256(os.fsencode("\n".join(lines))).hexdigest()[:16]


Content = BuiltinContent | FolderContent


def open_content(
    folder: Path | None,
    seed: int = 0,
    side: int = 256,
    callback: Callable[[DownloadProgress], None] | None = None,
) -> Content:
    """Open the images of a folder, or the built-in ones for None.

    `coco`, if there is no such folder, means COCO's val2017.

    Args:
        seed: random seed of all crops.
        side: side of full-size crops, pixels.
        callback: called with the progress of COCO's download.

    Raises:
        NstError: as `FolderContent` and `nst.train.content.coco.coco_folder`.
    """
    if folder is None:
        return BuiltinContent(seed, side)
    if str(folder) == COCO and not os.path.isdir(folder):
        folder = coco_folder(callback)
    return FolderContent(folder, seed, side)


def calibration_images(content: Content) -> list[Array]:
    """Return the images on which an int8 export finds its ranges, HWC uint8 RGB."""
    return [content.crop(index, CALIBRATION_SIDE) for index in range(CALIBRATION_IMAGES)]


def batches(
    content: Content,
    plan: Callable[[int], tuple[int, int]],
    workers: int = 1,
    *,
    start_step: int = 0,
    start_image: int = 0,
    rank: int = 0,
    world: int = 1,
) -> Generator[Array, None, None]:
    """Yield endless batches, uint8 [B, side, side, 3] RGB, prepared ahead in `workers` threads.

    Until the generator is closed, OpenCV computes in these threads alone: its own, which spin
    between calls, took half of the time of a step on an H100 with 16 cores.

    Args:
        plan: returns (batch size, side) of a step, counted from 0; called in order, a few steps
            ahead. The batch size is the total over all processes.
        start_step, start_image: number of steps made and of images seen by a run that is resumed.
        rank, world: index of this process and number of processes. Each gets the images
            `rank::world` of every batch, so together they see what a single process would.
    """

    def prepare(start: int, count: int, side: int) -> Array:
        indices = range(start + rank, start + count, world)
        batch = np.empty((len(indices), side, side, 3), np.uint8)
        for i, index in enumerate(indices):
            batch[i] = content.crop(index, side)
        return batch

    # OpenCV gets its threads back when the last worker has ended.
    with _single_threaded_opencv(), ThreadPoolExecutor(workers, "nst-content") as pool:
        queue: deque[Future[Array]] = deque()
        step, images = start_step, start_image
        try:
            while True:
                while len(queue) <= workers:
                    count, side = plan(step)
                    queue.append(pool.submit(prepare, images, count, side))
                    step, images = step + 1, images + count
                yield queue.popleft().result()
        finally:
            for future in queue:
                future.cancel()


@contextmanager
def _single_threaded_opencv() -> Generator[None, None, None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
