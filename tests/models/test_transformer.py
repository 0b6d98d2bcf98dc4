"""The network against a sequence of torch.nn.functional calls, and its properties."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nst.models.config import PRESETS, Norm
from nst.models.norm import EPSILON, NormStatistics, SubsampledRMSNorm
from nst.models.transformer import (
    SMALLEST_SIDE,
    TransformerConfig,
    TransformerNet,
    reflection_steps,
)
from nst.train.engine.loop import SMALLEST_CROP


def johnson(image: Tensor, w: dict[str, Tensor]) -> Tensor:
    """Compute Johnson et al.'s network step by step, as in the supplementary material."""

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = w[f"{name}.weight"]
        x = F.pad(x, [weight.shape[-1] // 2] * 4, mode="reflect")
        return F.conv2d(x, weight, w.get(f"{name}.bias"), stride)

    def norm(x: Tensor, name: str) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        deviation = (x.var((2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()
        return (x - mean) / deviation * w[f"{name}.weight"].view(1, -1, 1, 1) + w[
            f"{name}.bias"
        ].view(1, -1, 1, 1)

    def block(x: Tensor, name: str, stride: int = 1) -> Tensor:
        return norm(conv(x, f"{name}.0", stride), f"{name}.1")

    x = image / 127.5 - 1
    for i, stride in enumerate((1, 2, 2)):
        x = F.relu(block(x, f"encoder.{i}", stride))
    for i in range(len({k.split(".")[1] for k in w if k.startswith("residuals")})):
        y = F.relu(block(x, f"residuals.{i}.body.0"))
        x = x + block(y, f"residuals.{i}.body.1")
    for i in range(2):
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = F.relu(block(x, f"decoder.{i}.1"))
    return conv(x, "output")[..., : image.shape[2], : image.shape[3]] * 127.5 + 127.5


def test_johnson_matches_functional_calls() -> None:
    torch.manual_seed(0)
    network = TransformerNet(TransformerConfig(width=8, blocks=2)).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    image = torch.rand(2, 3, 45, 62, dtype=torch.float64) * 255
    got = network.forward(image)
    expected = johnson(image, dict(network.state_dict()))
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-3)


def subpixel(image: Tensor, w: dict[str, Tensor]) -> Tensor:
    """Compute the architecture `subpixel` step by step; for sides that are multiples of four."""

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        return F.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), stride)

    def norm(x: Tensor, name: str) -> Tensor:
        if f"{name}.weight" not in w:
            return x
        squares = x[..., ::4, ::4].pow(2).mean((2, 3), keepdim=True)
        return x / (squares + EPSILON).sqrt() * w[f"{name}.weight"].view(1, -1, 1, 1)

    x = image / 127.5 - 1
    for _ in range(2):  # 2 pixels for the first kernel, 4 for each of the 8 others
        x = F.pad(x, [17] * 4, mode="reflect")
    x = F.relu(norm(conv(x, "encoder.0.0", 4), "encoder.0.1"))
    for i in range(3):
        y = F.relu(conv(x, f"residuals.{i}.body.0.0"))
        y = norm(conv(y, f"residuals.{i}.body.1.0"), f"residuals.{i}.body.1.1")
        x = x[..., 2:-2, 2:-2] + y
    x = F.interpolate(x, scale_factor=2, mode="bilinear")[..., 1:-1, 1:-1]
    x = F.relu(conv(x, "decoder.0"))
    w = w | {"output.bias": w["output.bias"].repeat_interleave(4)}
    x = F.pixel_shuffle(conv(x, "output"), 2)
    blur = torch.tensor([1, 2, 1], dtype=x.dtype) / 4
    x = F.conv2d(x.flatten(0, 1)[:, None], torch.outer(blur, blur)[None, None])
    x = x.view(len(image), 3, *x.shape[2:])[..., 1:-1, 1:-1]
    return x * 127.5 + 127.5


@pytest.mark.parametrize("norm", ["none", "subsampled_rms"])
def test_subpixel_matches_functional_calls(norm: Norm) -> None:
    torch.manual_seed(0)
    network = TransformerNet(TransformerConfig(8, 3, norm, "subpixel", half_channels=4)).double()
    network = network.to(memory_format=torch.channels_last)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    image = torch.rand(2, 3, 152, 256, dtype=torch.float64) * 255
    expected = subpixel(image, dict(network.state_dict()))
    torch.testing.assert_close(network(image).double(), expected, rtol=1e-4, atol=1e-3)


def test_a_constant_image_is_painted_flat_for_any_weights() -> None:
    """No checkerboard and no dots."""
    torch.manual_seed(0)
    network = TransformerNet(
        TransformerConfig(8, 2, "subsampled_rms", "subpixel", half_channels=4)
    ).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    inside = network(torch.full((1, 3, 128, 128), 77.0).double())[..., 48:-48, 48:-48]
    torch.testing.assert_close(inside, inside[..., :1, :1].expand_as(inside))


SUBPIXEL = TransformerConfig(width=4, blocks=1, norm="none", architecture="subpixel")


@settings(max_examples=20)
@given(st.integers(32, 75), st.integers(32, 75), st.integers(1, 2), st.booleans())
def test_keeps_any_size(height: int, width: int, batch: int, small: bool) -> None:
    network = TransformerNet(SUBPIXEL if small else TransformerConfig(width=4, blocks=1))
    assert network(torch.zeros(batch, 3, height, width)).shape == (batch, 3, height, width)


@settings(max_examples=10)
@given(st.integers(32, 60), st.integers(32, 60), st.integers(1, 12))
def test_export_padding_is_reflected_and_cropped(height: int, width: int, pad: int) -> None:
    torch.manual_seed(0)
    network = TransformerNet(TransformerConfig(width=4, blocks=1)).eval()
    image = torch.rand(1, 3, height, width) * 255
    with torch.no_grad():
        expected = network(F.pad(image, [pad] * 4, mode="reflect"))
        got = network(image, pad)
    torch.testing.assert_close(got, expected[..., pad : pad + height, pad : pad + width])


@pytest.mark.parametrize("size", [(64, 64), (60, 72), (32, 36)])
def test_subpixel_sees_no_border(size: tuple[int, int]) -> None:
    """It gives the inside of a larger image, extended beyond the receptive field."""
    torch.manual_seed(0)
    network = TransformerNet(TransformerConfig(4, 3, "none", "subpixel")).eval()
    image = torch.rand(2, 3, *size) * 255
    context, beyond = 2 + 4 * 8, 42
    wide = image
    for _ in range(2):
        wide = F.pad(wide, [context // 2] * 4, mode="reflect")
    wide = F.pad(wide, [beyond] * 4, value=1e3)
    inside = slice(context + beyond, -context - beyond)
    with torch.no_grad():
        torch.testing.assert_close(network(image), network(wide)[..., inside, inside])


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("side", [SMALLEST_CROP, 66])
def test_the_context_of_an_image_is_seen_and_not_repainted(preset: str, side: int) -> None:
    torch.manual_seed(0)
    network = TransformerNet(PRESETS[preset]).eval()
    context = network.context
    around = torch.rand(1, 3, side + 2 * context, side + 2 * context) * 255
    with torch.no_grad():
        got = network(around, has_context=True)
        assert got.shape == (1, 3, side, side)
        if context:
            around[..., 0, 0] = 0  # in a corner, seen by that of the image
            assert (network(around, has_context=True) != got).any()
            found = network.statistics(around)
            whole = network(F.pad(around, [2] * 4), statistics=found)
            inside = slice(context + 2, context + 2 + side)
            got = network(around, statistics=found, has_context=True)
            torch.testing.assert_close(got, whole[..., inside, inside], rtol=1e-4, atol=0.05)
        else:
            torch.testing.assert_close(got, network(around))


@given(st.integers(0, 300))
def test_reflection_steps_fit_the_smallest_image(context: int) -> None:
    parts = reflection_steps(context)
    assert sum(parts) == context
    assert all(0 < part <= SMALLEST_SIDE - 4 for part in parts)


def test_rms_norm_is_instance_norm_where_means_are_zero() -> None:
    torch.manual_seed(0)
    norm = SubsampledRMSNorm(5).double()
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(2, 5, 9, 7, dtype=torch.float64)
    x = (x - x.mean((2, 3), keepdim=True)).repeat_interleave(4, 2).repeat_interleave(4, 3)
    statistics = NormStatistics()
    got = norm(x, statistics)
    expected = F.instance_norm(x, weight=norm.weight, eps=EPSILON)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    # Given to another image, they are all that it takes from the first.
    other = torch.randn(2, 5, 60, 28, dtype=torch.float64)
    again = norm(torch.cat([x, other], 2), NormStatistics(statistics.found()))
    torch.testing.assert_close(again[:, :, :36], got)


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0},
        {"half_channels": 0},
        {"norm": "group"},
        {"architecture": "unet"},
        {"architecture": "subpixel"},
        {"norm": "subsampled_rms"},
    ],
)
def test_bad_configs(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"choose|give"):
        TransformerConfig(**wrong)


def test_quality_is_johnsons_size() -> None:
    parameters = sum(p.numel() for p in TransformerNet(PRESETS["quality"]).parameters())
    assert parameters == pytest.approx(1.68e6, rel=0.01)


def test_johnson_paints_no_border_on_a_constant_image() -> None:
    """Reflection padding does not reveal where the border is."""
    torch.manual_seed(0)
    network = TransformerNet(TransformerConfig(width=8, blocks=2)).eval()
    torch.nn.init.normal_(network.output.weight, std=0.3)
    with torch.no_grad():
        out = network(torch.full((1, 3, 64, 80), 90.0))
    assert (out - out[..., 32:33, 40:41]).abs().max() < 0.1


def test_export_padding_covers_the_last_kernel() -> None:
    network = TransformerNet()
    assert network.output.kernel_size[0] // 2 <= network.export_padding


def test_subpixel_paints_no_border_on_a_constant_image() -> None:
    torch.manual_seed(0)
    network = TransformerNet(
        TransformerConfig(8, 2, "subsampled_rms", "subpixel", half_channels=4)
    ).eval()
    torch.nn.init.normal_(network.output.weight, std=0.3)
    with torch.no_grad():
        out = network(torch.full((1, 3, 66, 81), 90.0))
    assert (out - out[..., 32:33, 40:41]).abs().max() < 0.1


@pytest.mark.parametrize("preset", PRESETS)
def test_export_padding_is_a_multiple_of_the_stride(preset: str) -> None:
    assert TransformerNet(PRESETS[preset]).export_padding % 4 == 0


def test_starts_near_mid_grey() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        out = TransformerNet()(torch.rand(1, 3, 64, 64) * 255)
    assert abs(out.mean() - 127.5) < 20
    assert out.std() < 60
