"""The optimiser of pixels against SciPy's L-BFGS-B, and what it promises at every step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from nst.lbfgs import BoxLBFGS


def rosenbrock(x: Tensor) -> tuple[float, Tensor]:
    """In units of 100, so that its minimum at (1, 1, …) lies inside the box."""
    x = (x / 100).detach().requires_grad_(True)
    loss = (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()
    loss.backward()
    assert x.grad is not None
    return float(loss.detach()), x.grad / 100


def quadratic(seed: int, size: int, outside: float) -> tuple[Tensor, Tensor]:
    """A positive definite matrix and a minimum, partly outside the box."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(size, size)))
    matrix = q @ np.diag(10 ** rng.uniform(-2, 1, size)) @ q.T
    goal = rng.uniform(-outside, 255 + outside, size)
    return torch.tensor(matrix), torch.tensor(goal)


def test_finds_rosenbrocks_minimum() -> None:
    x = torch.zeros(6, dtype=torch.float64)
    descent = BoxLBFGS(x, rosenbrock)
    for _ in range(300):
        descent.step()
    torch.testing.assert_close(x, torch.full_like(x, 100), atol=1e-3, rtol=0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12), st.sampled_from([0.0, 150.0]))
def test_ends_where_scipys_ends(seed: int, size: int, outside: float) -> None:
    matrix, goal = quadratic(seed, size, outside)

    def function(x: Tensor) -> tuple[float, Tensor]:
        away = x.double() - goal
        return float(away @ matrix @ away) / 2, matrix @ away

    start = torch.full((size,), 100.0, dtype=torch.float64)
    expected = minimize(
        lambda x: [
            part if isinstance(part, float) else part.numpy() for part in function(torch.tensor(x))
        ],
        start.numpy().copy(),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, 255)] * size,
        options={"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-9},
    )
    descent = BoxLBFGS(start, function)
    losses = [descent.loss]
    for _ in range(400):
        descent.step()
        losses.append(descent.loss)
        assert 0 <= descent.x.min() <= descent.x.max() <= 255
    assert losses == sorted(losses, reverse=True)
    assert descent.loss <= expected.fun * 1.02 + 1e-3


def test_a_cliff_is_stepped_back_from() -> None:
    """Losses that leap or cease to be finite cost a step, never the state."""

    def function(x: Tensor) -> tuple[float, Tensor]:
        if x.max() > 120:
            return float("nan"), torch.full_like(x, torch.nan)
        return float(((x - 118) ** 2).sum()), 2 * (x - 118)

    descent = BoxLBFGS(torch.tensor([[100.0, 30.0], [0.0, 90.0]]), function)
    for _ in range(60):
        descent.step()
        assert np.isfinite(descent.loss)
    torch.testing.assert_close(descent.x, torch.full((2, 2), 118.0), atol=1e-2, rtol=0)


def test_the_first_move_is_of_the_size_of_pixels() -> None:
    for scale in (1e-6, 1.0, 1e9):
        x = torch.full((3, 40, 40), 128.0)
        pull = torch.randn(3, 40, 40, generator=torch.Generator().manual_seed(0))

        def function(x: Tensor, scale: float = scale, pull: Tensor = pull) -> tuple[float, Tensor]:
            return float((x * pull).sum()) * scale, pull * scale

        before = x.clone()
        BoxLBFGS(x, function).step()
        assert (x - before).abs().mean() == pytest.approx(3, rel=1e-3)


def test_nowhere_to_go() -> None:
    x = torch.zeros(5)
    descent = BoxLBFGS(x, lambda x: (float(x.sum()), torch.ones_like(x)))
    for _ in range(5):
        descent.step()
    assert descent.loss == 0
    assert (x == 0).all()
