"""Muon against the singular value decomposition and on problems with known answers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nst.train.engine.muon import ADAM_BETAS, Muon, _orthogonal_updates, orthogonalize

ACTIVE = torch.tensor(1.0)


@pytest.mark.parametrize("shape", [(3, 16, 40), (2, 40, 16), (1, 8, 8)])
def test_orthogonalize_is_near_the_polar_factor(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    updates = orthogonalize(matrices)
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    singular = torch.linalg.svdvals(updates)
    assert singular.min() > 0.3
    assert singular.max() < 1.4
    polar = left @ right
    cosine = (updates * polar).sum((1, 2)) / (updates.norm(dim=(1, 2)) * polar.norm(dim=(1, 2)))
    assert cosine.min() > 0.97


def test_gradients_of_many_shapes_are_orthogonalised_one_by_one() -> None:
    torch.manual_seed(0)
    shapes = (16, 8, 3, 3), (8, 4), (40, 16), (3, 2, 1, 1), (5, 5)
    gradients = [torch.randn(shape) for shape in shapes]
    for update, gradient in zip(_orthogonal_updates(gradients), gradients, strict=True):
        assert update.shape == gradient.shape
        matrix = gradient.flatten(1)
        expected = orthogonalize(matrix[None])[0] * 0.2 * max(matrix.shape) ** 0.5
        torch.testing.assert_close(update.flatten(1), expected, rtol=1e-3, atol=1e-4)


def test_fits_a_convolution_and_a_bias() -> None:
    torch.manual_seed(0)
    target = nn.Conv2d(4, 6, 3)
    learner = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
    parameters = list(learner.parameters())
    optimizer = Muon(parameters)
    x = torch.randn(8, 4, 12, 12)
    losses = []
    for step in range(150):
        loss = (learner(x) - target(x).detach()).square().mean()
        gradients = torch.autograd.grad(loss, parameters)
        optimizer.step(gradients, torch.tensor(0.02 * (1 - step / 150)), ACTIVE)
        losses.append(loss.item())
    assert losses[-1] < 1e-3 * losses[0]


def test_a_step_has_the_size_of_the_learning_rate() -> None:
    """As Adam's: about `lr` for a bias, 0.2 `lr` in root mean square for a matrix."""
    torch.manual_seed(0)
    weight, bias = nn.Parameter(torch.zeros(32, 288)), nn.Parameter(torch.zeros(32))
    gradients = torch.randn(32, 288) * 1e6, torch.randn(32) * 1e6
    Muon([weight, bias]).step(gradients, torch.tensor(0.01), ACTIVE)
    assert bias.abs().mean().item() == pytest.approx(0.01, rel=0.01)
    assert weight.square().mean().sqrt().item() == pytest.approx(0.002, rel=0.3)


def test_the_narrow_ones_go_by_adam() -> None:
    """PyTorch's, with the same betas, over several steps."""
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.arange(5.0)) for _ in range(2))
    optimizer, adam = Muon([ours]), torch.optim.Adam([theirs], lr=0.03, betas=ADAM_BETAS)
    for _ in range(6):
        theirs.grad = torch.randn(5)
        optimizer.step([theirs.grad], torch.tensor(0.03), ACTIVE)
        adam.step()
        torch.testing.assert_close(ours, theirs)


def test_a_step_that_is_not_active_changes_nothing() -> None:
    torch.manual_seed(0)
    values = [nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(4))]
    optimizer, rate = Muon(values), torch.tensor(0.1)
    for _ in range(2):
        optimizer.step([torch.zeros_like(v) for v in values], rate, 1 - ACTIVE)
        assert all(torch.isfinite(v).all() for v in values)
        before = [v.clone() for v in (*values, *optimizer.tensors().values())]
        optimizer.step([torch.zeros_like(v) for v in values], rate, 1 - ACTIVE)
        after = (*values, *optimizer.tensors().values())
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        optimizer.step([torch.randn_like(v) for v in values], rate, ACTIVE)


def test_a_loaded_state_goes_on_as_the_first() -> None:
    torch.manual_seed(0)
    start = [torch.randn(6, 4), torch.randn(4)]
    ones, others = ([nn.Parameter(v.clone()) for v in start] for _ in range(2))
    one, other, rate = Muon(ones), Muon(others), torch.tensor(0.1)
    gradients = [[torch.randn_like(v) for v in start] for _ in range(3)]
    one.step(gradients[0], rate, ACTIVE)
    for value, new in zip(others, ones, strict=True):
        value.data.copy_(new)
    other.load({name: value.clone() for name, value in one.tensors().items()})
    for more in gradients[1:]:
        one.step(more, rate, ACTIVE)
        other.step(more, rate, ACTIVE)
    assert all(torch.equal(a, b) for a, b in zip(ones, others, strict=True))
