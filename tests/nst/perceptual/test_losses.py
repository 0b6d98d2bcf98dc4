"""Gram matrices and losses against float64 NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nst.config import ObjectiveConfig
from nst.errors import UsageError
from nst.io.images import Array
from nst.perceptual.losses import ContentLoss, PerceptualLoss, StyleLoss, TVLoss, gram_matrix
from nst.perceptual.tensors import to_tensor

shapes = st.tuples(st.integers(1, 3), st.integers(1, 8), st.integers(1, 9), st.integers(1, 9))


def numpy_gram(features: np.ndarray) -> np.ndarray:
    b, c, h, w = features.shape
    flat = features.astype(np.float64).reshape(b, c, h * w)
    return np.stack([f @ f.T for f in flat]) / (c * h * w)


@settings(max_examples=40)
@given(shapes, st.integers(0, 1000), st.booleans())
def test_gram_matrix(shape: tuple[int, int, int, int], seed: int, channels_last: bool) -> None:
    features = np.random.default_rng(seed).normal(size=shape).astype(np.float32) * 30
    x = torch.from_numpy(features)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    np.testing.assert_allclose(gram_matrix(x), numpy_gram(features), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradient_of_gram_matrices(layout: torch.memory_format) -> None:
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    assert torch.autograd.gradcheck(gram_matrix, x)
    (gradient,) = torch.autograd.grad(gram_matrix(x).square().sum(), x)
    assert gradient.is_contiguous(memory_format=layout)
    for kind in (torch.float16, torch.bfloat16):
        half = x.detach().to(kind).requires_grad_()
        (low,) = torch.autograd.grad(gram_matrix(half).square().sum(), half)
        assert low.dtype == kind
        torch.testing.assert_close(low.double(), gradient, rtol=0.05, atol=1e-3)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_gram_does_not_overflow_in_half_precision(kind: torch.dtype) -> None:
    features = torch.full((1, 4, 64, 64), 3000.0, dtype=kind)
    gram = gram_matrix(features)
    assert gram.dtype == torch.float32
    np.testing.assert_allclose(gram, numpy_gram(features.float().numpy()), rtol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(gram_matrix(features), gram)


@settings(max_examples=20)
@given(shapes, st.integers(0, 1000))
def test_single_losses(shape: tuple[int, int, int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.normal(size=shape).astype(np.float32) * 20 for _ in range(2))
    x, y = torch.from_numpy(a), torch.from_numpy(b)
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    np.testing.assert_allclose(ContentLoss()(x, y), ((a64 - b64) ** 2).mean((1, 2, 3)), rtol=1e-4)
    style = ((numpy_gram(a) - numpy_gram(b)[:1]) ** 2).mean((1, 2))
    got = StyleLoss(gram_matrix(y)[0])(x)
    np.testing.assert_allclose(got, style, rtol=1e-3, atol=1e-3)


def test_total_variation() -> None:
    image = np.random.default_rng(0).uniform(0, 255, (2, 3, 7, 5)).astype(np.float32)
    down, across = np.diff(image, axis=2), np.diff(image, axis=3)
    expected = (down**2).mean((1, 2, 3)) + (across**2).mean((1, 2, 3))
    np.testing.assert_allclose(TVLoss()(torch.from_numpy(image)), expected, rtol=1e-4)
    assert TVLoss()(torch.full((1, 3, 8, 8), 9.0)).item() == 0


def test_perceptual_loss_is_the_weighted_sum(photograph: Array) -> None:
    """The expected value is the docs' objective in float64 NumPy, on VGG's activations."""
    config = ObjectiveConfig(style_loss="gram", content_weight=2, style_weight=7, tv_weight=0.5)
    style = to_tensor(photograph[::-1, ::2].copy())
    content = to_tensor(photograph)
    image = (content * 0.7 + 20).requires_grad_(True)
    objective = PerceptualLoss([style], config=config)
    losses = objective(image, objective.content_features(content))

    with torch.no_grad():
        f, c, s = (
            {k: v.double().numpy() for k, v in objective.vgg(x).items()}
            for x in (image, content, style)
        )
    expected_content = 2 * ((f["relu3_3"] - c["relu3_3"]) ** 2).mean()
    expected_style = 7 * sum(
        ((numpy_gram(f[n]) - numpy_gram(s[n])) ** 2).mean() for n in config.style_layers
    )
    np.testing.assert_allclose(losses.content_loss.detach(), [expected_content], rtol=1e-4)
    np.testing.assert_allclose(losses.style_loss.detach(), [expected_style], rtol=1e-3)
    total = losses.content_loss + losses.style_loss + losses.tv_loss
    torch.testing.assert_close(losses.total_loss, total)
    losses.total_loss.sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


def test_the_photograph_itself_has_no_content_loss(photograph: Array) -> None:
    content = to_tensor(photograph)
    objective = PerceptualLoss([content], config=ObjectiveConfig(style_loss="gram"))
    losses = objective(content, objective.content_features(content))
    assert losses.total_loss.item() < 1e-3 * 1e3


def test_blended_targets_have_the_gradient_of_blended_losses(photograph: Array) -> None:
    a, b = to_tensor(photograph[:64, :64]), to_tensor(255 - photograph[32:, 32:])
    content = to_tensor(photograph)
    shares = (3.0, 1.0)  # need not sum to one

    def gradient(objectives: list[tuple[float, PerceptualLoss]]) -> torch.Tensor:
        image = content.clone().requires_grad_(True)
        total = sum(
            share * o(image, o.content_features(content)).style_loss.sum()
            for share, o in objectives
        )
        assert isinstance(total, torch.Tensor)
        return torch.autograd.grad(total, image)[0]

    fixed = ObjectiveConfig(style_loss="gram", style_weight=5)
    blended = gradient([(1.0, PerceptualLoss([a, b], shares, fixed))])
    alone = [PerceptualLoss([x], (), fixed) for x in (a, b)]
    summed = gradient([(0.75, alone[0]), (0.25, alone[1])])
    assert (blended - summed).norm() < 1e-3 * summed.norm()


@pytest.mark.parametrize("shares", [(1.0,), (1.0, -1.0), (0.0, 0.0), (1.0, float("nan"))])
def test_bad_style_weights(shares: tuple[float, ...], photograph: Array) -> None:
    image = to_tensor(photograph)
    with pytest.raises(UsageError, match="style weights"):
        PerceptualLoss([image, image], shares)
