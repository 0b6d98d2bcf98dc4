"""The training loop: Muon under a warm-up and a cosine, guarded against divergence."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from nst.errors import NstError
from nst.io.images import Array
from nst.models.transformer import TransformerNet
from nst.perceptual.losses import PerceptualLoss
from nst.system.devices import memory_advice
from nst.system.quota import usable_cores
from nst.train.config import TrainConfig
from nst.train.content.dataset import THREADS, Content, batches
from nst.train.engine.distributed import ALONE, World
from nst.train.engine.schedule import (
    CHECKERBOARD_FROM,
    DEFAULTS,
    LEARNING_RATES,
    Budget,
    schedule,
    temporal_weight,
)
from nst.train.engine.step import TERMS, TrainStep
from nst.train.engine.teacher import Teacher
from nst.train.run.checkpoint import Snapshot
from nst.train.run.progress import TrainingCallback, TrainProgress

SMALLEST_CROP = 64
SNAPSHOT_STEPS = 20  # finite steps from one good state to the next
BAD_STEPS = 3  # steps in a row that are not finite send training back to the last good state
RESTORES = 5  # restores without a new good state end training
AHEAD = 2  # steps that a GPU is given before the losses of the first are waited for
NOT_FINITE = (
    "the losses ceased to be finite: lower the style strength, the style weight or the learning "
    "rate"
)
_OPTIMIZER = "optimizer."  # prefix of its tensors' names in a snapshot


@dataclass(frozen=True)
class _Launched:
    """A step whose losses are not known yet.

    Attributes:
        step, images, learning_rate, note: as in `TrainProgress`.
        count: number of its images.
        waited: seconds it waited for content.
        values: its losses and the gradient's norm, on the device.
    """

    step: int
    count: int
    images: int
    learning_rate: float
    waited: float
    note: str
    values: Tensor


class Loop:
    """Trains one network; `run` goes on from `start`, or begins anew.

    Args:
        start: the state from which an earlier training goes on.
        notice: called with one line about an unusual event.

    Attributes:
        snapshot: the last state that is known to be good: the step after it, computed with its
            weights, had a finite loss.
        learned: whether any step had a finite loss.
        interrupted: whether Ctrl-C ended the training.
    """

    def __init__(
        self,
        network: TransformerNet,
        objective: PerceptualLoss,
        config: TrainConfig,
        content: Content,
        *,
        teacher: Teacher | None = None,
        world: World = ALONE,
        notice: Callable[[str], None] = lambda _: None,
        start: Snapshot | None = None,
    ) -> None:
        self.network, self.objective = network, objective
        self.peak = config.learning_rate or LEARNING_RATES[network.config.architecture]
        self.config, self.content = config, content
        self.world, self.notice = world, notice
        self.update = TrainStep(
            network,
            objective,
            context=network.context,
            teacher=teacher,
            temporal_weight=temporal_weight(config, network.config.architecture),
            world=world,
            notice=notice,
        )
        self.device = self.update.device
        self.defaults = DEFAULTS[self.device.type]
        self.budget = Budget(config, self.defaults.seconds)
        self.step = self.images = self._bad = self._good = self._restores = 0
        self.lr_scale = 1.0
        self.learned = self.interrupted = False
        self.waited = 0.0
        self._stop = 0.0
        self._candidate: Snapshot | None = None  # good if the step after it proves to be finite
        self._validations = 0
        self._planned: deque[int] = deque()  # images of the steps that are under preparation
        self._launched: deque[_Launched] = deque()  # steps whose losses are not known yet
        self._ahead = AHEAD if self.device.type == "cuda" else 0
        self._recent: deque[tuple[float, int, float]] = deque(maxlen=20)  # time, images, waited
        if start is not None:
            self._load(start)
            self.step, self.images = start.step, start.images
            self.lr_scale, self.update.parts = start.lr_scale, start.parts
            self.learned = start.step > 0
        self.snapshot = start or self._snapshot()

    def run(
        self,
        progress: Callable[[TrainProgress], None] | None = None,
        callback: TrainingCallback | None = None,
    ) -> None:
        """Train to the end of the budget, or to Ctrl-C.

        Args:
            progress: called after each step with a finite loss.
            callback: keeps the log, the states and the best weights.

        Raises:
            NstError: the losses cease to be finite, or memory is too small for one image.
        """
        workers = 1 if self.device.type == "cpu" else min(THREADS, math.ceil(usable_cores()))
        self.budget.start(self.snapshot.seconds)
        if self.world.size > 1:
            self.budget.agree(self.snapshot.seconds)
        stream = batches(
            self.content,
            self._plan,
            workers,
            start_step=self.step,
            start_image=self.images,
            rank=self.world.rank,
            world=self.world.size,
        )
        self._validations = self._validations_due()
        if callback is not None and self.step == 0:
            callback.keep(self.snapshot, now=True)
        try:
            with memory_advice("lower the size of the crops"), closing(stream), self._shared_stop():
                while True:
                    asked = time.monotonic()
                    batch = next(stream)
                    waited = time.monotonic() - asked
                    self.waited += waited
                    done = self.budget.done(self.step)
                    if (done >= 1 and self.step > 0) or self._stop:
                        break
                    self._launch(batch, done, waited)
                    self._settle(self._ahead, progress, callback)
                self._settle(0, progress, callback)
        except KeyboardInterrupt:
            self._stop = 1.0
        self.update.release()
        self.interrupted = bool(self._stop)
        if self.interrupted and self.step == 0:
            raise KeyboardInterrupt
        if not self.learned:
            raise NstError(NOT_FINITE)
        if not (self.interrupted or self._bad):
            self.snapshot = self._snapshot()
        if callback is not None:
            callback.keep(self.snapshot, now=True)

    def _launch(self, batch: Array, done: float, waited: float) -> None:
        """Begin a step."""
        count = self._planned.popleft()
        learning_rate = self.peak * schedule(done) * self.lr_scale
        parts = self.update.parts
        settled = done >= CHECKERBOARD_FROM
        self.update.checkerboard_weight = self.config.checkerboard_weight * settled
        to_sum = []
        if self.world.size > 1:
            to_sum = [self.budget.clock if self.world.main else 0.0, self._stop]
        values, summed = self.update(
            batch, count, self.images, learning_rate, to_sum, number=self.step
        )
        if to_sum:
            elapsed, self._stop = summed.tolist()
            self.budget.agree(elapsed)
        self.step += 1
        self.images += count
        note = ""
        if self.update.parts != parts:
            note = f"out of memory: {self.update.parts} parts of a batch from here on"
        self._launched.append(
            _Launched(self.step, count, self.images, learning_rate, waited, note, values)
        )

    def _settle(
        self,
        ahead: int,
        progress: Callable[[TrainProgress], None] | None,
        callback: TrainingCallback | None,
    ) -> None:
        """Wait for the losses of launched steps until `ahead` are left; report and judge each."""
        while len(self._launched) > ahead:
            step = self._finish(self._launched.popleft())
            if callback is not None:
                due = self._validations_due()
                loss = callback.validate(self.step) if due > self._validations else None
                callback.log(step, loss)
                self._validations = due
            if math.isfinite(step.total_loss):
                if progress is not None:
                    progress(step)
                self._keep_good(step.step, callback)

    def _keep_good(self, step: int, callback: TrainingCallback | None) -> None:
        """Take a snapshot every `SNAPSHOT_STEPS`, which counts once a later step is finite.

        A finite loss says nothing of the update that follows it: the next loss shows whether the
        new weights work.
        """
        if self._candidate is not None and step > self._candidate.step:
            self.snapshot, self._candidate = self._candidate, None
            self._restores = 0
            if callback is not None:
                callback.keep(self.snapshot)
        if self._candidate is None and self._good >= SNAPSHOT_STEPS:
            self._candidate, self._good = self._snapshot(), 0

    def _finish(self, launched: _Launched) -> TrainProgress:
        """Wait for a step's losses, and count whether they are finite."""
        values: list[float] = launched.values.tolist()
        note = launched.note
        if math.isfinite(values[-1]):
            self._bad, self._good, self.learned = 0, self._good + 1, True
        else:
            note = self._skip()
        self._recent.append((self.budget.elapsed, launched.count, launched.waited))
        first = self._recent[0]
        span = self._recent[-1][0] - first[0]
        images = sum(count for _, count, _ in self._recent) - first[1]
        waiting = sum(waited for _, _, waited in self._recent) - first[2]
        *losses, gradient_norm = values
        return TrainProgress(
            step=launched.step,
            images=launched.images,
            seconds=self.budget.elapsed,
            done=self.budget.done(launched.step),
            **{f"{term}_loss": loss for term, loss in zip(TERMS, losses, strict=True)},
            gradient_norm=gradient_norm,
            learning_rate=launched.learning_rate,
            images_per_second=images / span if span else 0.0,
            waiting=min(1.0, waiting / span) if span else 0.0,
            seconds_left=self.budget.left(launched.step),
            note=note,
        )

    def _skip(self) -> str:
        """Count a step that was not finite; after too many in a row restore the last good state."""
        self._bad += 1
        self._candidate = None
        if self._bad < BAD_STEPS:
            return "not finite: skipped"
        self._restores += 1
        if self._restores > RESTORES:
            raise NstError(NOT_FINITE)
        self._load(self.snapshot)
        self._launched.clear()  # they began from the bad weights
        self._bad = self._good = 0
        self.lr_scale /= 2
        self.notice(
            f"{BAD_STEPS} steps in a row were not finite: back to the network of step "
            f"{self.snapshot.step}, at half the learning rate"
        )
        return f"restored step {self.snapshot.step}"

    def _plan(self, step: int) -> tuple[int, int]:
        """Return the batch size of a step, and the side of its crops with their context."""
        done = self.budget.done(step)
        divisor = next((d for until, d in self.defaults.phases if done < until), 1)
        while self.config.size // divisor < SMALLEST_CROP:
            divisor //= 2
        batch_size = self.config.batch_size or max(self.defaults.batch_size, self.world.size)
        self._planned.append(batch_size * divisor)
        return batch_size * divisor, self.config.size // divisor + 2 * self.network.context

    def _validations_due(self) -> int:
        return int(self.budget.done(self.step) * self.config.samples)

    def _snapshot(self) -> Snapshot:
        """Copy the state of training as of the last step that was launched."""
        network = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        state = {"random.cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            state["random.cuda"] = torch.cuda.get_rng_state()
        state["last_terms"] = self.update.last_terms.clone()
        for name, value in self.update.optimizer.tensors().items():
            state[_OPTIMIZER + name] = value.clone()
        return Snapshot(
            step=self.step,
            images=self.images,
            seconds=self.budget.elapsed,
            lr_scale=self.lr_scale,
            parts=self.update.parts,
            network=network,
            state=state,
        )

    def _load(self, snapshot: Snapshot) -> None:
        """Restore weights, optimiser and random generators."""
        self.network.load_state_dict(snapshot.network)
        state = snapshot.state.items()
        self.update.optimizer.load(
            {k.removeprefix(_OPTIMIZER): v for k, v in state if k.startswith(_OPTIMIZER)}
        )
        self.update.last_terms.copy_(snapshot.state["last_terms"])
        torch.set_rng_state(snapshot.state["random.cpu"])
        if self.device.type == "cuda" and "random.cuda" in snapshot.state:
            torch.cuda.set_rng_state(snapshot.state["random.cuda"])

    @contextmanager
    def _shared_stop(self) -> Iterator[None]:
        """Let Ctrl-C stop several processes after the same step; one alone stops at once."""
        if self.world.size == 1 or threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(*_: object) -> None:
            self._stop = 1.0

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
