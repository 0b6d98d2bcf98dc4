"""Converts between HWC uint8 arrays and the float batches of the networks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nst.io.images import Array


def to_tensor(image: Array) -> Tensor:
    """Convert HWC uint8 RGB to float [1, 3, H, W] in [0, 255]."""
    return torch.from_numpy(np.array(image.transpose(2, 0, 1), np.float32, order="C"))[None]


def to_image(batch: Tensor) -> Array:
    """Convert the first of float [B, 3, H, W] in [0, 255] to HWC uint8 RGB: round and clip."""
    return to_images(batch[:1])[0]


def to_images(batch: Tensor) -> list[Array]:
    """Convert float [B, 3, H, W] in [0, 255] to images, HWC uint8 RGB: round and clip."""
    images = batch.detach().float().clamp(0, 255).round().byte()
    return list(images.permute(0, 2, 3, 1).contiguous().cpu().numpy())
