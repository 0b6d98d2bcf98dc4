"""The inputs and outputs of a style model's file: nst's own contract, and other makers' files."""

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
# Models with global normalisation also output the statistics of each frame, [N, K], and accept
# held ones in their place, [1, K].
STATISTICS_NAME, HELD_NAME = "statistics", "held_statistics"
SMALLEST_SIDE = 32
_STRIDE = 32  # the largest stride to expect of other makers' models

# Value range of a float model's pixels: 0–255, 0–1 or -1–1.
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
    """The layout, type and size of a model's input and output.

    Attributes:
        input_name, output_name: names of the tensors.
        input_type, output_type: uint8, float32 or float16.
        channels_first: for input and output, true for [N, 3, H, W], false for [N, H, W, 3].
        batch: the only batch size that the model accepts; None for any.
        size: the only (height, width) that the model accepts; None for any.
        pixels: value range of float pixels.
        statistics: number of channels whose statistics over the whole frame the model outputs; 0
            if it has no such output.
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
        """Whether it is the contract of nst's own exports, of any batch size and statistics."""
        return replace(self, batch=None, statistics=0) == Signature()

    def encode(self, batch: Array) -> NDArray[Any]:
        """Convert uint8 [N, H, W, 3] RGB to the model's input."""
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
        """Convert the model's output to uint8 [N, H, W, 3] RGB of `size` = (height, width)."""
        if self.channels_first[1]:
            y = y.transpose(0, 2, 3, 1)
        if y.dtype != np.uint8:
            scale, shift = _SCALE[self.pixels]
            y = np.nan_to_num((y.astype(np.float32) - shift) / scale)
            y = np.rint(np.clip(y, 0, 255)).astype(np.uint8)
        down, right = y.shape[1] - size[0], y.shape[2] - size[1]
        if self.size is None and 0 <= down < _STRIDE and 0 <= right < _STRIDE:
            y = y[:, : size[0], : size[1]]  # the model rounded up to a multiple of its stride
        return np.ascontiguousarray(y if y.shape[1:3] == size else _resize(y, size))


def read_signature(
    name: str,
    inputs: list[Any],
    outputs: list[Any],
    run: Callable[[Signature, Array], Any],
    defaulted: Sequence[Any] = (),
) -> Signature:
    """Derive a session's signature from its inputs and outputs.

    Float models do not state the range of their pixels, so a test image is repainted: with pixels
    of 0 to 255 first, and if no result exceeds 2, the range is not 0–255. Then with pixels of -1
    to 1: if no result is clearly negative, the range is 0–1, else -1–1.

    Args:
        name: name of the model for messages.
        inputs, outputs: the session's required inputs and its outputs.
        run: repaints uint8 [N, H, W, 3] under a signature and returns the model's raw output.
        defaulted: the session's inputs that have a default.

    Raises:
        ModelError: the model does not map one image to one image.
    """
    try:
        (x,), y = inputs, outputs[0]
        first_in, first_out = _channels_first(x.shape), _channels_first(y.shape)
        input_type, output_type = _TYPES[x.type], _TYPES[y.type]
    except (ValueError, KeyError, IndexError) as error:
        what = ", ".join(f"{i.name}: {i.type} {i.shape}" for i in (*inputs, *outputs))
        raise ModelError(
            f"{name} maps no single RGB image to another ({what}): train a model with nst-train"
        ) from error
    height, width = x.shape[2:] if first_in else x.shape[1:3]
    fixed = isinstance(height, int) and isinstance(width, int)
    if not fixed and (isinstance(height, int) or isinstance(width, int)):
        raise ModelError(
            f"{name} fixes one side of the image, not both ({height} × {width}): "
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
            f"{name} cannot repaint a test image ({why}): train a model with nst-train"
        ) from error


def _channels_first(shape: list[Any]) -> bool:
    """Return True for [N, 3, H, W] and False for [N, H, W, 3]; raise ValueError for neither."""
    if len(shape) != 4:
        raise ValueError(shape)
    if shape[1] == 3:
        return True
    if shape[3] == 3:
        return False
    # All sizes are open: most makers export from PyTorch, which puts channels first.
    if all(not isinstance(side, int) for side in shape[1:]):
        return True
    raise ValueError(shape)


def _resize(batch: Array, size: tuple[int, int]) -> Array:
    return np.stack([resized(image, size) for image in batch])
