"""Muon (Jordan et al. 2024): momentum with orthogonalised updates for convolution weights.

In a few hundred steps it gets as far as Adam at Adam's best learning rate or somewhat farther, and
at twice or four times its best rate it loses little, where Adam may diverge (docs/benchmarks.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
ADAM_BETAS = (0.9, 0.99)
UPDATE_RMS = 0.2  # of Adam's steps, so that one learning rate serves both (Liu et al. 2025)
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of Jordan et al.


class Muon(torch.optim.Optimizer):
    """Muon for parameters of two dimensions and more, Adam for the rest.

    Args:
        lr: peak step of either, as one would give it to Adam.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(list(parameters), {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            # Matrices of one shape go through the iteration as one batch.
            by_shape: dict[tuple[int, ...], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter.ndim < 2:
                    self._adam(parameter, group["lr"])
                else:
                    by_shape.setdefault(tuple(parameter.shape), []).append(parameter)
            for shape, parameters in by_shape.items():
                momenta = [self._momentum(parameter) for parameter in parameters]
                matrices = torch.stack([m.reshape(shape[0], -1) for m in momenta])
                updates = orthogonalize(matrices)
                size = UPDATE_RMS * max(updates.shape[1:]) ** 0.5
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.add_(update.reshape(shape), alpha=-group["lr"] * size)

    def _momentum(self, parameter: nn.Parameter) -> Tensor:
        """Nesterov's momentum."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum"].mul_(MOMENTUM).add_(parameter.grad)
        return parameter.grad.add(momentum, alpha=MOMENTUM)

    def _adam(self, parameter: nn.Parameter, lr: float) -> None:
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
        state["step"] += 1
        mean = state["mean"].lerp_(parameter.grad, 1 - ADAM_BETAS[0])
        square = state["square"].lerp_(parameter.grad.square(), 1 - ADAM_BETAS[1])
        mean = mean / (1 - ADAM_BETAS[0] ** state["step"])
        deviation = (square / (1 - ADAM_BETAS[1] ** state["step"])).sqrt()
        parameter.addcdiv_(mean, deviation + 1e-8, value=-lr)


def orthogonalize(matrices: Tensor) -> Tensor:
    """Bring the singular values of [N, R, C] matrices near one, by five Newton–Schulz steps.

    The steps are polynomials of the small Gram matrix; they are multiplied up there and applied to
    the wide matrix once, which costs a third of applying each.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    gram = x @ x.mT
    identity = torch.eye(gram.shape[1], dtype=x.dtype, device=x.device)
    product = identity.expand_as(gram)
    for _ in range(5):
        step = a * identity + b * gram + c * gram @ gram
        product = step @ product
        gram = step @ gram @ step  # all of these commute
    x = product @ x
    return x.mT if tall else x
