"""L-BFGS inside a box: the optimiser of pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

FIRST_MOVE = 3.0  # levels that the first step moves a pixel, in the mean
SUFFICIENT = 1e-4  # share of the promised descent that a step must keep (Armijo)


class BoxLBFGS:
    """Limited-memory BFGS on a batch, with all values kept in [low, high], and descent throughout.

    One step is one evaluation of the function. Every sample goes its own way: its history, its
    step's length and what is accepted depend on no other. A move that does not descend is taken
    back and tried again, shorter, with the next evaluation; so `x` is always the best that was
    seen. Clipping at every step is what Johnson et al. (2016, section 4.1) do for their baseline;
    values at a bound that want to leave the box are left out of the direction (Bertsekas 1982).
    Nothing here waits for a GPU.

    Args:
        x: the start, [B, ...] with N values in a sample; changed in place.
        function: of a tensor like x, to (losses [B], gradients like x). A loss that isn't finite
            is a move that does not descend.
        low, high: the box.
        history: pairs that are remembered, [B, 2·history, N] values in all.

    Attributes:
        x: the best so far.
        losses: its losses, float64 [B].
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
        # The literature's s, how x moved, in the upper half; y, how the gradient changed, below.
        self._pairs = self._gradients.new_zeros(count, 2 * history, size)
        self._products = self.losses.new_zeros(count, 2 * history, 2 * history)
        self._samples = torch.arange(count, device=x.device)
        self._kept = torch.zeros_like(self._samples)  # pairs since the last new beginning
        self._lengths = torch.ones_like(self.losses)
        self._aim()

    def step(self) -> Tensor:
        """One evaluation: move, or shorten the next try.

        Returns:
            Which samples moved, bool [B].
        """
        x = self.x.flatten(1)
        tried = x + self._lengths[:, None].to(x) * self._directions
        tried.clamp_(self.low, self.high)
        losses, gradients = self.function(tried.view_as(self.x))
        losses, gradients = losses.double(), gradients.flatten(1)
        moves = tried - x
        promised = _dot(moves, self._gradients)
        moved = losses <= self.losses + SUFFICIENT * promised.clamp(max=0)
        self._shorten(moved, losses, promised)
        self._remember(moved, moves, gradients - self._gradients)
        self.x.copy_(torch.where(moved[:, None], tried, x).view_as(self.x))
        self.losses = torch.where(moved, losses, self.losses)
        self._gradients = torch.where(moved[:, None], gradients, self._gradients)
        self._aim()  # which changes nothing for a sample that neither moved nor began anew
        return moved

    def _shorten(self, moved: Tensor, losses: Tensor, promised: Tensor) -> None:
        """Where a parabola through both losses is lowest, within a tenth to a half."""
        bend = losses - self.losses - promised
        best = torch.where(bend.isfinite() & (bend > 0), -promised / (2 * bend), 0.1)
        lengths = self._lengths * best.clamp(0.1, 0.5)
        misled = ~moved & (lengths < 1e-6)  # by the curvature that is remembered
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

    def _aim(self) -> None:
        """The next directions, downhill."""
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
        """-H g, without a loop (Byrd, Nocedal and Schnabel 1994, theorem 2.2).

        Of no use for a sample without history.
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
    """Of each row of a with the same of b: float64 [B]."""
    return (a * b).sum(1).double()
