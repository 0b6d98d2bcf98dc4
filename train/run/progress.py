"""The progress of a training, and what is called with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from nst.train.run.checkpoint import Snapshot


@dataclass(frozen=True)
class TrainProgress:
    """One step of training.

    Attributes:
        step: number of the step, from 1.
        images: crops seen so far, those of this step included.
        seconds: time trained so far.
        done: share of the budget that is used up, 0 to 1.
        content_loss, style_loss, tv_loss, teacher_loss, temporal_loss, checkerboard_loss,
            total_loss: weighted losses of this step's batch; NaN where the step was skipped.
        gradient_norm: norm of this step's gradient.
        learning_rate: learning rate of this step.
        images_per_second: pace over the last steps.
        waiting: share of the last steps' time that was spent waiting for content.
        seconds_left: estimated time to the end.
        note: one line about an unusual event, or empty.
    """

    step: int
    images: int
    seconds: float
    done: float
    content_loss: float
    style_loss: float
    tv_loss: float
    teacher_loss: float
    temporal_loss: float
    checkerboard_loss: float
    total_loss: float
    gradient_norm: float
    learning_rate: float
    images_per_second: float
    waiting: float
    seconds_left: float
    note: str = ""


class TrainingCallback(Protocol):
    """Keeps what a training produces as it goes on."""

    def log(self, progress: TrainProgress, validation_loss: float | None) -> None:
        """Record a step."""

    def keep(self, snapshot: Snapshot, *, now: bool = False) -> None:
        """Write a state from which training can go on, if it is time for one or `now`."""

    def validate(self, step: int) -> float:
        """Return the validation loss of the network; keep its weights if it is the best so far."""
