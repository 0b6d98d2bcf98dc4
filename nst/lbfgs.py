"""L-BFGS inside a box: the optimiser of pixels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

FIRST_MOVE = 3.0  # levels that the first step moves a pixel, in the mean
SUFFICIENT = 1e-4  # share of the promised descent that a step must keep (Armijo)


class BoxLBFGS:
    """Limited-memory BFGS with all values kept in [low, high], and descent at every step.

    One step is one evaluation of the function. A step that does not descend is taken back and
    tried again, shorter, with the next evaluation; so `x` is always the best that was seen.
    Clipping at every step is what Johnson et al. (2016, section 4.1) do for their baseline; values
    at a bound that want to leave the box are left out of the direction (Bertsekas 1982). The
    two-loop recursion runs on inner products alone (Chen et al. 2014), which suits a GPU.

    Args:
        x: the start, any shape; changed in place.
        function: of a tensor like x, to (loss, gradient).
        low, high: the box.
        history: pairs that are remembered.
    """

    def __init__(
        self,
        x: Tensor,
        function: Callable[[Tensor], tuple[float, Tensor]],
        low: float = 0.0,
        high: float = 255.0,
        history: int = 20,
    ) -> None:
        self.x = x.clamp_(low, high)
        self.function, self.low, self.high = function, low, high
        self.loss, self.gradient = function(self.x)
        # The literature's s, how x moved, in the upper half; y, how the gradient changed, below.
        self._pairs = x.new_zeros(2 * history, x.numel())
        self._products = torch.zeros(2 * history, 2 * history, dtype=torch.float64)
        self._order: list[int] = []  # rows of s in use, oldest first
        self._length = 1.0
        self._aim()

    def step(self) -> None:
        """One evaluation: move, or shorten the next try."""
        tried = (self.x + self._length * self._direction).clamp_(self.low, self.high)
        loss, gradient = self.function(tried)
        move = tried - self.x
        promised = float((move * self.gradient).sum())
        if not loss <= self.loss + SUFFICIENT * min(promised, 0.0):
            self._shorten(loss, promised)
            return
        self._remember(move, gradient - self.gradient)
        self.x.copy_(tried)
        self.loss, self.gradient = loss, gradient
        self._length = 1.0
        self._aim()

    def _shorten(self, loss: float, promised: float) -> None:
        """Where a parabola through both losses is lowest, within a tenth to a half."""
        bend = loss - self.loss - promised
        best = -promised / (2 * bend) if math.isfinite(bend) and bend > 0 else 0.1
        self._length *= min(0.5, max(0.1, best))
        if self._length < 1e-6:  # the curvature that is remembered misleads
            self._order.clear()
            self._aim()
            self._length = 1.0

    def _aim(self) -> None:
        """The next direction, downhill."""
        inside = ~(
            ((self.x <= self.low) & (self.gradient > 0))
            | ((self.x >= self.high) & (self.gradient < 0))
        )
        gradient = self.gradient * inside
        if self._order:
            direction = self._two_loops(gradient.flatten()).view_as(self.x) * inside
            if float((direction * gradient).sum()) < 0:
                self._direction = direction
                return
            self._order.clear()
        mean = float(gradient.abs().mean())
        self._direction = gradient * (-FIRST_MOVE / mean if mean > 0 else 0.0)

    def _two_loops(self, gradient: Tensor) -> Tensor:
        """-H g (Nocedal and Wright 2006, algorithm 7.4), in coefficients of s, y and g."""
        history = len(self._pairs) // 2
        products = self._products
        with_gradient = (self._pairs @ gradient).double().cpu()
        pairs, scale = torch.zeros(2 * history, dtype=torch.float64), -1.0
        alphas = {}
        for row in reversed(self._order):
            along = scale * with_gradient[row] + products[row] @ pairs
            alphas[row] = along / products[row, history + row]
            pairs[history + row] -= alphas[row]
        newest = self._order[-1]
        curvature = products[newest, history + newest]
        size = float(curvature / products[history + newest, history + newest])
        pairs, scale = pairs * size, scale * size
        for row in self._order:
            along = scale * with_gradient[history + row] + products[history + row] @ pairs
            pairs[row] += alphas[row] - along / products[row, history + row]
        return scale * gradient + pairs.to(gradient) @ self._pairs

    def _remember(self, move: Tensor, change: Tensor) -> None:
        move, change = move.flatten(), change.flatten()
        curvature = float(move @ change)
        if curvature <= 1e-8 * float(move.norm() * change.norm()):
            return  # it would spoil the approximation
        history = len(self._pairs) // 2
        full = len(self._order) == history
        row = self._order.pop(0) if full else len(self._order)
        self._order.append(row)
        for index, vector in ((row, move), (history + row, change)):
            self._pairs[index] = vector
            products = (self._pairs @ vector).double().cpu()
            self._products[index], self._products[:, index] = products, products
