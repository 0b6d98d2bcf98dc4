"""The perceptual objective of Gatys et al. (2016) and Johnson et al. (2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nst.color.transfer import style_in_colors_of
from nst.config import ObjectiveConfig, check_weights
from nst.io.images import Array, center_square
from nst.io.sample_images import training_photographs
from nst.perceptual.style_image import style_pieces
from nst.perceptual.tensors import to_tensor
from nst.perceptual.vgg import VGG19Features
from nst.perceptual.wasserstein import STYLE_SAMPLES, SlicedWassersteinLoss, sample, share_out

BALANCE_SIDE = 96  # side of the central squares of photographs that are measured
# Style term of an image that has none of the style, divided by the variance of photographs' content
# features; chosen by eye (docs/look.md). Shared by the style layers; under "swd" the colours of the
# pixels count as much as a layer does, in addition.
STYLE_SHARE = 9.0
COLORS = "colors"  # name of the pixels among the style layers
MID_GREY = 127.5
FAINTEST = 0.01  # share of photographs' energy; bounds the weights of a flat style image
# A training under "swd" compares one position of an image in so many, and at least `FEWEST`.
POSITION_STRIDE, FEWEST = 64, 256


def gram_matrix(features: Tensor) -> Tensor:
    """Compute the correlations between channels (Gatys et al. 2016, eq. 3), divided by C·H·W.

    Args:
        features: [B, C, H, W], any float type.

    Returns:
        [B, C, C], float32 or wider: products of half-precision activations would overflow.
    """
    gram: Tensor = _Gram.apply(features)
    return gram


class _Gram(torch.autograd.Function):
    """Gram matrices whose gradient keeps the memory format and the type of the features.

    Autograd would multiply in float32 and give a gradient in the other memory format, which
    takes as long as half of VGG-19 on a GPU.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        _, c, h, w = features.shape
        ctx.save_for_backward(features)
        ctx.scale = 1 / (c * h * w)
        flat = features.flatten(2)  # also a view in channels_last
        with torch.autocast(features.device.type, enabled=False):
            if flat.dtype == torch.bfloat16 and flat.is_cuda and torch.version.hip is None:
                gram = torch.bmm(flat, flat.mT, out_dtype=torch.float32)
            else:
                flat = _wide(flat)
                gram = torch.bmm(flat, flat.mT)
        return gram * ctx.scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        flat = features.flatten(2)
        # Numbers as small as these underflow in float16.
        flat = flat.float() if flat.dtype == torch.float16 else flat
        both = ((gradient + gradient.mT) * ctx.scale).to(flat.dtype)
        last = features.stride(1) == 1
        flat = torch.bmm(flat.mT, both).mT if last else torch.bmm(both, flat)
        return flat.to(features.dtype).view(features.shape)


class ContentLoss(nn.Module):
    """Mean squared difference of activations (Johnson et al. 2016, eq. 2), one per image: [B]."""

    def forward(self, features: Tensor, target: Tensor) -> Tensor:
        # The gradient of a mean would not keep channels_last.
        count = features[0].numel()
        return _wide(features).sub(_wide(target)).square().sum(dim=(1, 2, 3)) / count


class StyleLoss(nn.Module):
    """Mean squared difference of Gram matrices, one per image: [B].

    Gatys et al. (2016, eq. 4) and Johnson et al. (2016, eq. 4) sum the squares with other constant
    factors; the mean keeps layers of different width comparable.

    Args:
        target: the style's Gram matrix, [C, C].
    """

    target: Tensor

    def __init__(self, target: Tensor) -> None:
        super().__init__()
        self.register_buffer("target", target)

    def forward(self, features: Tensor, _positions: int | None = None) -> Tensor:
        """Compute the loss of `features`, [B, C, H, W]; all positions count, always."""
        return gram_matrix(features).sub(self.target).square().mean(dim=(1, 2))

    def energy(self) -> float:
        """Return the loss of features that are 0 everywhere."""
        return float(self.target.square().mean())

    @staticmethod
    def energy_of(features: Tensor) -> float:
        """Return what `energy` is for a style with `features`, [B, C, H, W]."""
        return float(gram_matrix(features).square().mean())


class TVLoss(nn.Module):
    """Total variation (Johnson et al. 2016, section 3.2): mean squared step between neighbours.

    Takes [B, 3, H, W] in [0, 255], returns [B].
    """

    def forward(self, image: Tensor) -> Tensor:
        image = _wide(image)
        down = image.diff(dim=2).square().mean(dim=(1, 2, 3))
        across = image.diff(dim=3).square().mean(dim=(1, 2, 3))
        return down + across


@dataclass(frozen=True)
class Losses:
    """Weighted terms of the objective: each a tensor [B], one number per image."""

    content_loss: Tensor
    style_loss: Tensor
    tv_loss: Tensor

    @property
    def total_loss(self) -> Tensor:
        return self.content_loss + self.style_loss + self.tv_loss


class PerceptualLoss(nn.Module):
    """The weighted sum of losses that trainer, optimiser and score share.

    Args:
        styles: style images, each float [1, 3, H, W] RGB in [0, 255].
        style_weights: one per style, to mix their statistics; empty for equal parts.
        config: layers, weights and the VGG-19 to use.
        vgg: the VGG-19 of `config`, if it is loaded already.

    Raises:
        UsageError: `style_weights` do not fit the styles. And as from `VGG19Features`.
    """

    weights: Tensor

    def __init__(
        self,
        styles: Sequence[Tensor],
        style_weights: Sequence[float] = (),
        config: ObjectiveConfig | None = None,
        vgg: VGG19Features | None = None,
    ) -> None:
        super().__init__()
        self.config = config or ObjectiveConfig()
        layers = (*self.config.content_layers, *self.config.style_layers)
        self.vgg = vgg or VGG19Features(layers, self.config.vgg).to(styles[0].device)
        shares = check_weights("style weights", style_weights, len(styles))
        swd = self.config.style_loss == "swd"
        counts = share_out(shares, STYLE_SAMPLES)
        compared = (*self.config.style_layers, *([COLORS] if swd else []))
        found: dict[str, list[Tensor]] = {layer: [] for layer in compared}
        with torch.no_grad():
            for style, share, count in zip(styles, shares, counts, strict=True):
                features = self._features(style, self.config.style_layers)
                for layer, parts in found.items():
                    x = features[layer]
                    parts.append(sample(x, count) if swd else share * gram_matrix(x))
            joined = {layer: torch.cat(parts) for layer, parts in found.items()}
            # A weighted mean of Gram matrices has the gradient of a weighted sum of losses.
            self.style_losses = nn.ModuleDict(
                {
                    layer: SlicedWassersteinLoss(x) if swd else StyleLoss(x.sum(0))
                    for layer, x in joined.items()
                }
            )
        fixed = self.config.style_weight
        weights = self._balance() if fixed is None else dict.fromkeys(found, fixed)
        # A buffer on the device: a captured CUDA graph then sees the next style's weights.
        self.register_buffer("weights", torch.tensor(list(weights.values())).to(self.vgg.mean))
        self.content = ContentLoss()
        self.tv = TVLoss()

    def _features(self, image: Tensor, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Compute the activations of VGG-19, and under `swd` the colours around mid-grey."""
        features = self.vgg(image, layers)
        if self.config.style_loss == "swd":
            features[COLORS] = image - MID_GREY
        return features

    @torch.no_grad()
    def _balance(self) -> dict[str, float]:
        """Compute weights of the style layers that give every style the same strength.

        A layer counts by its relative error, such as |G - A|² / |A|² for Gram matrices, and the sum
        is scaled by the variance of photographs' content features. So a style image of high
        contrast does not hide the content, and one of low contrast still has an effect.
        """
        config, device = self.config, self.vgg.mean.device
        squares = [center_square(photo, BALANCE_SIDE) for photo in training_photographs()]
        features = self._features(torch.cat([to_tensor(square) for square in squares]).to(device))
        variance = sum(
            float(features[layer].var((0, 2, 3)).mean()) for layer in config.content_layers
        )
        share = config.style_strength * STYLE_SHARE * variance / len(config.style_layers)
        weights = {}
        for layer, module in self.style_losses.items():
            assert isinstance(module, StyleLoss | SlicedWassersteinLoss)
            usual = module.energy_of(features[layer])
            weights[layer] = share / max(module.energy(), FAINTEST * usual)
        return weights

    @property
    def layer_weights(self) -> dict[str, float]:
        """Return the weight of each style layer's loss; under `swd` that of the colours, too."""
        return dict(zip(self.style_losses, self.weights.tolist(), strict=True))

    @torch.no_grad()
    def aim_at(self, other: PerceptualLoss) -> None:
        """Copy the style of another objective: its statistics and their weights."""
        self.weights.copy_(other.weights)
        for name, buffer in self.style_losses.named_buffers():
            buffer.copy_(other.style_losses.get_buffer(name))

    @torch.no_grad()
    def content_features(self, content: Tensor) -> dict[str, Tensor]:
        """Compute the targets of `forward` for `content`, float [B, 3, H, W] RGB in [0, 255].

        If the config keeps colours by `luminance`, `content` is converted to grey first.
        """
        if self.config.keep_color == "luminance":
            luma = content.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)  # BT.601
            content = (content * luma).sum(1, keepdim=True).expand_as(content)
        return self.vgg(content, self.config.content_layers)

    def forward(
        self, image: Tensor, content_features: Mapping[str, Tensor], *, sampled: bool = False
    ) -> Losses:
        """Compute the losses of `image`, float [B, 3, H, W] RGB in [0, 255].

        Args:
            content_features: as `content_features` gives them.
            sampled: estimate the style loss `swd` at random positions in random directions: fast,
                and right on average over the steps of a training.
        """
        config = self.config
        positions = max(FEWEST, image[0, 0].numel() // POSITION_STRIDE) if sampled else None
        features = self._features(image)
        zero = image.new_zeros(len(image), dtype=torch.float32)
        content = zero
        for layer in config.content_layers:
            content = content + self.content(features[layer], content_features[layer])
        style = zero
        for weight, (layer, module) in zip(self.weights, self.style_losses.items(), strict=True):
            style = style + weight * module(features[layer], positions)
        tv = self.tv(image) if config.tv_weight else zero
        return Losses(config.content_weight * content, style, config.tv_weight * tv)


def build_objective(
    styles: Sequence[Array],
    style_weights: Sequence[float],
    config: ObjectiveConfig,
    device: torch.device,
    vgg: VGG19Features | None = None,
    photographs: Sequence[Array] = (),
) -> PerceptualLoss:
    """Build the objective for style images of any size and shape.

    Args:
        styles: images, each HWC uint8 RGB.
        style_weights: one per style; empty for equal parts.
        config: options of the objective.
        device: device of the objective.
        vgg: VGG-19 of another objective with the same layers, to share.
        photographs: HWC uint8 RGB, the colours that the styles get if `config.keep_color` is set;
            empty for the built-in ones.
    """
    if config.keep_color is not None:
        models = photographs or training_photographs()
        styles = [style_in_colors_of(style, models, config.keep_color) for style in styles]
    pieces: list[Tensor] = []
    weights: list[float] = []
    shares = check_weights("style weights", style_weights, len(styles))
    for style, share in zip(styles, shares, strict=True):
        images, areas = style_pieces(style, config.style_size)
        pieces += [to_tensor(image).to(device) for image in images]
        weights += [share * area for area in areas]
    return PerceptualLoss(pieces, weights, config, vgg)


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
