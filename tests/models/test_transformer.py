"""The network against a plain loop of torch.nn.functional calls, and its properties."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nst.models.config import PRESETS, Norm
from nst.models.sampled import EPSILON, SampledNorm, Statistics
from nst.models.transformer import TransformerConfig, TransformerNet
from nst.train.loop import SMALLEST_CROP


def johnson(image: Tensor, w: dict[str, Tensor]) -> Tensor:
    """Johnson et al.'s network as one reads it off the supplementary material."""

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


def test_matches_a_plain_loop() -> None:
    torch.manual_seed(0)
    network = TransformerNet(TransformerConfig(width=8, blocks=2)).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    image = torch.rand(2, 3, 45, 62, dtype=torch.float64) * 255
    got = network.forward(image)
    expected = johnson(image, dict(network.state_dict()))
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-3)


def folded(image: Tensor, w: dict[str, Tensor]) -> Tensor:
    """The folded design, step by step; for sides that are multiples of four."""

    def conv(x: Tensor, name: str, stride: int = 1, pad: int = 1) -> Tensor:
        return F.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), stride, pad)

    def norm(x: Tensor, name: str, edge: int) -> Tensor:
        if f"{name}.weight" not in w:
            return x
        inside = F.pad(x, [-edge] * 4)
        squares = inside[..., ::4, ::4].pow(2).mean((2, 3), keepdim=True)
        return x / (squares + EPSILON).sqrt() * w[f"{name}.weight"].view(1, -1, 1, 1)

    x = F.pad(image / 127.5 - 1, [2] * 4, mode="reflect")
    x = F.relu(norm(conv(x, "encoder.0.0", 4, 0), "encoder.0.1", 0))
    for i in range(3):
        y = F.relu(conv(x, f"residuals.{i}.body.0.0"))
        x = x + norm(conv(y, f"residuals.{i}.body.1.0"), f"residuals.{i}.body.1.1", 1)
    # Zeros beyond the border count as a block of their own.
    x = F.interpolate(F.pad(x, [1] * 4), scale_factor=2, mode="bilinear")[..., 1:-1, 1:-1]
    x = F.pad(F.relu(conv(x, "decoder.0", pad=0)), [2] * 4)
    w = w | {"output.bias": w["output.bias"].repeat_interleave(4)}
    x = F.pixel_shuffle(conv(x, "output", pad=0), 2)
    blur = torch.tensor([1, 2, 1], dtype=x.dtype) / 4
    x = F.conv2d(x.flatten(0, 1)[:, None], torch.outer(blur, blur)[None, None])
    x = x.view(len(image), 3, *x.shape[2:])[..., 1:-1, 1:-1]
    return x * 127.5 + 127.5


@pytest.mark.parametrize("norm", ["none", "sampled"])
def test_the_folded_design_matches_a_plain_loop(norm: Norm) -> None:
    torch.manual_seed(0)
    network = TransformerNet(TransformerConfig(8, 3, norm, "folded", half=4)).double()
    network = network.to(memory_format=torch.channels_last)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    image = torch.rand(2, 3, 152, 256, dtype=torch.float64) * 255
    expected = folded(image, dict(network.state_dict()))
    torch.testing.assert_close(network(image).double(), expected, rtol=1e-4, atol=1e-3)


def test_a_constant_field_is_painted_flat() -> None:
    """No mesh and no dots: whatever the weights, the design cannot."""
    torch.manual_seed(0)
    network = TransformerNet(TransformerConfig(8, 2, "sampled", "folded", half=4)).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    inside = network(torch.full((1, 3, 128, 128), 77.0).double())[..., 48:-48, 48:-48]
    torch.testing.assert_close(inside, inside[..., :1, :1].expand_as(inside))


FOLDED = TransformerConfig(width=4, blocks=1, norm="none", design="folded")


@settings(max_examples=20, deadline=None)
@given(st.integers(32, 75), st.integers(32, 75), st.integers(1, 2), st.booleans())
def test_keeps_any_size(height: int, width: int, batch: int, fold: bool) -> None:
    network = TransformerNet(FOLDED if fold else TransformerConfig(width=4, blocks=1))
    assert network(torch.zeros(batch, 3, height, width)).shape == (batch, 3, height, width)


@settings(max_examples=10, deadline=None)
@given(st.integers(32, 60), st.integers(32, 60), st.integers(1, 12))
def test_a_rim_is_reflected_and_cut_off(height: int, width: int, rim: int) -> None:
    torch.manual_seed(0)
    network = TransformerNet(TransformerConfig(width=4, blocks=1)).eval()
    image = torch.rand(1, 3, height, width) * 255
    with torch.no_grad():
        expected = network(F.pad(image, [rim] * 4, mode="reflect"))
        got = network(image, rim)
    torch.testing.assert_close(got, expected[..., rim : rim + height, rim : rim + width])


def test_the_folded_design_reflects_but_once() -> None:
    """The margin of the first kernel lies beyond the rim, and is the image reflected, too."""
    torch.manual_seed(0)
    network = TransformerNet(FOLDED).eval()
    image = torch.rand(1, 3, 40, 48) * 255
    wide = F.pad(image, [8 + 2] * 4, mode="reflect") / 127.5 - 1
    with torch.no_grad():
        x = network.output(network.decoder(network.residuals(network.encoder(wide))))
        x = F.pixel_shuffle(x.view(1, 16, 3, *x.shape[2:]).transpose(1, 2).flatten(1, 2), 4)
        x = x[..., 8:-8, 8:-8]
        torch.testing.assert_close(network(image, 8), x * 127.5 + 127.5)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_smallest_crops_suffice_without_bounds(preset: str) -> None:
    image = torch.zeros(1, 3, SMALLEST_CROP, SMALLEST_CROP)
    assert TransformerNet(PRESETS[preset])(image, unbounded=True).shape == image.shape


@pytest.mark.parametrize("size", [(64, 64), (61, 70)])
def test_without_bounds_no_zeros_are_seen(size: tuple[int, int]) -> None:
    """It paints the inside of the image continued so far that its border is out of sight."""
    torch.manual_seed(0)
    network = TransformerNet(FOLDED).eval()
    image = torch.rand(2, 3, *size) * 255
    far = 4 * (2 * FOLDED.blocks + 3)
    wide = F.pad(image, [far] * 4, mode="reflect")
    with torch.no_grad():
        found = network.statistics(wide)
        expected = network(wide, statistics=found)[..., far:-far, far:-far]
        statistics = Statistics(found)
        got = network._unbounded(image, statistics)
        x = F.pixel_shuffle(got.unflatten(1, (16, 3)).transpose(1, 2).flatten(1, 2), 4)
        x = x[..., : size[0], : size[1]] * 127.5 + 127.5
        torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-3)
        # Its own statistics are those of the image and what continues it.
        same = network(image, unbounded=True)
        torch.testing.assert_close(same, expected, rtol=0, atol=3)
    johnson = TransformerNet(TransformerConfig(width=4, blocks=1)).eval()
    with torch.no_grad():
        torch.testing.assert_close(johnson(image, unbounded=True), johnson(image))


def test_where_means_are_nothing_it_is_instance_normalisation() -> None:
    torch.manual_seed(0)
    norm = SampledNorm(5, 0).double()
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(2, 5, 9, 7, dtype=torch.float64)
    x = (x - x.mean((2, 3), keepdim=True)).repeat_interleave(4, 2).repeat_interleave(4, 3)
    statistics = Statistics()
    got = norm(x, statistics)
    expected = F.instance_norm(x, weight=norm.weight, eps=EPSILON)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    # Handed to another image, they are the only thing that it takes from the first.
    other = torch.randn(2, 5, 60, 28, dtype=torch.float64)
    again = norm(torch.cat([x, other], 2), Statistics(statistics.found()))
    torch.testing.assert_close(again[:, :, :36], got)
    # Nothing of the edge is looked at.
    norm.edge = 1
    inside = norm(x, statistics)
    x[..., [0, -1]] = 1e6
    torch.testing.assert_close(norm(x, statistics)[..., 1:-1], inside[..., 1:-1])


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0},
        {"half": 0},
        {"norm": "group"},
        {"design": "unet"},
        {"design": "folded"},
        {"norm": "sampled"},
    ],
)
def test_bad_configs(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"choose|give"):
        TransformerConfig(**wrong)


def test_quality_is_johnsons_size() -> None:
    parameters = sum(p.numel() for p in TransformerNet(PRESETS["quality"]).parameters())
    assert parameters == pytest.approx(1.68e6, rel=0.01)


def test_a_constant_image_gets_no_border() -> None:
    """Reflection padding tells the network nothing of where the edge is."""
    torch.manual_seed(0)
    network = TransformerNet(TransformerConfig(width=8, blocks=2)).eval()
    torch.nn.init.normal_(network.output.weight, std=0.3)
    with torch.no_grad():
        out = network(torch.full((1, 3, 64, 80), 90.0))
    assert (out - out[..., 32:33, 40:41]).abs().max() < 0.1


def test_the_rim_is_wider_than_the_reach_of_the_last_convolution() -> None:
    network = TransformerNet()
    assert network.output.kernel_size[0] // 2 <= network.rim


@pytest.mark.parametrize("preset", PRESETS)
def test_a_rim_leaves_the_grid_of_the_strides_where_it_was(preset: str) -> None:
    assert TransformerNet(PRESETS[preset]).rim % 4 == 0


def test_starts_near_mid_grey() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        out = TransformerNet()(torch.rand(1, 3, 64, 64) * 255)
    assert abs(out.mean() - 127.5) < 20
    assert out.std() < 60
