"""What a style model's file takes and gives: our own contract, or what other makers write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nst.errors import ModelError
from nst.infer.runtime.resize import resized
from nst.io.images import Array

# The contract of a file that nst exports: uint8 [N, H, W, 3] RGB in and out, any N, H and W.
INPUT_NAME = "image"
OUTPUT_NAME = "stylized"
# Some take a few numbers from each frame as a whole and give them, [N, K]; or they take others
# instead, [1, K].
STATISTICS_NAME, HELD_NAME = "statistics", "held_statistics"
SMALLEST_SIDE = 32
_STRIDE = 32  # the largest to expect

# Range of a float model's pixels: 0–255, 0–1 or -1–1.
Range = Literal["byte", "unit", "signed"]
_TYPES: dict[str, type[np.generic]] = {
    "tensor(uint8)": np.uint8,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}
_SCALE: dict[Range, tuple[float, float]] = {
    "byte": (1.0, 0.0),
    "unit": (1 / 255, 0.0),
    "signed": (1 / 127.5, -1.0),
}


@dataclass(frozen=True)
class Signature:
    """How images go into a model and come out again.

    Attributes:
        input_name, output_name: of the tensors.
        input_type, output_type: uint8, float32 or float16.
        channels_first: [N, 3, H, W] where true, [N, H, W, 3] otherwise; for input and output.
        batch: the only batch size that it takes, or None for any.
        size: the only (height, width) that it takes, or None for any.
        pixels: range of float pixels.
        statistics: how many channels' statistics it takes from a frame as a whole.
    """

    input_name: str = INPUT_NAME
    output_name: str = OUTPUT_NAME
    input_type: type[np.generic] = np.uint8
    output_type: type[np.generic] = np.uint8
    channels_first: tuple[bool, bool] = (False, False)
    batch: int | None = None
    size: tuple[int, int] | None = None
    pixels: Range = "byte"
    statistics: int = 0

    @property
    def native(self) -> bool:
        """Whether it is the contract of nst's own exports; some take one image at a time."""
        return replace(self, batch=None, statistics=0) == Signature()

    def encode(self, batch: Array) -> NDArray[Any]:
        """uint8 [N, H, W, 3] RGB as the model wants it."""
        if self.size is not None:
            batch = _resize(batch, self.size)
        x: NDArray[Any] = batch
        if self.input_type != np.uint8:
            scale, shift = _SCALE[self.pixels]
            x = (batch * np.float32(scale) + np.float32(shift)).astype(self.input_type)
        if self.channels_first[0]:
            x = x.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(x)

    def decode(self, y: NDArray[Any], size: tuple[int, int]) -> Array:
        """The model's output as uint8 [N, H, W, 3] RGB of `size`."""
        if self.channels_first[1]:
            y = y.transpose(0, 2, 3, 1)
        if y.dtype != np.uint8:
            scale, shift = _SCALE[self.pixels]
            y = np.nan_to_num((y.astype(np.float32) - shift) / scale)
            y = np.rint(np.clip(y, 0, 255)).astype(np.uint8)
        down, right = y.shape[1] - size[0], y.shape[2] - size[1]
        if self.size is None and 0 <= down < _STRIDE and 0 <= right < _STRIDE:
            y = y[:, : size[0], : size[1]]  # rounded up to a multiple of its stride
        return np.ascontiguousarray(y if y.shape[1:3] == size else _resize(y, size))


def read_signature(
    name: str,
    inputs: list[Any],
    outputs: list[Any],
    run: Callable[[Signature, Array], Any],
    defaulted: Sequence[Any] = (),
) -> Signature:
    """The signature of a session by its inputs, those that have a default, and its outputs.

    Float models say nowhere how they count. `run(signature, batch)` is called with pixels of 0 to
    255: where nothing above 2 comes out, they count to 1. Then with pixels of -1 to 1: where
    nothing negative comes out, they count from 0.

    Raises:
        ModelError: it is no model that maps one image to one image.
    """
    try:
        (x,), y = inputs, outputs[0]
        first_in, first_out = _channels_first(x.shape), _channels_first(y.shape)
        input_type, output_type = _TYPES[x.type], _TYPES[y.type]
    except (ValueError, KeyError, IndexError) as error:
        what = ", ".join(f"{i.name}: {i.type} {i.shape}" for i in (*inputs, *outputs))
        raise ModelError(
            f"{name} maps no single RGB image to another ({what}): train one with nst-train"
        ) from error
    height, width = x.shape[2:] if first_in else x.shape[1:3]
    fixed = isinstance(height, int) and isinstance(width, int)
    if not fixed and (isinstance(height, int) or isinstance(width, int)):
        raise ModelError(
            f"{name} fixes one side of the image alone ({height} × {width}): "
            "export it with both open, or both fixed"
        )
    signature = Signature(
        input_name=x.name,
        output_name=y.name,
        input_type=input_type,
        output_type=output_type,
        channels_first=(first_in, first_out),
        batch=x.shape[0] if isinstance(x.shape[0], int) else None,
        size=(height, width) if fixed else None,
        statistics=next((value.shape[1] for value in defaulted if value.name == HELD_NAME), 0),
    )
    if signature.native or output_type == np.uint8:
        return signature
    ramp = np.linspace(0, 255, 256).astype(np.uint8).reshape(1, 16, 16, 1)
    image = np.kron(ramp, np.ones((1, 8, 8, 3), np.uint8))
    image = np.repeat(image, signature.batch or 1, 0)
    signed = replace(signature, pixels="signed")
    try:
        if np.nanmax(run(signature, image)) > 2:
            return signature
        return signed if np.nanmin(run(signed, image)) < -0.2 else replace(signed, pixels="unit")
    except Exception as error:
        why = " ".join(str(error).split())[-200:]
        raise ModelError(
            f"{name} cannot repaint a test image ({why}): train one with nst-train"
        ) from error


def _channels_first(shape: list[Any]) -> bool:
    """Whether a tensor is [N, 3, H, W]; False for [N, H, W, 3], ValueError for neither."""
    if len(shape) != 4:
        raise ValueError(shape)
    if shape[1] == 3:
        return True
    if shape[3] == 3:
        return False
    # Sizes left open everywhere: most makers come from PyTorch.
    if all(not isinstance(side, int) for side in shape[1:]):
        return True
    raise ValueError(shape)


def _resize(batch: Array, size: tuple[int, int]) -> Array:
    return np.stack([resized(image, size) for image in batch])
