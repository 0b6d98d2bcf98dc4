"""Muon against the singular value decomposition and on problems with known answers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nst.train.muon import Muon, orthogonalize


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


def test_fits_a_convolution_and_a_bias() -> None:
    torch.manual_seed(0)
    target = nn.Conv2d(4, 6, 3)
    learner = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
    optimizer = Muon(learner.parameters(), lr=0.02)
    x = torch.randn(8, 4, 12, 12)
    losses = []
    for step in range(150):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (1 - step / 150)
        optimizer.zero_grad()
        loss = (learner(x) - target(x).detach()).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 1e-3 * losses[0]


def test_a_step_has_the_size_of_the_learning_rate() -> None:
    """As Adam's: about `lr` for a bias, 0.2 `lr` in root mean square for a matrix."""
    torch.manual_seed(0)
    weight, bias = nn.Parameter(torch.zeros(32, 288)), nn.Parameter(torch.zeros(32))
    optimizer = Muon([weight, bias], lr=0.01)
    weight.grad, bias.grad = torch.randn(32, 288) * 1e6, torch.randn(32) * 1e6
    optimizer.step()
    assert bias.abs().mean().item() == pytest.approx(0.01, rel=0.01)
    assert weight.square().mean().sqrt().item() == pytest.approx(0.002, rel=0.3)
