"""The loop of training: Muon under a warm-up and a cosine, kept from harm."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nst.errors import NstError
from nst.io.images import Array
from nst.models.config import Architecture
from nst.models.transformer import TransformerNet
from nst.perceptual.losses import PerceptualLoss
from nst.system.devices import memory_advice
from nst.train.config import TrainConfig
from nst.train.content.dataset import THREADS, Content, batches
from nst.train.engine.distributed import ALONE, World
from nst.train.engine.step import TrainStep
from nst.train.engine.teacher import Teacher
from nst.train.run.checkpoint import Snapshot

LEARNING_RATES: dict[Architecture, float] = {"johnson": 6e-4, "subpixel": 2.4e-3}  # at their peak
TEMPORAL_WEIGHTS: dict[Architecture, float] = {"johnson": 0.0, "subpixel": 500.0}
CHECKERBOARD_FROM = 0.7  # of the budget: what has settled costs little to smooth
WARM_UP = 0.03  # share of the budget in which the learning rate rises
SMALLEST_CROP = 64
_OPTIMIZER = "optimizer."  # what its tensors' names begin with in a snapshot
SNAPSHOT = 20  # steps from one good state that is kept to the next
BAD_STEPS = 3  # in a row that are not finite send training back to the last good state
RESTORES = 5  # in a row that end training
AHEAD = 2  # steps that a GPU is given before the losses of the first are waited for

# A CPU looks at many small crops first. Each phase ends at a share of the budget and divides the
# side of the crops; batches grow as crops shrink, so that all steps cost about the same.
Phases = tuple[tuple[float, int], ...]


@dataclass(frozen=True)
class DeviceDefaults:
    """What suits a device where the user says nothing."""

    seconds: float
    batch_size: int
    phases: Phases


DEFAULTS = {
    "cpu": DeviceDefaults(525, 1, ((0.4, 4), (0.75, 2), (1.0, 1))),
    "cuda": DeviceDefaults(60, 16, ((1.0, 1),)),
}


@dataclass(frozen=True)
class Step:
    """One step of training.

    Attributes:
        step: from 1; images: seen so far, this step's included.
        seconds: of training so far; done: share of the budget, 0 to 1.
        content_loss, style_loss, tv_loss, teacher_loss, temporal_loss, checkerboard_loss, total_loss:
            weighted, of this step's batch; NaN where the step was skipped.
        gradient_norm, learning_rate: of this step.
        images_per_second: over the last steps; waiting: share of their time without content.
        seconds_left: as estimated now.
        note: what happened beyond the usual, or empty.
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
    """What is done with the states of a training as it goes on."""

    def log(self, step: Step, held_out_loss: float | None) -> None: ...

    def keep(self, snapshot: Snapshot, *, now: bool = False) -> None: ...

    def sample(self, step: int) -> float: ...


class Budget:
    """Steps or seconds; the share that is used up drives every schedule."""

    def __init__(self, config: TrainConfig, default_seconds: float) -> None:
        self._steps = config.steps
        self._seconds = config.seconds or default_seconds
        self._start = time.monotonic()
        self._agreed: float | None = None

    def start(self, elapsed: float = 0.0) -> None:
        self._start = time.monotonic() - elapsed

    def agree(self, elapsed: float) -> None:
        """Several processes go by one clock, or they would end at different steps."""
        self._agreed = elapsed

    @property
    def clock(self) -> float:
        """Seconds since the start, by this process's clock."""
        return time.monotonic() - self._start

    @property
    def elapsed(self) -> float:
        return self.clock if self._agreed is None else self._agreed

    def done(self, step: int) -> float:
        """Share of the budget that is used up when `step` steps are made."""
        if self._steps is not None:
            return min(1.0, step / self._steps)
        return min(1.0, self.elapsed / self._seconds)

    def left(self, step: int) -> float:
        """Estimated seconds to the end."""
        if self._steps is None:
            return max(0.0, self._seconds - self.elapsed)
        return self.elapsed / max(1, step) * (self._steps - step)


@dataclass(frozen=True)
class _Launched:
    """A step under way.

    Attributes:
        values: its losses and the gradient's norm, on the device.
        others: as in `Step`; count: its images.
    """

    step: int
    count: int
    images: int
    learning_rate: float
    waited: float
    note: str
    values: Tensor


class Loop:
    """Training of one network; `run` goes on from `start`, or from the beginning."""

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
        self.step = self.images = self._bad = self._restores = 0
        self.lr_scale = 1.0
        self.learned = self.interrupted = False
        self.waited = 0.0
        self._stop = 0.0
        self._sampled = 0
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
        self, callback: Callable[[Step], None] | None = None, keeper: TrainingCallback | None = None
    ) -> None:
        """Train to the end of the budget, or to Ctrl-C.

        Raises:
            NstError: losses that cease to be finite, a batch of one that does not fit in memory.
        """
        workers = 1 if self.device.type == "cpu" else min(THREADS, os.cpu_count() or 1)
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
        self._sampled = self._samples_due()
        if keeper is not None and self.step == 0:
            keeper.keep(self.snapshot, now=True)
        try:
            with memory_advice("lower --size"), closing(stream), self._gathering_ctrl_c():
                while True:
                    asked = time.monotonic()
                    batch = next(stream)
                    waited = time.monotonic() - asked
                    self.waited += waited
                    done = self.budget.done(self.step)
                    if (done >= 1 and self.step > 0) or self._stop:
                        break
                    self._launch(batch, done, waited)
                    self._settle(self._ahead, callback, keeper)
                self._settle(0, callback, keeper)
        except KeyboardInterrupt:
            self._stop = 1.0
        self.update.release()
        self.interrupted = bool(self._stop)
        if self.interrupted and self.step == 0:
            raise KeyboardInterrupt
        if not self.learned:
            raise NstError(NOT_FINITE)
        if not self.interrupted:
            self.snapshot = self._snapshot()
        if keeper is not None:
            keeper.keep(self.snapshot, now=True)

    def _launch(self, batch: Array, done: float, waited: float) -> None:
        """Begin a step."""
        count = self._planned.popleft()
        learning_rate = self.peak * schedule(done) * self.lr_scale
        parts = self.update.parts
        self.update.checkerboard_weight = self.config.checkerboard_weight * (
            done >= CHECKERBOARD_FROM
        )
        to_sum = [self.budget.clock if self.world.main else 0.0, self._stop]
        alone = self.world.size == 1
        values, summed = self.update(
            batch, count, self.images, learning_rate, () if alone else to_sum
        )
        if not alone:
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
        self, ahead: int, callback: Callable[[Step], None] | None, keeper: TrainingCallback | None
    ) -> None:
        """Wait for the losses of launched steps, until `ahead` are left; report and judge each."""
        while len(self._launched) > ahead:
            step = self._finish(self._launched.popleft())
            if keeper is not None:
                due = self._samples_due()
                held_out_loss = keeper.sample(self.step) if due > self._sampled else None
                keeper.log(step, held_out_loss)
                self._sampled = due
            if callback is not None and math.isfinite(step.total_loss):
                callback(step)
            if self._bad == 0 and self.step - self.snapshot.step >= SNAPSHOT:
                self.snapshot, self._restores = self._snapshot(), 0
                if keeper is not None:
                    keeper.keep(self.snapshot)

    def _finish(self, launched: _Launched) -> Step:
        values: list[float] = launched.values.tolist()
        note = launched.note
        if math.isfinite(values[-1]):
            self._bad, self.learned = 0, True
        else:
            note = self._skip()
        self._recent.append((self.budget.elapsed, launched.count, launched.waited))
        first = self._recent[0]
        span = self._recent[-1][0] - first[0]
        images = sum(count for _, count, _ in self._recent) - first[1]
        waiting = sum(waited for _, _, waited in self._recent) - first[2]
        content, style, tv, teacher, temporal, checkerboard, total, gradient_norm = values
        return Step(
            step=launched.step,
            images=launched.images,
            seconds=self.budget.elapsed,
            done=self.budget.done(launched.step),
            content_loss=content,
            style_loss=style,
            tv_loss=tv,
            teacher_loss=teacher,
            temporal_loss=temporal,
            checkerboard_loss=checkerboard,
            total_loss=total,
            gradient_norm=gradient_norm,
            learning_rate=launched.learning_rate,
            images_per_second=images / span if span else 0.0,
            waiting=min(1.0, waiting / span) if span else 0.0,
            seconds_left=self.budget.left(launched.step),
            note=note,
        )

    def _skip(self) -> str:
        """Count a step that was not finite; too many in a row go back to the last good state."""
        self._bad += 1
        if self._bad < BAD_STEPS:
            return "not finite: skipped"
        self._restores += 1
        if self._restores > RESTORES:
            raise NstError(NOT_FINITE)
        self._load(self.snapshot)
        self._launched.clear()  # they began from the state that is left
        self._bad = 0
        self.lr_scale /= 2
        self.notice(
            f"{BAD_STEPS} steps in a row were not finite: back to the network of step "
            f"{self.snapshot.step}, at half the learning rate"
        )
        return f"restored step {self.snapshot.step}"

    def _plan(self, step: int) -> tuple[int, int]:
        """(batch size, side of the crops and their contexts) of a step."""
        done = self.budget.done(step)
        divisor = next((d for until, d in self.defaults.phases if done < until), 1)
        while self.config.size // divisor < SMALLEST_CROP:
            divisor //= 2
        batch_size = self.config.batch_size or max(self.defaults.batch_size, self.world.size)
        self._planned.append(batch_size * divisor)
        return batch_size * divisor, self.config.size // divisor + 2 * self.network.context

    def _samples_due(self) -> int:
        return int(self.budget.done(self.step) * self.config.samples)

    def _snapshot(self) -> Snapshot:
        network = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        state = {"random.cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            state["random.cuda"] = torch.cuda.get_rng_state()
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
        self.network.load_state_dict(snapshot.network)
        state = snapshot.state.items()
        self.update.optimizer.load(
            {k.removeprefix(_OPTIMIZER): v for k, v in state if k.startswith(_OPTIMIZER)}
        )
        torch.set_rng_state(snapshot.state["random.cpu"])
        if self.device.type == "cuda" and "random.cuda" in snapshot.state:
            torch.cuda.set_rng_state(snapshot.state["random.cuda"])

    @contextmanager
    def _gathering_ctrl_c(self) -> Iterator[None]:
        """Several processes stop after the same step; one alone stops where it is."""
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


NOT_FINITE = "the losses ceased to be finite: lower --style-strength, --style-weight or --lr"


def temporal_weight(config: TrainConfig, architecture: Architecture) -> float:
    """What was asked for, or what suits the architecture: frames are to be steady where they are fast."""
    asked = config.temporal_weight
    return TEMPORAL_WEIGHTS[architecture] if asked is None else asked


def schedule(done: float) -> float:
    """The learning rate's factor when a share `done` of the budget is used up."""
    if done < WARM_UP:
        return 0.1 + 0.9 * done / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))
