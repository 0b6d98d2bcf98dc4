"""L-BFGS with box constraints against SciPy's L-BFGS-B, and its properties at every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from nst.perceptual.lbfgs import BoxLBFGS

Function = Callable[[Tensor], tuple[Tensor, Tensor]]
Floats = NDArray[np.float64]


def rosenbrock(x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute Rosenbrock's function of each row, in units of 100: the minimum is in the box."""
    x = (x / 100).detach().requires_grad_(True)
    losses = (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(1)
    losses.sum().backward()
    assert x.grad is not None
    return losses.detach(), x.grad / 100


def quadratic(seed: int, size: int, outside: float) -> Function:
    """Make a positive definite function whose minimum is partly outside the box."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(size, size)))
    matrix = torch.tensor(q @ np.diag(10 ** rng.uniform(-2, 1, size)) @ q.T)
    goal = torch.tensor(rng.uniform(-outside, 255 + outside, size))

    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        pull = (x - goal) @ matrix
        return (pull * (x - goal)).sum(1) / 2, pull

    return function


def side_by_side(functions: Sequence[Function]) -> Function:
    """Apply one function to each sample."""

    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        parts = [f(x[i : i + 1]) for i, f in enumerate(functions)]
        return torch.cat([loss for loss, _ in parts]), torch.cat([slope for _, slope in parts])

    return function


def test_finds_rosenbrocks_minimum() -> None:
    x = torch.zeros(1, 6, dtype=torch.float64)
    descent = BoxLBFGS(x, rosenbrock)
    for _ in range(300):
        descent.step()
    torch.testing.assert_close(x, torch.full_like(x, 100), atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", [2, 5, 12])
def test_ends_where_scipys_ends(size: int) -> None:
    functions = [quadratic(seed, size, outside) for seed in range(4) for outside in (0.0, 150.0)]
    expected = []
    for function in functions:

        def for_scipy(x: Floats, function: Function = function) -> tuple[float, Floats]:
            losses, gradients = function(torch.tensor(x)[None])
            return float(losses), gradients[0].numpy()

        found = minimize(
            for_scipy,
            np.full(size, 100.0),
            jac=True,
            method="L-BFGS-B",
            bounds=[(0, 255)] * size,
            options={"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-9},
        )
        expected.append(found.fun)
    start = torch.full((len(functions), size), 100.0, dtype=torch.float64)
    descent = BoxLBFGS(start, side_by_side(functions))
    for _ in range(300):
        before = descent.losses
        moved = descent.step()
        assert ((descent.losses <= before) & (moved | (descent.losses == before))).all()
        assert 0 <= descent.x.min() <= descent.x.max() <= 255
    assert (descent.losses <= torch.tensor(expected) * 1.02 + 1e-3).all()


def two_loops(gradient: Floats, pairs: Sequence[tuple[Floats, Floats]]) -> Floats:
    """Compute -H g as Nocedal and Wright (2006, algorithm 7.4) do."""
    q, alphas = gradient.copy(), []
    for s, y in reversed(pairs):
        alphas.append(s @ q / (s @ y))
        q -= alphas[-1] * y
    s, y = pairs[-1]
    q *= s @ y / (y @ y)
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        q += s * (alpha - y @ q / (s @ y))
    return -q


@pytest.mark.parametrize("history", [1, 3, 20])
def test_the_direction_is_the_textbooks(history: int) -> None:
    seen: list[tuple[Floats, Floats]] = []
    quadratics = quadratic(1, 9, 0.0)

    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        losses, gradients = quadratics(x)
        seen.append((x[0].numpy().copy(), gradients[0].numpy()))
        return losses, gradients

    start = torch.zeros(1, 9, dtype=torch.float64)
    descent = BoxLBFGS(start, function, low=-1e9, high=1e9, history=history)
    path, compared = [seen[0]], 0
    whole = False  # whether the next try has the length 1
    for _ in range(12):
        moved = bool(descent.step())
        if whole:
            pairs = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(path)]
            direction = two_loops(path[-1][1], pairs[-history:])
            np.testing.assert_allclose(seen[-1][0] - path[-1][0], direction, rtol=1e-6, atol=1e-9)
            compared += 1
        if moved:
            path.append(seen[-1])
        whole = moved
    assert compared >= 5


FUNCTIONS = st.one_of(
    st.just(rosenbrock),
    st.builds(quadratic, st.integers(0, 10_000), st.just(5), st.sampled_from([0.0, 150.0])),
)


@settings(max_examples=10)
@given(st.lists(FUNCTIONS, min_size=2, max_size=4), st.integers(0, 10_000))
def test_a_batch_equals_its_samples_alone(functions: list[Function], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    starts = 255 * torch.rand(len(functions), 5, generator=generator, dtype=torch.float64)
    batch = BoxLBFGS(starts.clone(), side_by_side(functions), history=4)
    alone = [
        BoxLBFGS(starts[i : i + 1].clone(), function, history=4)
        for i, function in enumerate(functions)
    ]
    first = batch.losses
    for _ in range(25):
        batch.step()
        for descent in alone:
            descent.step()
        losses = torch.cat([descent.losses for descent in alone])
        assert ((batch.losses - losses).abs() <= 1e-6 * first).all()


def test_samples_are_accepted_one_by_one_in_any_shape() -> None:
    functions = [quadratic(seed, 8, 50.0) for seed in range(3)]
    together = side_by_side([*functions, rosenbrock])

    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        losses, gradients = together(x.flatten(1))
        return losses, gradients.view_as(x)

    flat = torch.full((4, 8), 40.0, dtype=torch.float64)
    batch, shaped = BoxLBFGS(flat, together), BoxLBFGS(flat.clone().view(4, 2, 1, 4), function)
    moved = torch.stack([batch.step() for _ in range(30)])
    for _ in range(30):
        shaped.step()
    torch.testing.assert_close(shaped.x.view(4, 8), flat)
    assert (moved.any(1) & ~moved.all(1)).any()


def test_a_sample_without_finite_losses_leaves_the_others_as_they_are() -> None:
    functions = [quadratic(seed, 6, 50.0) for seed in range(3)]
    start = torch.full((3, 6), 90.0, dtype=torch.float64)

    def bad(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full((1,), torch.nan), torch.full_like(x, torch.nan)

    sound = BoxLBFGS(start.clone(), side_by_side(functions))
    hurt = BoxLBFGS(start.clone(), side_by_side([functions[0], bad, functions[2]]))
    for _ in range(30):
        sound.step()
        moved = hurt.step()
        assert not moved[1]
    torch.testing.assert_close(hurt.x[::2], sound.x[::2], rtol=0, atol=0)
    torch.testing.assert_close(hurt.x[1], start[1], rtol=0, atol=0)


def test_a_step_to_a_loss_that_is_not_finite_is_undone() -> None:
    """It costs a step, never the state."""

    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        away = x - 118
        cliff = (x > 120).flatten(1).any(1)
        losses, gradients = away.square().sum((1, 2)), 2 * away
        return losses.masked_fill(cliff, torch.nan), gradients.masked_fill(
            cliff[:, None, None], torch.nan
        )

    descent = BoxLBFGS(torch.tensor([[[100.0, 30.0], [0.0, 90.0]]] * 2), function)
    for _ in range(60):
        descent.step()
        assert descent.losses.isfinite().all()
    torch.testing.assert_close(descent.x, torch.full((2, 2, 2), 118.0), atol=1e-2, rtol=0)


def test_the_first_move_is_of_the_size_of_pixels() -> None:
    pull = torch.randn(3, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    scale = torch.tensor([1e-6, 1.0, 1e9]).view(3, 1, 1, 1)
    x = torch.full((3, 3, 40, 40), 128.0)
    before = x.clone()
    BoxLBFGS(x, lambda x: ((x * pull * scale).sum((1, 2, 3)), pull * scale)).step()
    assert (x - before).abs().mean((1, 2, 3)).tolist() == pytest.approx([3] * 3, rel=1e-3)


def test_nothing_moves_at_a_corner() -> None:
    x = torch.zeros(2, 5)
    descent = BoxLBFGS(x, lambda x: (x.sum(1), torch.ones_like(x)))
    for _ in range(5):
        descent.step()
    assert (descent.losses == 0).all()
    assert (x == 0).all()
