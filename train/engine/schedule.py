"""How a training spends its budget: its length, the learning rate, the size of crops."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from nst.models.config import Architecture
from nst.train.config import TrainConfig

LEARNING_RATES: dict[Architecture, float] = {"johnson": 6e-4, "subpixel": 2.4e-3}  # peaks
TEMPORAL_WEIGHTS: dict[Architecture, float] = {"johnson": 0.0, "subpixel": 500.0}
CHECKERBOARD_FROM = 0.7  # of the budget: a network that has settled is cheap to smooth
WARM_UP = 0.03  # share of the budget in which the learning rate rises

# Training looks at many small crops first. Each phase ends at a share of the budget and divides the
# side of the crops by a number, by which it multiplies the batch.
Phases = tuple[tuple[float, int], ...]


@dataclass(frozen=True)
class DeviceDefaults:
    """Options of a training that depend on the device, where the user gives none."""

    seconds: float
    batch_size: int
    phases: Phases


DEFAULTS = {
    "cpu": DeviceDefaults(525, 1, ((0.4, 4), (0.75, 2), (1.0, 1))),
    "cuda": DeviceDefaults(60, 4, ((0.6, 2), (1.0, 1))),
}


class Budget:
    """A number of steps or of seconds; the share that is used up drives every schedule."""

    def __init__(self, config: TrainConfig, default_seconds: float) -> None:
        self._steps = config.steps
        self._seconds = config.seconds or default_seconds
        self._start = time.monotonic()
        self._agreed: float | None = None

    def start(self, elapsed: float = 0.0) -> None:
        """Start the clock, with `elapsed` seconds on it."""
        self._start = time.monotonic() - elapsed

    def agree(self, elapsed: float) -> None:
        """Set the time that all processes go by: with clocks of their own they would part."""
        self._agreed = elapsed

    @property
    def clock(self) -> float:
        """Seconds since the start, by this process's clock."""
        return time.monotonic() - self._start

    @property
    def elapsed(self) -> float:
        """Seconds since the start, as agreed between the processes."""
        return self.clock if self._agreed is None else self._agreed

    def done(self, step: int) -> float:
        """Return the share of the budget that is used up after `step` steps."""
        if self._steps is not None:
            return min(1.0, step / self._steps)
        return min(1.0, self.elapsed / self._seconds)

    def left(self, step: int) -> float:
        """Estimate the seconds to the end."""
        if self._steps is None:
            return max(0.0, self._seconds - self.elapsed)
        return self.elapsed / max(1, step) * (self._steps - step)


def schedule(done: float) -> float:
    """Return the factor of the learning rate when a share `done` of the budget is used up.

    It warms up linearly and then follows half a cosine to 0.
    """
    if done < WARM_UP:
        return 0.1 + 0.9 * done / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))


def temporal_weight(config: TrainConfig, architecture: Architecture) -> float:
    """Return the weight of the temporal loss: the given one, or the architecture's default."""
    given = config.temporal_weight
    return TEMPORAL_WEIGHTS[architecture] if given is None else given
