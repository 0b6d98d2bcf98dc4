"""The sliced Wasserstein loss against SciPy, and its properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from nst.config import ObjectiveConfig, OptimizeConfig
from nst.errors import UsageError
from nst.io.images import Array
from nst.perceptual import wasserstein
from nst.perceptual.gatys import optimize
from nst.perceptual.losses import COLORS, PerceptualLoss
from nst.perceptual.tensors import to_tensor
from nst.perceptual.wasserstein import SlicedWassersteinLoss, sample, share_out, spread

SWD = ObjectiveConfig(style_loss="swd")
GRAM = ObjectiveConfig(style_loss="gram")


def squared_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The squared 2-Wasserstein distance of two sets of as many numbers, by optimal assignment."""
    costs = np.subtract.outer(a, b) ** 2
    rows, columns = linear_sum_assignment(costs)
    return float(costs[rows, columns].mean())


@settings(max_examples=20)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6), st.integers(0, 999))
def test_it_is_the_optimal_assignment(channels: int, height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(2, channels, height, width)) * 30
    style = rng.normal(size=(height * width, channels)) * 20 + 5
    loss = SlicedWassersteinLoss(torch.from_numpy(style))
    basis = loss.directions.numpy()
    np.testing.assert_allclose(basis @ basis.T, np.eye(channels), atol=1e-6)
    expected = [
        np.mean([squared_distance(x.reshape(channels, -1).T @ d, style @ d) for d in basis])
        for x in image
    ]
    np.testing.assert_allclose(loss(torch.from_numpy(image)), expected, rtol=1e-9)


def test_draws_are_right_on_average() -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 6, 48, 48, dtype=torch.float64) * 3 + 1
    samples = torch.randn(wasserstein.STYLE_SAMPLES, 6, dtype=torch.float64) * 2 - 1
    loss = SlicedWassersteinLoss(samples)
    exact = float(loss(image))  # over an orthogonal basis: that over all directions, for a shift
    drawn = np.array([float(loss(image, 1024)) for _ in range(200)])
    assert drawn.std() > 0
    assert abs(drawn.mean() - exact) < 4 * drawn.std() / np.sqrt(200) + 0.02 * exact
    assert float(loss(image)) == exact


@pytest.mark.parametrize("positions", [None, 64])
def test_gradients(positions: int | None) -> None:
    torch.manual_seed(1)
    loss = SlicedWassersteinLoss(torch.randn(200, 3, dtype=torch.float64))
    x = torch.randn(2, 3, 12, 10, dtype=torch.float64).to(memory_format=torch.channels_last)

    def again(features: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(2)  # the same draws
        value: torch.Tensor = loss(features, positions)
        return value

    x.requires_grad_()
    assert torch.autograd.gradcheck(again, x)
    (gradient,) = torch.autograd.grad(again(x).sum(), x)
    moved = (gradient != 0).any(1).flatten(1).sum(1)
    assert (moved <= (positions or 120)).all()
    assert (moved > (positions or 119) // 2).all()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(kind: torch.dtype) -> None:
    loss = SlicedWassersteinLoss(torch.full((64, 4), 1000.0))
    features = torch.full((1, 4, 8, 8), 3000.0, dtype=kind)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(features)
    assert value.dtype == torch.float32
    np.testing.assert_allclose(value, [2000.0**2], rtol=0.01)


def test_the_style_itself_has_none_of_the_loss(photograph: Array) -> None:
    style = to_tensor(photograph)
    objective = PerceptualLoss([style], config=SWD)
    itself, grey, other = (
        float(objective(x, objective.content_features(style)).style_loss)
        for x in (style, torch.full_like(style, 128), 255 - style)
    )
    assert itself < 0.02 * min(grey, other)


@settings(max_examples=30)
@given(st.integers(1, 500), st.integers(1, 200))
def test_positions_are_spread(area: int, count: int) -> None:
    places = spread(area, count)
    assert torch.equal(places, spread(area, count))
    assert len(places) == count
    assert ((places >= 0) & (places < area)).all()
    assert (places.diff() >= 0).all()
    if count <= area:
        parts = (np.arange(count + 1) * area / count)[[0, -1]]
        assert parts[0] <= places[0] < area / count + 1
        assert len(places.unique()) >= min(count, area) // 2
    features = torch.arange(area, dtype=torch.float32).view(1, 1, 1, area)
    assert torch.equal(sample(features, count)[:, 0].long(), places)


@settings(max_examples=30)
@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=5), st.integers(0, 1000))
def test_shares_become_whole_parts(weights: list[float], count: int) -> None:
    shares = [weight / sum(weights) for weight in weights]
    parts = share_out(shares, count)
    assert sum(parts) == count
    assert all(abs(part - share * count) <= 1 for part, share in zip(parts, shares, strict=True))


def test_two_styles_are_mixed() -> None:
    """A mixture of a white and a black style, 3 to 1, in the layer that sees the colours."""
    white, black = (torch.full((1, 3, 48, 48), level) for level in (255.0, 0.0))
    config = ObjectiveConfig(style_loss="swd", style_layers=("relu1_1",))
    samples = PerceptualLoss([white, black], (3, 1), config).style_losses["relu1_1"]
    features = [PerceptualLoss([x], (), config).style_losses["relu1_1"] for x in (white, black)]
    mean = [x.get_buffer("samples").mean(0) for x in (samples, *features)]
    torch.testing.assert_close(mean[0], 0.75 * mean[1] + 0.25 * mean[2], rtol=0.02, atol=0.5)


def test_the_weights_do_not_depend_on_contrast(photograph: Array) -> None:
    """A style with twice the activations has a quarter of the weight."""
    style = to_tensor(photograph)
    objective = PerceptualLoss([style], config=SWD)
    doubled = PerceptualLoss([style], config=SWD)
    for module in doubled.style_losses.children():
        module.get_buffer("samples").mul_(2)
    before, after = objective._balance(), doubled._balance()
    for layer, weight in before.items():
        assert after[layer] == pytest.approx(weight / 4, rel=1e-4)


def test_the_colours_count_as_much_as_a_layer(photograph: Array) -> None:
    """A grey image has the greatest error in the colours; Gram matrices compare none."""
    objective = PerceptualLoss([to_tensor(photograph)], config=SWD)
    assert list(objective.style_losses) == [*SWD.style_layers, COLORS]
    most = {
        layer: objective.layer_weights[layer] * module.energy()  # type: ignore[operator, union-attr]
        for layer, module in objective.style_losses.items()
    }
    assert most[COLORS] == pytest.approx(most["relu1_2"], rel=1e-4)
    assert COLORS not in PerceptualLoss([to_tensor(photograph)], config=GRAM).style_losses

    colors = objective.style_losses[COLORS]
    own, grey = (to_tensor(x) - 127.5 for x in (photograph, np.full_like(photograph, 127)))
    assert isinstance(colors, SlicedWassersteinLoss)
    assert float(colors(own)) < 0.01 * colors.energy()
    # Grey differs from the style by the style's variation around it.
    expected = float((own - grey).square().mean())
    assert float(colors(grey)) == pytest.approx(expected, rel=0.05)


def test_the_optimiser_lowers_it(photograph: Array) -> None:
    config = OptimizeConfig(
        objective=ObjectiveConfig(style_loss="swd", style_size=64), iterations=8, sizes=(64,)
    )
    content = photograph[:48, :64]
    totals: list[float] = []
    optimize(content, [255 - photograph], config, lambda p: totals.append(p.total_loss))
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] < 0.8 * totals[0]


def test_an_unknown_statistic() -> None:
    with pytest.raises(UsageError, match="style loss is 'mean': choose swd, gram"):
        ObjectiveConfig(style_loss="mean")  # type: ignore[arg-type]
