"""The errors of nst: every message names the offending input and says the mend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

TRAIN_PACKAGES = frozenset(
    {
        "torch",
        "torchvision",
        "onnx",
        "safetensors",
        "matplotlib",
        "platformdirs",
        "filelock",
        "tomli_w",
    }
)
CAMERA_PACKAGES = frozenset({"pyvirtualcam"})


class NstError(Exception):
    """Root of all errors that a user can mend. `exit_status` is what a command ends with."""

    exit_status = 1


class UsageError(NstError, ValueError):
    """An option's value makes no sense: a NaN weight, an unknown preset."""

    exit_status = 2


class ImageError(NstError):
    """An image can't be read or written."""


class VideoError(NstError):
    """A video can't be read or written."""


class ModelError(NstError):
    """A model file can't be read, or isn't one of ours."""


class ExportError(NstError):
    """An exported file does not do what the trained network does."""


class MissingExtraError(NstError, ImportError):
    """A package of an optional extra isn't installed."""


@contextmanager
def needs_extra(what: str, extra: str = "train") -> Iterator[None]:
    """Turn the ImportError of one of the extra's packages into a `MissingExtraError`."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in TRAIN_PACKAGES | CAMERA_PACKAGES:
            raise
        raise MissingExtraError(
            f"{what} needs the package {package}: install it with  pip install 'nst[{extra}]'"
        ) from error
