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
            learning = [p for p in group["params"] if p.grad is not None]
            self._muon([p for p in learning if p.ndim >= 2], group["lr"])
            self._adam([p for p in learning if p.ndim < 2], group["lr"])

    # The lists go through torch._foreach_*: one by one, a GPU would wait for hundreds of launches.

    def _muon(self, parameters: list[nn.Parameter], lr: float) -> None:
        if not parameters:
            return
        values, gradients, (momenta,) = self._state(parameters, "momentum")
        torch._foreach_mul_(momenta, MOMENTUM)
        torch._foreach_add_(momenta, gradients)
        nesterov = torch._foreach_add(gradients, momenta, alpha=MOMENTUM)
        # Matrices of one shape go through the iteration as one batch.
        by_shape: dict[torch.Size, list[int]] = {}
        for index, parameter in enumerate(parameters):
            by_shape.setdefault(parameter.shape, []).append(index)
        updates = list(nesterov)
        for shape, indices in by_shape.items():
            matrices = torch.stack([nesterov[index].reshape(shape[0], -1) for index in indices])
            size = UPDATE_RMS * max(matrices.shape[1:]) ** 0.5
            for index, update in zip(indices, orthogonalize(matrices) * size, strict=True):
                updates[index] = update.reshape(shape)
        torch._foreach_add_(values, updates, alpha=-lr)

    def _adam(self, parameters: list[nn.Parameter], lr: float) -> None:
        if not parameters:
            return
        values, gradients, (means, squares) = self._state(parameters, "mean", "square")
        steps = [self.state[p].get("step", 0) + 1 for p in parameters]
        for parameter, step in zip(parameters, steps, strict=True):
            self.state[parameter]["step"] = step
        torch._foreach_lerp_(means, gradients, 1 - ADAM_BETAS[0])
        torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1 - ADAM_BETAS[1])
        deviations = torch._foreach_div(squares, [1 - ADAM_BETAS[1] ** step for step in steps])
        torch._foreach_sqrt_(deviations)
        torch._foreach_add_(deviations, 1e-8)
        sizes = [-lr / (1 - ADAM_BETAS[0] ** step) for step in steps]
        torch._foreach_addcdiv_(values, means, deviations, sizes)

    def _state(
        self, parameters: list[nn.Parameter], *names: str
    ) -> tuple[list[Tensor], list[Tensor], list[list[Tensor]]]:
        """Values, gradients, and for each name the tensors that are kept; zeros at first."""
        for parameter in parameters:
            for name in names:
                if name not in self.state[parameter]:
                    self.state[parameter][name] = torch.zeros_like(parameter)
        gradients = [p.grad for p in parameters if p.grad is not None]
        kept = [[self.state[p][name] for p in parameters] for name in names]
        return list(parameters), gradients, kept


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
