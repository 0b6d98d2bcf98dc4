"""The errors of nst: every message names the wrong input and says how to correct it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

TRAIN_PACKAGES = frozenset(
    {
        *("torch", "torchvision", "onnx", "safetensors", "matplotlib"),
        *("platformdirs", "filelock", "tomli_w", "pydantic"),
    }
)
CAMERA_PACKAGES = frozenset({"pyvirtualcam"})


class NstError(Exception):
    """Root of all errors that a user can correct; `exit_status` is that of the command."""

    exit_status = 1


class UsageError(NstError, ValueError):
    """An argument's value is invalid: a NaN weight, an unknown preset."""

    exit_status = 2


class ImageError(NstError):
    """An image can't be read or written."""


class VideoError(NstError):
    """A video can't be read or written."""


class ModelError(NstError):
    """A model file can't be read, or nst did not make it."""


class ExportError(NstError):
    """An exported file gives other results than the trained network."""


class MissingExtraError(NstError, ImportError):
    """A package of an optional extra isn't installed."""


@contextmanager
def needs_extra(what: str, extra: str = "train") -> Iterator[None]:
    """Turn the ImportError of a package of an extra into a `MissingExtraError`.

    Args:
        what: feature that the message names, such as `nst optimize`.
        extra: name of the extra that installs the package.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in TRAIN_PACKAGES | CAMERA_PACKAGES:
            raise
        raise MissingExtraError(
            f"{what} needs the package {package}: install it with  pip install 'nst[{extra}]'"
        ) from error
