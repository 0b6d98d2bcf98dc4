"""The progress of a training, and what is called with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from nst.train.run.checkpoint import Snapshot


@dataclass(frozen=True)
class StepFigures:
    """The figures of one step of training.

    Attributes:
        step: number of the step, from 1.
        seconds: time trained so far.
        images: crops seen so far, those of this step included.
        learning_rate: learning rate of this step.
        content_loss, style_loss, tv_loss, teacher_loss, temporal_loss, checkerboard_loss,
            total_loss: weighted losses of this step's batch; NaN where the step was skipped.
        gradient_norm: norm of this step's gradient, before any clipping.
        images_per_second: pace over the last steps.
        waiting: share of the last steps' time that was spent waiting for content, 0 to 1.
    """

    step: int
    seconds: float
    images: int
    learning_rate: float
    content_loss: float
    style_loss: float
    tv_loss: float
    teacher_loss: float
    temporal_loss: float
    checkerboard_loss: float
    total_loss: float
    gradient_norm: float
    images_per_second: float
    waiting: float


@dataclass(frozen=True)
class TrainProgress(StepFigures):
    """One step of training.

    Attributes:
        done: share of the budget that is used up, 0 to 1.
        seconds_left: estimated time to the end.
        note: one line about an unusual event, or empty.
    """

    done: float
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
