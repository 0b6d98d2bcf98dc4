"""Plain fields, and the loss of what a network paints into every block of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import make_small, small_run, steps_of
from torch import Tensor

from nst.config import ObjectiveConfig
from nst.errors import UsageError
from nst.infer.diagnostics.checkerboard import checkerboard
from nst.io.images import Array, load_style
from nst.models.config import TransformerConfig
from nst.models.transformer import TransformerNet
from nst.perceptual.losses import PerceptualLoss, build_objective
from nst.train.engine import step as update_module
from nst.train.engine.step import TrainStep
from nst.train.losses.checkerboard import (
    FIELDS,
    GRAIN,
    SHADE,
    TINT,
    checkerboard_loss,
    mixed_statistics,
    plain_fields,
)

SUBPIXEL = TransformerConfig(4, 1, "subsampled_rms", "subpixel", half_channels=4)
JOHNSON = TransformerConfig(width=4, blocks=1)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch, SUBPIXEL)
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def objective(style_path: Path) -> PerceptualLoss:
    config = ObjectiveConfig(style_loss="gram", style_size=64)
    return build_objective([load_style(style_path)], (), config, torch.device("cpu"))


@pytest.mark.parametrize(
    ("shape", "context", "side"),
    [((4, 3, 164, 164), 50, 164), ((2, 3, 356, 200), 50, 164), ((1, 3, 64, 80), 0, 64)],
)
def test_fields_are_plain_amid_their_photographs(
    shape: tuple[int, ...], context: int, side: int
) -> None:
    crops = torch.rand(shape) * 255
    before = crops.clone()
    fields = plain_fields(crops, context)
    assert torch.equal(crops, before)
    assert fields.shape == (FIELDS, 3, side, side)
    export_padding = (context or 16) // 2
    assert fields.min() >= 0
    assert fields.max() <= 255
    inside = fields[..., export_padding:-export_padding, export_padding:-export_padding]
    assert trendless(inside).std((2, 3)).max() < 1.1 * GRAIN
    assert len({tuple(field.flatten(1).mean(1).tolist()) for field in inside}) == FIELDS
    height, width = shape[2:]
    places = [(0, 0), (0, width - side), (height - side, 0), (height - side, width - side)]
    for index, (top, left) in enumerate(places):
        piece = crops[index % len(crops), :, top : top + side, left : left + side]
        same = (fields[index] == piece).all(0)
        around = torch.ones(side, side, dtype=torch.bool)
        around[export_padding:-export_padding, export_padding:-export_padding] = False
        assert same[around].all()
        assert same[~around].float().mean() < 0.01


def trendless(images: Tensor) -> Tensor:
    """What a plane fitted by least squares leaves of each channel."""
    height, width = images.shape[2:]
    down, across = np.mgrid[:height, :width].reshape(2, -1)
    plane = np.stack([down, across, np.ones(height * width)], 1)
    flat = images.double().flatten(2).flatten(0, 1).numpy().T
    rest = flat - plane @ np.linalg.lstsq(plane, flat)[0]
    return torch.from_numpy(rest.T.copy()).reshape(images.shape)


def test_fields_are_of_the_colors_and_shades_of_photographs() -> None:
    crops = torch.zeros(4, 3, 164, 164)
    fields = torch.cat([plain_fields(crops, 50) for _ in range(100)])[..., 25:-25, 25:-25]
    colors = fields.mean((2, 3))
    chroma = colors.max(1).values - colors.min(1).values
    assert chroma.median() < 40
    assert chroma.max() > 100
    assert (fields.amin(1).amax((1, 2)) == 255).float().mean() > 0.01  # as an overexposed sky
    assert (fields.amax(1).amin((1, 2)) == 0).float().mean() > 0.01
    side = fields.shape[2]
    inner = fields[(colors.min(1).values > 60) & (colors.max(1).values < 195)]
    for ends in (inner, inner.mT):  # clipping would bend the slopes of others
        first, last = ends[..., : side // 4].mean((2, 3)), ends[..., -(side // 4) :].mean((2, 3))
        slopes = (last - first) / (side - side // 4)
        assert slopes.abs().max() < SHADE * (1 + TINT) + 0.05
        steep = slopes[slopes.abs().min(1).values > 0.1]
        assert (steep.sign() == steep[:, :1].sign()).all()
        assert 0.05 < slopes.std() < SHADE


@pytest.mark.parametrize("count", [1, 3, 9])
def test_fields_are_plain_in_photographs_of_any_kind(count: int) -> None:
    side = 64 + 2 * SUBPIXEL.context
    crops = torch.rand(count, 3, side, side) * torch.linspace(20, 255, count)[:, None, None, None]
    network = make_network()
    fields = plain_fields(crops, SUBPIXEL.context)
    own = network.statistics(fields)
    assert own is not None
    others = torch.cat([network.statistics(crops[i % count][None]) for i in range(FIELDS)])  # type: ignore[misc]
    draws = [mixed_statistics(network, fields, crops) for _ in range(20)]
    for mixed in draws:
        assert mixed is not None
        assert not mixed.requires_grad
        share = (mixed / others).log() / (own / others).log()
        assert share.min() >= -0.01
        assert share.max() <= 1.01
        spread = share.std(1).max()  # one share for all channels of a field
        assert spread < 0.05
    assert (
        torch.stack([mixed[0] for mixed in draws if mixed is not None]).unique(dim=0).shape[0] > 15
    )
    johnson = TransformerNet(TransformerConfig(8, 1))
    assert mixed_statistics(johnson, fields, crops) is None


@settings(max_examples=25)
@given(
    st.tuples(st.integers(8, 40), st.integers(8, 40)), st.integers(0, 99), st.sampled_from([0, 9])
)
def test_what_repeats_in_blocks_is_what_counts(
    size: tuple[int, int], seed: int, context: int
) -> None:
    """Against a loop over the pixels of a block; what blocks do not share is averaged away."""
    rng = np.random.default_rng(seed)
    cut = 0 if context else 16
    height, width = (side + 2 * cut for side in size)
    image = rng.normal(100, 30, (2, 3, height, width))
    inner = image[..., cut : height - cut, cut : width - cut]
    rows, columns = (8 * (side // 8) for side in size)
    inner = inner[..., :rows, :columns]
    cells = [[inner[..., y::8, x::8].mean((2, 3)) for x in range(8)] for y in range(8)]
    common = torch.from_numpy(np.array(cells).transpose(2, 3, 0, 1).copy())
    expected = trendless(common).square().mean((1, 2, 3))
    found = checkerboard_loss(torch.from_numpy(image), context)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-6)


@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6), st.integers(0, 99))
def test_shading_does_not_count(slopes: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    dots = torch.from_numpy(np.tile(rng.normal(100, 30, (1, 3, 8, 8)), (8, 8)))
    across, down = torch.tensor(slopes).double().reshape(2, 1, 3, 1, 1)
    places = torch.arange(64)
    shaded = dots + across * places + down * places[:, None]
    found, expected = checkerboard_loss(shaded, 9), checkerboard_loss(dots, 9)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize("period", [2, 4, 8])
def test_it_is_the_checkerboard_that_inspection_finds(period: int) -> None:
    """The same dots, by the spectrum of what a `Stylizer` gives and by the mean over blocks."""

    def dotted(image: Array) -> Array:
        painted = np.full(image.shape, 120, np.uint8)
        painted[1::period, 1::period] += 16
        return painted

    field = torch.from_numpy(dotted(np.zeros((64, 64, 3), np.uint8))).permute(2, 0, 1)[None]
    amplitude = sum(p.amplitude**2 for p in checkerboard(dotted).periods) ** 0.5
    assert checkerboard_loss(field.float(), 9).sqrt().item() == pytest.approx(amplitude, rel=0.02)


def make_network(config: TransformerConfig = SUBPIXEL) -> TransformerNet:
    torch.manual_seed(0)
    network = TransformerNet(config)
    torch.nn.init.normal_(network.output.weight, std=0.5)
    return network


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("config", [SUBPIXEL, JOHNSON])
def test_a_step_adds_it_to_the_other_losses(
    parts: int,
    config: TransformerConfig,
    objective: PerceptualLoss,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(update_module, "fast_bf16", lambda _: False)
    side = 64 + 2 * config.context
    batch = np.random.default_rng(0).integers(0, 256, (4, side, side, 3), np.uint8)
    terms = {}
    for weight in (0.0, 50.0, 100.0):
        update = TrainStep(make_network(config), objective, context=config.context)
        update.checkerboard_weight, update.parts = weight, parts
        torch.manual_seed(5)
        terms[weight] = update(batch, 4, 0, 0.0)[0].tolist()
    for *others, total, _ in terms.values():
        assert total == pytest.approx(sum(others), rel=1e-5)
    assert terms[0.0][5] == 0
    assert terms[50.0][5] > 0
    assert terms[100.0][5] == pytest.approx(2 * terms[50.0][5], rel=1e-4)
    assert terms[50.0][:5] == pytest.approx(terms[0.0][:5], rel=1e-5)


def test_it_is_learned_away(objective: PerceptualLoss) -> None:
    side = 64 + 2 * SUBPIXEL.context
    crops = np.random.default_rng(0).integers(0, 256, (4, side, side, 3), np.uint8)

    def judged(network: TransformerNet) -> float:
        torch.manual_seed(9)
        fields = plain_fields(Tensor(crops).permute(0, 3, 1, 2), SUBPIXEL.context)
        with torch.no_grad():
            return (
                checkerboard_loss(network(fields, has_context=True), SUBPIXEL.context).mean().item()
            )

    network = make_network()
    before = judged(network)
    update = TrainStep(network, objective, context=SUBPIXEL.context)
    update.checkerboard_weight = 1e6
    for step in range(60):
        update(crops, 4, 4 * step, 2e-3)
    assert judged(network) < 0.5 * before


@pytest.mark.parametrize(
    ("network", "weight", "expected"),
    [(SUBPIXEL, None, True), (SUBPIXEL, 0.0, False), (JOHNSON, None, True)],
)
def test_it_counts_when_the_rest_has_settled(
    network: TransformerConfig,
    weight: float | None,
    expected: bool,
    objective: PerceptualLoss,
    style_path: Path,
) -> None:
    more = {} if weight is None else {"checkerboard_weight": weight}
    steps = steps_of(
        objective, make_network(network), small_run(style_path, None, steps=20, **more)
    )
    # From step 14 on it counts, and step 16 is the next that has it.
    assert [step.checkerboard_loss > 0 for step in steps] == [False] * 16 + [expected] * 4


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_makes_no_sense(weight: float, style_path: Path) -> None:
    with pytest.raises(UsageError, match="checkerboard weight is"):
        small_run(style_path, None, checkerboard_weight=weight)
