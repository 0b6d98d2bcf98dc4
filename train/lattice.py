"""The lattice loss: what is plain is to be painted the same in all pixels of a block.

Strides leave dots and meshes in skies and walls (docs/inspect.md): of the pixels of a block, some
come out brighter than others, in block after block. The grain of a camera brings it out, and a
network sees little of it in crops full of things, so fields that hold nothing else are made.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nst.models.transformer import TransformerNet

FIELDS = 4  # a step, of the corners of crops
SIDE = 64  # pixels of a field that are judged, if the crops are as large
BLOCK = 8  # pixels: two of the networks' strides, for blocks may take turns
GRAIN = 3.0  # its standard deviation at most, levels
_UNSEEN = 16  # pixels around, of a network that pads: there it paints what padding tells it


def plain_fields(crops: Tensor, margin: int) -> Tensor:
    """Pieces of crops, each with a field of one colour and a grain within.

    The photograph around it is what a network that normalises takes its measure from.

    Args:
        crops: float [B, 3, H, W] in [0, 255], margins included.
        margin: of the network.

    Returns:
        float [FIELDS, 3, S, S].
    """
    around = margin or _UNSEEN
    side = min(SIDE + 2 * around, *crops.shape[2:])
    down, right = (length - side for length in crops.shape[2:])
    corners = ((0, 0), (0, right), (down, 0), (down, right))
    pieces = [
        crops[index % len(crops), :, top : top + side, left : left + side]
        for index, (top, left) in enumerate(corners)
    ]
    fields = torch.stack(pieces)
    inside = slice(around // 2, -(around // 2))
    plain = fields[..., inside, inside]
    color = 255 * torch.rand(FIELDS, 3, 1, 1, device=crops.device)
    grain = GRAIN * torch.rand(FIELDS, 1, 1, 1, device=crops.device)
    plain.copy_((color + grain * torch.randn_like(plain)).clamp(0, 255))
    return fields


def mixed_statistics(network: TransformerNet, fields: Tensor, crops: Tensor) -> Tensor | None:
    """Statistics under which fields are to be plain: between their own and those of whole crops.

    A sky is a part of a photograph, of whatever size.

    Args:
        fields: as `plain_fields` gives them.
        crops: float [B, 3, H, W] in [0, 255], margins included.

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


def lattice_loss(stylized: Tensor, margin: int) -> Tensor:
    """How much the pixels of a block differ, in the mean over the blocks of a field.

    Args:
        stylized: float [B, 3, H, W], plain fields repainted, their `margin` left out.

    Returns:
        [B], variances in levels².
    """
    if not margin:
        stylized = stylized[..., _UNSEEN:-_UNSEEN, _UNSEEN:-_UNSEEN]
    rows, columns = (side // BLOCK for side in stylized.shape[2:])
    blocks = stylized[..., : rows * BLOCK, : columns * BLOCK].reshape(
        *stylized.shape[:2], rows, BLOCK, columns, BLOCK
    )
    return blocks.mean((2, 4)).var((2, 3), correction=0).mean(1)
