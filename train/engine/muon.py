"""Muon (Jordan et al. 2024): momentum with orthogonalised updates for convolution weights.

In a few hundred steps it reaches the loss of Adam at Adam's best learning rate or a lower one, and
loses little at two or four times its own best rate, where Adam may diverge
(docs/design-decisions.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
ADAM_BETAS = (0.9, 0.99)
UPDATE_RMS = 0.2  # root mean square of updates, Adam's, so one rate serves both (Liu et al. 2025)
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of Jordan et al.


class Muon:
    """Muon for parameters of two dimensions and more, Adam for the rest.

    The whole state is in tensors on the parameters' device, so that no step waits for a GPU.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._values = [p.detach() for p in parameters]
        self._wide = [index for index, p in enumerate(parameters) if p.ndim >= 2]
        self._narrow = [index for index, p in enumerate(parameters) if p.ndim < 2]
        self._momenta = [torch.zeros_like(self._values[index]) for index in self._wide]
        self._means = [torch.zeros_like(self._values[index]) for index in self._narrow]
        self._squares = [torch.zeros_like(self._values[index]) for index in self._narrow]
        self._step = torch.zeros((), device=self._values[0].device)

    def step(self, gradients: Sequence[Tensor], learning_rate: Tensor, active: Tensor) -> None:
        """Update the parameters.

        Args:
            gradients: one gradient for each parameter.
            learning_rate: learning rate as for Adam, a tensor of one number.
            active: 1, or 0 for a step that must change nothing; its gradients must be 0.
        """
        learning_rate = learning_rate * active
        with torch.no_grad():
            if self._wide:
                self._muon([gradients[index] for index in self._wide], learning_rate, active)
            if self._narrow:
                self._adam([gradients[index] for index in self._narrow], learning_rate, active)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the state themselves, named by parameter index and kind."""
        kept = {f"{i}.momentum": x for i, x in zip(self._wide, self._momenta, strict=True)}
        for name, values in (("mean", self._means), ("square", self._squares)):
            kept |= {f"{i}.{name}": x for i, x in zip(self._narrow, values, strict=True)}
        return kept | {f"{i}.step": self._step for i in self._narrow[:1]}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy a state from `tensors`; a missing tensor is set to 0, as before the first step."""
        for name, value in self.tensors().items():
            value.copy_(tensors[name]) if name in tensors else value.zero_()

    # torch._foreach_* handle lists at once: one by one, hundreds of launches would slow a GPU down.

    def _muon(self, gradients: list[Tensor], learning_rate: Tensor, active: Tensor) -> None:
        torch._foreach_mul_(self._momenta, 1 - (1 - MOMENTUM) * active)
        torch._foreach_add_(self._momenta, gradients)
        nesterov = torch._foreach_add(gradients, self._momenta, alpha=MOMENTUM)
        updates = _orthogonal_updates(nesterov)
        torch._foreach_mul_(updates, -learning_rate)
        torch._foreach_add_([self._values[index] for index in self._wide], updates)

    def _adam(self, gradients: list[Tensor], learning_rate: Tensor, active: Tensor) -> None:
        self._step += active
        squares = list(torch._foreach_mul(gradients, gradients))
        for kept, new, beta in zip(
            (self._means, self._squares), (gradients, squares), ADAM_BETAS, strict=True
        ):
            change = torch._foreach_sub(new, kept)
            torch._foreach_mul_(change, (1 - beta) * active)
            torch._foreach_add_(kept, change)
        # At least 1, for a first step that is not active.
        count = self._step.clamp(min=1)
        deviations = torch._foreach_div(self._squares, 1 - ADAM_BETAS[1] ** count)
        torch._foreach_sqrt_(deviations)
        torch._foreach_add_(deviations, 1e-8)
        updates = torch._foreach_div(self._means, deviations)
        torch._foreach_mul_(updates, -learning_rate / (1 - ADAM_BETAS[0] ** count))
        torch._foreach_add_([self._values[index] for index in self._narrow], updates)


def _orthogonal_updates(gradients: Sequence[Tensor]) -> list[Tensor]:
    """Orthogonalise gradients, each seen as a matrix with a row for each output.

    All are iterated as one batch, extended by zeros to one shape: zero rows and columns stay zero,
    and a GPU needs an eighth of the launches.
    """
    flat = [gradient.flatten(1) for gradient in gradients]
    wide = [x if x.shape[0] <= x.shape[1] else x.mT for x in flat]
    rows, columns = (max(x.shape[axis] for x in wide) for axis in (0, 1))
    batch = flat[0].new_zeros(len(wide), rows, columns)
    corners = [part[: x.shape[0], : x.shape[1]] for part, x in zip(batch, wide, strict=True)]
    torch._foreach_copy_(corners, wide)
    results = orthogonalize(batch)
    updates = []
    for result, x, gradient in zip(results, flat, gradients, strict=True):
        short, long = sorted(x.shape)
        update = result[:short, :long]
        update = update if x.shape[0] <= x.shape[1] else update.mT
        updates.append((update * (UPDATE_RMS * long**0.5)).reshape(gradient.shape))
    return updates


def orthogonalize(matrices: Tensor) -> Tensor:
    """Bring the singular values of [N, R, C] matrices near one, by five Newton–Schulz steps.

    The steps are polynomials of the small Gram matrix. Their product is applied to the wide matrix
    once, which costs a third of applying each.
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
