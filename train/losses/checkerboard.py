"""The checkerboard loss: penalises patterns that repeat in every block of a flat area.

Strides leave dots and meshes in skies and walls (docs/inspect.md): within a block, some pixels come
out brighter than others, in every block alike. Camera grain makes it stronger. Crops of photographs
show little of it, so the loss is measured on fields that are made for it: flat but for a slight
shading and grain, in the colours of photographs, above all greys and whites.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nst.models.transformer import TransformerNet

FIELDS = 4  # fields a step, one in each corner of the crops
FIELD_SIDE = 64  # side of the measured part of a field, pixels, if the crops are large enough
BLOCK = 8  # side of a block, pixels: two strides of the networks, as neighbouring blocks may differ
SHADE = 0.4  # largest slope of the shading, levels per pixel
TINT = 0.3  # largest relative difference of the slope between channels
GRAIN = 3.0  # largest standard deviation of the grain, levels
_IGNORED = 16  # border that is ignored where a network pads, pixels: padding changes what it paints


def plain_fields(crops: Tensor, context: int) -> Tensor:
    """Cut pieces out of crops, and fill the middle of each with a shaded colour and grain.

    The photograph around a field gives normalisation realistic statistics.

    Args:
        crops: float [B, 3, H, W] in [0, 255], with their context.
        context: context of the network, pixels.

    Returns:
        float [FIELDS, 3, S, S] in [0, 255].
    """
    around = context or _IGNORED
    side = min(FIELD_SIDE + 2 * around, *crops.shape[2:])
    down, right = (length - side for length in crops.shape[2:])
    corners = ((0, 0), (0, right), (down, 0), (down, right))
    pieces = [
        crops[index % len(crops), :, top : top + side, left : left + side]
        for index, (top, left) in enumerate(corners)
    ]
    fields = torch.stack(pieces)
    inside = slice(around // 2, -(around // 2))
    flat = fields[..., inside, inside]
    grain = GRAIN * torch.rand(FIELDS, 1, 1, 1, device=crops.device)
    color = _colors(crops.device) + _shading(flat.shape[2], crops.device)
    flat.copy_((color + grain * torch.randn_like(flat)).clamp(0, 255))
    return fields


def _colors(device: torch.device) -> Tensor:
    """Draw colours [FIELDS, 3, 1, 1]: most have little chroma, some are pure white or black."""
    grey = (300 * torch.rand(FIELDS, 1, 1, 1, device=device) - 22).clamp(0, 255)
    any_color = 255 * torch.rand(FIELDS, 3, 1, 1, device=device)
    return torch.lerp(grey, any_color, torch.rand(FIELDS, 1, 1, 1, device=device).square())


def _shading(side: int, device: torch.device) -> Tensor:
    """Draw linear ramps [FIELDS, 3, side, side], 0 in the middle, in a direction for each field."""
    places = torch.arange(side, device=device) - (side - 1) / 2
    across, down = SHADE * (2 * torch.rand(2, FIELDS, 1, 1, 1, device=device) - 1)
    tints = 1 + TINT * (2 * torch.rand(2, FIELDS, 3, 1, 1, device=device) - 1)
    amount = torch.rand(FIELDS, 1, 1, 1, device=device)
    return amount * (across * tints[0] * places + down * tints[1] * places[:, None])


def mixed_statistics(network: TransformerNet, fields: Tensor, crops: Tensor) -> Tensor | None:
    """Draw statistics between those of the fields and those of whole crops, in the logarithm.

    They stand for photographs of which a flat area is a smaller or larger part.

    Args:
        fields: fields from `plain_fields`.
        crops: float [B, 3, H, W] in [0, 255], with their context.

    Returns:
        float [FIELDS, K] for `TransformerNet.forward`; None for a network that takes none.
    """
    with torch.no_grad():
        own = network.statistics(fields)
        if own is None:
            return None
        others = network.statistics(crops[:FIELDS])
        assert others is not None
        others = others.repeat(-(-FIELDS // len(others)), 1)[:FIELDS]
        share = torch.rand(FIELDS, 1, device=own.device)
        return own**share * others ** (1 - share)


def checkerboard_loss(stylized: Tensor, context: int) -> Tensor:
    """Measure how much the pixels of a block differ, averaged over the blocks of a field.

    A linear trend within the block does not count, because it belongs to the field's shading.

    Args:
        stylized: float [B, 3, H, W], stylized fields without their context.
        context: context of the network, pixels.

    Returns:
        float [B], variances in levels².
    """
    if not context:
        stylized = stylized[..., _IGNORED:-_IGNORED, _IGNORED:-_IGNORED]
    rows, columns = (side // BLOCK for side in stylized.shape[2:])
    # Axes: batch, channel, block row, row in the block, block column, column in the block.
    blocks = stylized[..., : rows * BLOCK, : columns * BLOCK].reshape(
        *stylized.shape[:2], rows, BLOCK, columns, BLOCK
    )
    common = blocks.mean((2, 4))
    common = common - common.mean((2, 3), keepdim=True)
    slope = torch.linspace(-1, 1, BLOCK, device=common.device, dtype=common.dtype)
    slope = slope / slope.norm()
    for axis, trend in ((2, slope[:, None]), (3, slope)):
        along = common.mean(5 - axis, keepdim=True)
        common = common - (along * trend).sum(axis, keepdim=True) * trend
    return common.square().mean((1, 2, 3))
