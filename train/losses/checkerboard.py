"""The checkerboard loss: what is plain is to be painted the same in all pixels of a block.

Strides leave dots and meshes in skies and walls (docs/inspect.md): of the pixels of a block, some
come out brighter than others, in block after block. The grain of a camera brings it out, and a
network sees little of it in crops full of things, so fields that hold nothing else are made: of the
colours that photographs have, greys and whites above all, shaded as skies and walls are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nst.models.transformer import TransformerNet

FIELDS = 4  # a step, of the corners of crops
FIELD_SIDE = 64  # pixels of a field that are judged, if the crops are as large
BLOCK = 8  # pixels: two of the networks' strides, for blocks may take turns
SHADE = 0.4  # by how much a field gets brighter from pixel to pixel at most, levels
TINT = 0.3  # by how much more or less in one channel, of that
GRAIN = 3.0  # its standard deviation at most, levels
_UNSEEN = 16  # pixels around, of a network that pads: there it paints what padding tells it


def plain_fields(crops: Tensor, context: int) -> Tensor:
    """Pieces of crops, each with a field of a shaded colour and a grain within.

    The photograph around it is what a network that normalises takes its measure from.

    Args:
        crops: float [B, 3, H, W] in [0, 255], contexts included.
        context: of the network.

    Returns:
        float [FIELDS, 3, S, S].
    """
    around = context or _UNSEEN
    side = min(FIELD_SIDE + 2 * around, *crops.shape[2:])
    down, right = (length - side for length in crops.shape[2:])
    corners = ((0, 0), (0, right), (down, 0), (down, right))
    pieces = [
        crops[index % len(crops), :, top : top + side, left : left + side]
        for index, (top, left) in enumerate(corners)
    ]
    fields = torch.stack(pieces)
    inside = slice(around // 2, -(around // 2))
    plain = fields[..., inside, inside]
    grain = GRAIN * torch.rand(FIELDS, 1, 1, 1, device=crops.device)
    color = _colors(crops.device) + _shading(plain.shape[2], crops.device)
    plain.copy_((color + grain * torch.randn_like(plain)).clamp(0, 255))
    return fields


def _colors(device: torch.device) -> Tensor:
    """[FIELDS, 3, 1, 1]: mostly of little chroma, and now and then as white or black as can be."""
    grey = (300 * torch.rand(FIELDS, 1, 1, 1, device=device) - 22).clamp(0, 255)
    any_color = 255 * torch.rand(FIELDS, 3, 1, 1, device=device)
    return torch.lerp(grey, any_color, torch.rand(FIELDS, 1, 1, 1, device=device).square())


def _shading(side: int, device: torch.device) -> Tensor:
    """[FIELDS, 3, side, side]: 0 in the middle, rising in a direction of each field's own."""
    places = torch.arange(side, device=device) - (side - 1) / 2
    across, down = SHADE * (2 * torch.rand(2, FIELDS, 1, 1, 1, device=device) - 1)
    tints = 1 + TINT * (2 * torch.rand(2, FIELDS, 3, 1, 1, device=device) - 1)
    amount = torch.rand(FIELDS, 1, 1, 1, device=device)
    return amount * (across * tints[0] * places + down * tints[1] * places[:, None])


def mixed_statistics(network: TransformerNet, fields: Tensor, crops: Tensor) -> Tensor | None:
    """Statistics under which fields are to be plain: between their own and those of whole crops.

    A sky is a part of a photograph, of whatever size.

    Args:
        fields: as `plain_fields` gives them.
        crops: float [B, 3, H, W] in [0, 255], contexts included.

    Returns:
        [FIELDS, K]; None for a network that can't be given them.
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
    """How much the pixels of a block differ, in the mean over the blocks of a field.

    A linear trend is no difference: the field's own shade is to stay.

    Args:
        stylized: float [B, 3, H, W], plain fields repainted, their `context` left out.

    Returns:
        [B], variances in levels².
    """
    if not context:
        stylized = stylized[..., _UNSEEN:-_UNSEEN, _UNSEEN:-_UNSEEN]
    rows, columns = (side // BLOCK for side in stylized.shape[2:])
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
