"""L-BFGS with box constraints, the optimiser of pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

FIRST_MOVE = 3.0  # levels by which the first step changes a pixel, on average
SUFFICIENT = 1e-4  # share of the predicted descent that a step must reach (Armijo)


class BoxLBFGS:
    """Limited-memory BFGS on a batch, with all values in [low, high], that only ever descends.

    One step is one evaluation of the function. Samples are independent: the history, the step
    length and the acceptance of one depend on no other. A move that does not descend is undone and
    retried with a shorter length by the next evaluation, so `x` always holds the best values so
    far. Johnson et al. (2016, section 4.1) also clip at every step of their baseline; values at a
    bound whose descent leaves the box are excluded from the direction (Bertsekas 1982). No
    operation synchronises with a GPU.

    Args:
        x: start, [B, ...] with N values in a sample; changed in place.
        function: maps a tensor like x to (losses [B], gradients like x). A move to a loss that is
            not finite does not descend.
        low, high: bounds of the values.
        history: number of pairs to keep; they take [B, 2·history, N] values.

    Attributes:
        x: best values so far.
        losses: losses of `x`, float64 [B].
    """

    def __init__(
        self,
        x: Tensor,
        function: Callable[[Tensor], tuple[Tensor, Tensor]],
        low: float = 0.0,
        high: float = 255.0,
        history: int = 20,
    ) -> None:
        self.x = x.clamp_(low, high)
        self.function, self.low, self.high, self.history = function, low, high, history
        losses, gradients = function(self.x)
        self.losses, self._gradients = losses.double(), gradients.flatten(1)
        count, size = self._gradients.shape
        # First half: s of the literature, moves of x. Second half: y, changes of the gradient.
        self._pairs = self._gradients.new_zeros(count, 2 * history, size)
        self._products = self.losses.new_zeros(count, 2 * history, 2 * history)
        self._samples = torch.arange(count, device=x.device)
        self._kept = torch.zeros_like(self._samples)  # pairs since the last restart
        self._lengths = torch.ones_like(self.losses)
        self._update_directions()

    def step(self) -> Tensor:
        """Evaluate once: move, or shorten the next trial.

        Returns:
            The samples that moved, bool [B].
        """
        x = self.x.flatten(1)
        tried = x + self._lengths[:, None].to(x) * self._directions
        tried.clamp_(self.low, self.high)
        losses, gradients = self.function(tried.view_as(self.x))
        losses, gradients = losses.double(), gradients.flatten(1)
        moves = tried - x
        predicted = _dot(moves, self._gradients)
        moved = losses <= self.losses + SUFFICIENT * predicted.clamp(max=0)
        self._shorten(moved, losses, predicted)
        self._remember(moved, moves, gradients - self._gradients)
        self.x.copy_(torch.where(moved[:, None], tried, x).view_as(self.x))
        self.losses = torch.where(moved, losses, self.losses)
        self._gradients = torch.where(moved[:, None], gradients, self._gradients)
        self._update_directions()  # no change for a sample that neither moved nor restarted
        return moved

    def _shorten(self, moved: Tensor, losses: Tensor, predicted: Tensor) -> None:
        """Shorten to the minimum of a parabola through both losses, by a factor of 0.1 to 0.5."""
        bend = losses - self.losses - predicted
        best = torch.where(bend.isfinite() & (bend > 0), -predicted / (2 * bend), 0.1)
        lengths = self._lengths * best.clamp(0.1, 0.5)
        misled = ~moved & (lengths < 1e-6)  # by old curvature: forget it
        self._kept.masked_fill_(misled, 0)
        self._lengths = lengths.masked_fill(moved | misled, 1.0)

    def _remember(self, moved: Tensor, moves: Tensor, changes: Tensor) -> None:
        sizes = moves.norm(dim=1) * changes.norm(dim=1)
        # Less curvature would spoil the approximation.
        fit = moved & (_dot(moves, changes) > 1e-8 * sizes.double())
        row = self._kept % self.history
        places = [(self._samples, row), (self._samples, self.history + row)]
        for place, vectors in zip(places, (moves, changes), strict=True):
            self._pairs[place] = torch.where(fit[:, None], vectors, self._pairs[place])
        products = torch.bmm(self._pairs, torch.stack((moves, changes), 1).mT).double()
        for place, product in zip(places, products.unbind(2), strict=True):
            product = torch.where(fit[:, None], product, self._products[place])
            self._products[place] = product
            self._products.mT[place] = product
        self._kept += fit

    def _update_directions(self) -> None:
        """Compute the next descent directions."""
        x, gradients = self.x.flatten(1), self._gradients
        leaving = ((x <= self.low) & (gradients > 0)) | ((x >= self.high) & (gradients < 0))
        gradients = gradients.masked_fill(leaving, 0)
        directions = self._quasi_newton(gradients).masked_fill_(leaving, 0)
        downhill = (self._kept > 0) & (_dot(directions, gradients) < 0)
        self._kept *= downhill
        mean = gradients.abs().mean(1, keepdim=True)
        steepest = gradients * torch.where(mean > 0, -FIRST_MOVE / mean, 0.0)
        self._directions = torch.where(downhill[:, None], directions, steepest)

    def _quasi_newton(self, gradients: Tensor) -> Tensor:
        """Compute -H g without a loop (Byrd, Nocedal and Schnabel 1994, theorem 2.2).

        The result is undefined for a sample without history.
        """
        history = self.history
        ages = self._kept[:, None] - history + torch.arange(history, device=gradients.device)
        used = (ages >= 0)[:, :, None]
        rows = ages % history  # oldest first
        order = torch.cat((rows, history + rows), 1)
        products = self._products[self._samples[:, None, None], order[:, :, None], order[:, None]]
        with_gradient = torch.bmm(self._pairs, gradients[:, :, None]).double()
        s_g, y_g = with_gradient.gather(1, order[:, :, None]).chunk(2, 1)
        s_y, y_y = products[:, :history, history:], products[:, history:, history:]
        scale = s_y[:, -1:, -1:] / y_y[:, -1:, -1:]
        triangle = torch.where(used, s_y.triu(), torch.eye(history).to(s_y))
        a = torch.linalg.solve_triangular(triangle, s_g * used, upper=True)
        b = s_y.diagonal(dim1=1, dim2=2)[:, :, None] * a + scale * (y_y @ a - y_g)
        b = torch.linalg.solve_triangular(triangle.mT, b * used, upper=False)
        weights = torch.cat((b, -scale * a), 1)
        weights = torch.zeros_like(weights).scatter_(1, order[:, :, None], weights)
        along_pairs = torch.bmm(weights.mT.to(gradients), self._pairs)[:, 0]
        return -(scale[:, 0].to(gradients) * gradients + along_pairs)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Multiply each row of `a` with that of `b`; return the dot products, float64 [B]."""
    return (a * b).sum(1).double()
