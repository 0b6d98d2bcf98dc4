"""Tiles: the same pixels as the whole, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nst.errors import UsageError
from nst.infer.runtime import tiles as tiles_module
from nst.infer.runtime.stylizer import Stylizer
from nst.infer.runtime.tiles import GRID, PATCH, SAMPLE, sample, tiles
from nst.io.images import Array
from nst.models.config import PRESETS
from nst.models.layers import SubpixelConv
from nst.models.transformer import TransformerConfig, TransformerNet
from nst.perceptual.tensors import to_tensor
from nst.train.export.export import export_precisions


@settings(max_examples=60)
@given(st.tuples(st.integers(1, 300), st.integers(1, 300)), st.integers(0, 40), st.integers(8, 120))
def test_tiles_cover_every_pixel_once(
    size: tuple[int, int], receptive_radius: int, side: int
) -> None:
    image = np.arange(size[0] * size[1], dtype=np.int64).reshape(size)
    seen = np.full(size, -1)
    shapes = set()
    for tile in tiles(size, receptive_radius, side):
        assert (seen[tile.target] == -1).all()
        seen[tile.target] = image[tile.source][tile.inner]
        shapes.add(image[tile.source].shape)
        for source, target, length in zip(tile.source, tile.target, size, strict=True):
            assert target.stop - target.start <= side + GRID
            assert source.start % GRID == 0  # the blocks lie as they do in the whole
            assert source.start == 0 or target.start - source.start >= receptive_radius
            assert source.stop == length or source.stop - target.stop >= receptive_radius
    np.testing.assert_array_equal(seen, image)
    assert len(shapes) == 1


def loud(config: TransformerConfig) -> TransformerNet:
    """Random weights under which every pixel counts at every pixel in receptive_radius."""
    torch.manual_seed(1)
    net = TransformerNet(config)
    for parameter in net.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=0.3, std=0.3)
    if isinstance(net.output, SubpixelConv):
        torch.nn.init.zeros_(net.output.bias)
    torch.nn.init.normal_(net.output.weight, std=0.1 if config.norm == "subsampled_rms" else 0.3)
    return net.eval()


CONFIGS = {
    "subpixel": TransformerConfig(32, 3, "none", "subpixel"),
    "subpixel, subsampled_rms": TransformerConfig(16, 2, "subsampled_rms", "subpixel"),
    "johnson, batch": TransformerConfig(8, 2, "batch"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_reach_is_told_as_it_is(name: str) -> None:
    """Nothing beyond it counts, and it is not much too wide."""
    network = loud(CONFIGS[name]).double()
    assert network.receptive_radius is not None
    image = torch.rand(1, 3, 180, 180, dtype=torch.float64) * 255
    farthest = 0
    with torch.no_grad():
        statistics = network.statistics(image)
        before = network(image, 8, statistics)
        for y in range(88, 92):  # each place in a block
            changed = image.clone()
            changed[..., y, y] = 255 - changed[..., y, y]
            rows = (network(changed, 8, statistics) != before).any(1)[0].nonzero()
            farthest = max(farthest, int((rows - y).abs().max()))
    assert network.receptive_radius - 12 <= farthest <= network.receptive_radius


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", CONFIGS)
def test_tiled_is_whole(
    name: str,
    precision: str,
    tmp_path: Path,
    photograph: Array,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "a.onnx"
    export_precisions(loud(CONFIGS[name]), {precision: path}, {}, calibration=lambda: [photograph])
    big = np.tile(photograph, (4, 3, 1))[:301, :330]
    batch = np.stack([big, big[::-1]])
    with Stylizer(path, provider="cpu") as stylizer:
        assert stylizer.receptive_radius == loud(CONFIGS[name]).receptive_radius
        whole = stylizer(batch)
        reports: list[tuple[int, int]] = []
        monkeypatch.setattr(tiles_module, "TILE_SIDE", 100)
        tiled = stylizer(batch, report=lambda *r: reports.append(r))
    np.testing.assert_array_equal(tiled, whole)
    assert whole.std() > 20
    assert reports == [(n, 32) for n in range(1, 33)]


def test_large_images_go_in_tiles_by_themselves(
    tmp_path: Path, photograph: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles_module, "TILE_SIDE", 64)
    reports: list[tuple[int, int]] = []
    for config, expected in ((CONFIGS["subpixel"], 4), (PRESETS["quality"], 0)):
        export_precisions(loud(config), {"fp32": tmp_path / "a.onnx"}, {}, calibration=lambda: [])
        reports.clear()
        with Stylizer(tmp_path / "a.onnx", provider="cpu") as stylizer:
            stylizer(photograph[:96, :128], report=lambda *r: reports.append(r))
        assert len(reports) == expected


@settings(max_examples=60)
@given(st.integers(1, 20_000), st.booleans())
def test_a_sample_is_patches_from_all_over_the_image(length: int, turn: bool) -> None:
    line = np.arange(length, dtype=np.int64)[:, None, None].repeat(3, 2)
    image = np.ascontiguousarray(line.swapaxes(0, 1) if turn else line)
    part = sample(image)
    assert part.shape == ((1, len(part[0]), 3) if turn else (len(part), 1, 3))
    places = part[..., 0].ravel()
    if length <= SAMPLE:
        np.testing.assert_array_equal(places, np.arange(length))
        return
    patches = places.reshape(-1, PATCH)
    assert len(places) == SAMPLE
    assert (np.diff(patches) == 1).all()  # each in one piece
    assert (patches[:, 0] % GRID == 0).all()
    gaps = patches[1:, 0] - patches[:-1, -1]
    assert gaps.min() >= 1  # no place twice
    assert np.ptp(gaps) <= 2 * GRID  # evenly spread
    assert patches[0, 0] == 0
    assert length - patches[-1, -1] <= GRID


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_statistics_are_those_that_the_network_takes(
    precision: str, tmp_path: Path, photograph: Array
) -> None:
    path = tmp_path / "a.onnx"
    network = loud(CONFIGS["subpixel, subsampled_rms"])
    export_precisions(network, {precision: path}, {}, calibration=lambda: [photograph])
    big = np.tile(photograph, (4, 3, 1))[:701, :330]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    stylized, expected = session.run(["stylized", "statistics"], {"image": big[None]})
    (other,) = session.run(["statistics"], {"image": 255 - big[None]})
    with Stylizer(path, provider="cpu") as stylizer:
        got = stylizer.statistics(big)
        np.testing.assert_array_equal(got, expected)
        tiny = stylizer.statistics(big[:9, :5])
        assert tiny is not None
        assert tiny.shape == got.shape
        with pytest.raises(UsageError, match="give uint8"):
            stylizer.statistics(big[..., :1])
        # Handed in, they change nothing; those of another frame do.
        np.testing.assert_array_equal(stylizer.frame(big, held=got)[0], stylized[0])
        changed, own = stylizer.frame(big, held=other)
        assert (changed != stylized[0]).mean() > 0.3
        assert own is not None
        assert own.shape == expected.shape
    if precision == "fp32":
        with torch.no_grad():
            ours = network.statistics(to_tensor(big), network.export_padding)
        assert ours is not None
        np.testing.assert_allclose(expected, ours.numpy(), rtol=1e-4, atol=1e-5)


def test_networks_without_a_sample_take_no_statistics(model_path: Path, photograph: Array) -> None:
    with Stylizer(model_path, provider="cpu") as stylizer:
        assert stylizer.statistics(photograph) is None
