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

from nst.devices import memory_advice, out_of_memory
from nst.errors import NstError
from nst.images import Array
from nst.losses import PerceptualLoss
from nst.models.transformer import TransformerNet
from nst.train.checkpoint import Snapshot
from nst.train.config import TrainConfig
from nst.train.data import Content, batches
from nst.train.distributed import ALONE, World
from nst.train.muon import Muon
from nst.train.teacher import Teacher

WARM_UP = 0.03  # share of the budget in which the learning rate rises
SMALLEST_CROP = 64
SNAPSHOT = 20  # steps from one good state that is kept to the next
BAD_STEPS = 3  # in a row that are not finite send training back to the last good state
RESTORES = 5  # in a row that end training

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
    "cuda": DeviceDefaults(60, 8, ((1.0, 1),)),
}


@dataclass(frozen=True)
class Step:
    """One step of training.

    Attributes:
        step: from 1; images: seen so far, this step's included.
        seconds: of training so far; done: share of the budget, 0 to 1.
        content_loss, style_loss, tv_loss, teacher_loss, total_loss: weighted, of this step's
            batch; NaN where the step was skipped.
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
    total_loss: float
    gradient_norm: float
    learning_rate: float
    images_per_second: float
    waiting: float
    seconds_left: float
    note: str = ""


class Keeper(Protocol):
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


class Loop:
    """Training of one network; `run` goes on from `start`, or from the beginning.

    Args:
        world: the processes that share every batch. Their gradients are added up by hand, not by
            DistributedDataParallel: with it a process that runs out of memory within its backward
            pass would leave the others waiting.
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
        self.network, self.objective, self.teacher = network, objective, teacher
        self.config, self.content = config, content
        self.world, self.notice = world, notice
        self.parameters = list(network.parameters())
        self.device = self.parameters[0].device
        self.defaults = DEFAULTS[self.device.type]
        self.budget = Budget(config, self.defaults.seconds)
        self.optimizer = Muon(self.parameters, config.learning_rate)
        # Older cards only emulate bf16, slowly.
        self.autocast = self.device.type == "cuda" and torch.cuda.is_bf16_supported(
            including_emulation=False
        )
        self.step = self.images = self._bad = self._restores = 0
        self.rate, self.parts = 1.0, 1
        self.learned = self.interrupted = False
        self.waited = 0.0
        self._stop = 0.0
        self._planned: deque[int] = deque()  # images of the steps that are under preparation
        self._recent: deque[tuple[float, int, float]] = deque(maxlen=20)  # time, images, waited
        if start is not None:
            self._load(start)
            self.step, self.images = start.step, start.images
            self.rate, self.parts = start.rate, start.parts
            self.learned = start.step > 0
        self.snapshot = start or self._snapshot()

    def run(
        self, callback: Callable[[Step], None] | None = None, keeper: Keeper | None = None
    ) -> None:
        """Train to the end of the budget, or to Ctrl-C.

        Raises:
            NstError: losses that cease to be finite, a batch of one that does not fit in memory.
        """
        workers = 1 if self.device.type == "cpu" else min(16, os.cpu_count() or 1)
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
        sampled = self._samples_due()
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
                    step = self._make_step(batch, done, waited)
                    if keeper is not None:
                        due = self._samples_due()
                        keeper.log(step, keeper.sample(self.step) if due > sampled else None)
                        sampled = due
                    if callback is not None and math.isfinite(step.total_loss):
                        callback(step)
                    if self._bad == 0 and self.step - self.snapshot.step >= SNAPSHOT:
                        self.snapshot, self._restores = self._snapshot(), 0
                        if keeper is not None:
                            keeper.keep(self.snapshot)
        except KeyboardInterrupt:
            self._stop = 1.0
        self.interrupted = bool(self._stop)
        if self.interrupted and self.step == 0:
            raise KeyboardInterrupt
        if not self.learned:
            raise NstError(NOT_FINITE)
        if not self.interrupted:
            self.snapshot = self._snapshot()
        if keeper is not None:
            keeper.keep(self.snapshot, now=True)

    def _make_step(self, batch: Array, done: float, waited: float) -> Step:
        count = self._planned.popleft()
        rate = self.config.learning_rate * schedule(done) * self.rate
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        parts = self.parts
        values = self._update(batch, count)
        self.step += 1
        self.images += count
        note = ""
        if self.parts != parts:
            note = f"out of memory: {self.parts} parts of a batch from here on"
        if math.isfinite(values[-1]):
            self._bad, self.learned = 0, True
        else:
            note = self._skip()
        self._recent.append((self.budget.elapsed, count, waited))
        first = self._recent[0]
        span = self._recent[-1][0] - first[0]
        images = sum(count for _, count, _ in self._recent) - first[1]
        waiting = sum(waited for _, _, waited in self._recent) - first[2]
        content_loss, style_loss, tv_loss, teacher_loss, total_loss, gradient_norm = values
        return Step(
            step=self.step,
            images=self.images,
            seconds=self.budget.elapsed,
            done=self.budget.done(self.step),
            content_loss=content_loss,
            style_loss=style_loss,
            tv_loss=tv_loss,
            teacher_loss=teacher_loss,
            total_loss=total_loss,
            gradient_norm=gradient_norm,
            learning_rate=rate,
            images_per_second=images / span if span else 0.0,
            waiting=min(1.0, waiting / span) if span else 0.0,
            seconds_left=self.budget.left(self.step),
            note=note,
        )

    def _update(self, batch: Array, count: int) -> list[float]:
        """One step: content, style, tv, teacher, total loss, gradient's norm.

        What isn't finite changes nothing, and is all NaN.
        """
        sums = self._gradients(batch, count)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if self.world.size > 1:
            sums = self._add_up(gradients, sums)
        norm = torch.nn.utils.get_total_norm(gradients)
        values: list[float] = torch.cat([sums, norm[None]]).tolist()
        if not all(map(math.isfinite, values)):
            return [math.nan] * len(values)
        self.optimizer.step()
        return values

    def _gradients(self, batch: Array, count: int) -> Tensor:
        """Fill the gradients of the mean over `count` images; in parts, if memory asks for it."""
        while True:
            try:
                return self._accumulate(batch, count)
            except RuntimeError as error:
                if not out_of_memory(error) or self.parts >= len(batch):
                    raise
            self.optimizer.zero_grad()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.parts = min(len(batch), 2 * self.parts)
            self.notice(
                f"out of memory at step {self.step + 1}: {math.ceil(len(batch) / self.parts)} "
                f"images at once from here on; gradients of {count} are added up as before"
            )

    def _accumulate(self, batch: Array, count: int) -> Tensor:
        self.optimizer.zero_grad()
        sums = torch.zeros(5, device=self.device)
        size = math.ceil(len(batch) / self.parts)
        for start in range(0, len(batch), size):
            content = torch.from_numpy(batch[start : start + size])
            content = content.to(self.device, non_blocking=True)
            content = content.permute(0, 3, 1, 2).float()  # a view of NHWC: channels_last already
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
                stylized = self.network(content)
                losses = self.objective(stylized, self.objective.content_features(content))
                taught = torch.zeros_like(losses.total_loss)
                if self.teacher is not None:
                    first = self.images + start * self.world.size + self.world.rank
                    taught = self.teacher(self.network, content, stylized, first)
            total = losses.total_loss + taught
            (total.sum() / count).backward()
            terms = (losses.content_loss, losses.style_loss, losses.tv_loss, taught, total)
            sums += torch.stack([term.detach().sum() for term in terms]) / count
        return sums

    def _add_up(self, gradients: list[Tensor], sums: Tensor) -> Tensor:
        """Sum gradients and losses over the processes; agree on the time and on Ctrl-C."""
        clock = self.budget.clock if self.world.main else 0.0
        flat = torch.cat(
            [*(g.flatten() for g in gradients), sums, sums.new_tensor([clock, self._stop])]
        )
        self.world.add_up(flat)
        sizes = [*(g.numel() for g in gradients), len(sums), 2]
        *parts, sums, agreed = torch.split(flat, sizes)
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
        elapsed, self._stop = agreed.tolist()
        self.budget.agree(elapsed)
        return sums

    def _skip(self) -> str:
        """Count a step that was not finite; too many in a row go back to the last good state."""
        self._bad += 1
        if self._bad < BAD_STEPS:
            return "not finite: skipped"
        self._restores += 1
        if self._restores > RESTORES:
            raise NstError(NOT_FINITE)
        self._load(self.snapshot)
        self._bad = 0
        self.rate /= 2
        self.notice(
            f"{BAD_STEPS} steps in a row were not finite: back to the network of step "
            f"{self.snapshot.step}, at half the learning rate"
        )
        return f"restored step {self.snapshot.step}"

    def _plan(self, step: int) -> tuple[int, int]:
        """(batch size, side of the crops) of a step."""
        done = self.budget.done(step)
        divisor = next((d for until, d in self.defaults.phases if done < until), 1)
        while self.config.size // divisor < SMALLEST_CROP:
            divisor //= 2
        batch_size = self.config.batch_size or max(self.defaults.batch_size, self.world.size)
        self._planned.append(batch_size * divisor)
        return batch_size * divisor, self.config.size // divisor

    def _samples_due(self) -> int:
        return int(self.budget.done(self.step) * self.config.samples)

    def _snapshot(self) -> Snapshot:
        network = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        state = {"random.cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            state["random.cuda"] = torch.cuda.get_rng_state()
        for index, parameter in enumerate(self.parameters):
            for name, value in self.optimizer.state[parameter].items():
                state[f"optimizer.{index}.{name}"] = torch.as_tensor(value).clone()
        return Snapshot(
            step=self.step,
            images=self.images,
            seconds=self.budget.elapsed,
            rate=self.rate,
            parts=self.parts,
            network=network,
            state=state,
        )

    def _load(self, snapshot: Snapshot) -> None:
        self.network.load_state_dict(snapshot.network)
        self.optimizer.state.clear()
        for key, value in snapshot.state.items():
            kind, index, *name = key.split(".", 2)
            if kind == "optimizer":
                parameter = self.parameters[int(index)]
                kept = value.item() if value.ndim == 0 else torch.empty_like(parameter).copy_(value)
                self.optimizer.state[parameter][name[0]] = kept
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


def schedule(done: float) -> float:
    """The learning rate's factor when a share `done` of the budget is used up."""
    if done < WARM_UP:
        return 0.1 + 0.9 * done / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))
