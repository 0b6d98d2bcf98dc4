"""One step of training: compute the gradients of a batch and update the weights by Muon.

On a GPU a step is recorded once as a CUDA graph and replayed: launched kernel by kernel, a step of
such a small network leaves the GPU idle half of the time. A step with a teacher, in several
processes or in parts is not recorded.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nst.io.images import Array
from nst.models.transformer import TransformerNet
from nst.perceptual.losses import PerceptualLoss
from nst.system.cpu import read_cpu
from nst.system.devices import out_of_memory
from nst.train.engine.distributed import ALONE, World
from nst.train.engine.muon import Muon
from nst.train.engine.teacher import Teacher
from nst.train.losses.checkerboard import checkerboard_loss, mixed_statistics, plain_fields
from nst.train.losses.temporal import move, moving, temporal_loss

TERMS = ("content", "style", "tv", "teacher", "temporal", "checkerboard", "total")  # the losses
TOTAL, TEMPORAL = TERMS.index("total"), TERMS.index("temporal")
BF16_FEATURES = {"avx512_bf16", "amx_bf16"}  # CPU features that make bfloat16 fast
WARM_UP_STEPS = 3  # before a step is recorded: the libraries choose their kernels in these
# These losses are part of one step in so many, with as many times their weight: on average they
# count the same, and the other steps are faster.
TEMPORAL_EVERY, CHECKERBOARD_EVERY = 2, 4


class TrainStep:
    """Updates a network by one batch after another; skips a batch whose gradient is not finite.

    Args:
        context: pixels around each crop that the network sees but does not repaint.
        teacher: an additional loss; None for none.
        temporal_weight: weight of the temporal loss; 0 for none.
        world: the processes that share every batch. Their gradients are summed here and not by
            DistributedDataParallel, with which a process that runs out of memory in its backward
            pass would leave the others waiting.
        notice: called with one line about an unusual event.

    Attributes:
        parts: pieces of a batch that pass through the network in turn; grows when memory runs out.
        gradients: gradients of the last step, one for each parameter; 0 where not finite.
        checkerboard_weight: weight of the checkerboard loss; 0 for none. It may change from step
            to step.
        last_terms: the last temporal and checkerboard losses, on the device; steps without them
            report these.
    """

    def __init__(
        self,
        network: TransformerNet,
        objective: PerceptualLoss,
        *,
        context: int = 0,
        teacher: Teacher | None = None,
        temporal_weight: float = 0.0,
        world: World = ALONE,
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.network, self.objective, self.teacher = network, objective, teacher
        self.context, self.temporal_weight = context, temporal_weight
        self.checkerboard_weight = 0.0
        self.world, self.notice = world, notice
        self.parameters = list(network.parameters())
        self.device = self.parameters[0].device
        self.optimizer = Muon(self.parameters)
        self.parts = 1
        sizes = [parameter.numel() for parameter in self.parameters]
        # One piece of memory for all: a single norm, a single exchange between processes.
        self._flat = torch.zeros(sum(sizes), device=self.device)
        self.gradients = [
            part.as_strided(parameter.shape, parameter.stride())
            for part, parameter in zip(torch.split(self._flat, sizes), self.parameters, strict=True)
        ]
        self._sums = torch.zeros(len(TERMS), device=self.device)
        self._learning_rate = torch.zeros((), device=self.device)
        self.last_terms = torch.zeros(2, device=self.device)
        self._terms = _Terms()
        self._recordings: dict[_Terms, _Recording] = {}
        self._recordable = self.device.type == "cuda" and teacher is None and world.size == 1
        self._warmed: Counter[_Terms] = Counter()  # steps of each kind in this phase
        self._phase: object = None
        self._autocast = fast_bf16(self.device)

    def __call__(
        self,
        batch: Array,
        count: int,
        first: int,
        learning_rate: float,
        to_sum: Sequence[float] = (),
        *,
        number: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Make a step.

        Args:
            batch: this process's share of the batch, uint8 [B, side, side, 3] RGB with context.
            count: number of images of all processes together.
            first: index of the first of these images.
            learning_rate: learning rate of this step.
            to_sum: numbers to sum over all processes.
            number: number of the step, which decides the losses that are part of it.

        Returns:
            The losses named in `TERMS`, means over the images, and the gradient's norm, all NaN
            for a skipped step; and the sums of `to_sum`. Both are on the device and may not
            be computed yet.
        """
        self._learning_rate.fill_(learning_rate)
        summed = torch.tensor(to_sum, device=self.device, dtype=torch.float32)
        self._terms = _Terms(
            temporal=self.temporal_weight > 0 and number % TEMPORAL_EVERY == 0,
            checkerboard=self.checkerboard_weight > 0 and number % CHECKERBOARD_EVERY == 0,
        )
        recording = self._recorded(batch)
        if recording is not None:
            return recording.replay(batch), summed
        self._gradients_of(batch, count, first)
        if self.world.size > 1:
            flat = torch.cat([self._flat, self._sums, summed])
            self.world.all_reduce(flat)
            sizes = [len(self._flat), len(TERMS), len(to_sum)]
            gradients, sums, summed = torch.split(flat, sizes)
            self._flat.copy_(gradients)
            self._sums.copy_(sums)
        return self._apply(), summed

    def _recorded(self, batch: Array) -> _Recording | None:
        """Return the recording of such a step, made after a warm-up; None if there is none."""
        if not self._recordable or self.parts > 1:
            return None
        phase = batch.shape, self.temporal_weight, self.checkerboard_weight
        if phase != self._phase:  # crops of another size, or the checkerboard loss begins
            self._recordings.clear()
            self._warmed.clear()
            self._phase = phase
        terms = self._terms
        if terms in self._recordings:
            return self._recordings[terms]
        self._warmed[terms] += 1
        if self._warmed[terms] <= WARM_UP_STEPS:
            return None
        try:
            self._recordings[terms] = _Recording(self, batch)
            return self._recordings[terms]
        except RuntimeError as error:
            why = str(error).partition("\n")[0]
        self._recordable = False
        self.release()
        self.notice(f"steps can't be recorded as a CUDA graph and take about twice as long ({why})")
        return None

    def release(self) -> None:
        """Release the memory that only the next step would need."""
        self._recordings.clear()
        self._warmed.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _gradients_of(self, batch: Array, count: int, first: int) -> None:
        """Compute the gradients and losses, in more parts each time that memory runs out."""
        while True:
            try:
                self._in_parts(batch, count, first)
                return
            except RuntimeError as error:
                if not out_of_memory(error) or self.parts >= len(batch):
                    raise
            self.release()
            self.parts = min(len(batch), 2 * self.parts)
            self.notice(
                f"out of memory: {math.ceil(len(batch) / self.parts)} "
                f"images at once from here on; gradients of {count} are added up as before"
            )

    def _in_parts(self, batch: Array, count: int, first: int) -> None:
        self._flat.zero_()
        self._sums.zero_()
        size = math.ceil(len(batch) / self.parts)
        for start in range(0, len(batch), size):
            part = self._on_device(batch[start : start + size])
            self._accumulate(part, count, first + start * self.world.size + self.world.rank)

    def _on_device(self, batch: Array) -> Tensor:
        tensor = torch.from_numpy(batch)
        if self.device.type == "cuda":  # a copy from pinned memory does not wait for earlier work
            pinned = torch.empty(batch.shape, dtype=torch.uint8, pin_memory=True)
            np.copyto(pinned.numpy(), batch)  # PyTorch's copy would wake a thread on every core
            tensor = pinned
        return tensor.to(self.device, non_blocking=True)

    def _accumulate(self, batch: Tensor, count: int, first: int) -> None:
        """Add the gradients and losses of a part, uint8 [B, side, side, 3], to the step's."""
        has_context = batch.permute(0, 3, 1, 2).float()  # a view of NHWC: channels_last already
        inside = slice(self.context, -self.context or None)
        content = has_context[..., inside, inside].contiguous(memory_format=torch.channels_last)
        moves = moving(len(batch)) if self._terms.temporal else 0
        moved = move(has_context[:moves]) if moves else None
        seen = has_context if moved is None else torch.cat([has_context, moved.crops])
        # No cache: each weight is cast once anyway, and a recording can't use an earlier cast.
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self._autocast, cache_enabled=False
        ):
            stylized, again = self.network(seen, has_context=True).split([len(batch), moves])
            targets = self.objective.content_features(content)
            losses = self.objective(stylized, targets, sampled=True)
            taught = torch.zeros_like(losses.total_loss)
            if self.teacher is not None:
                taught = self.teacher(self.network, content, stylized, first)
            plain = None
            if self._terms.checkerboard:
                fields = plain_fields(has_context, self.context)
                statistics = mixed_statistics(self.network, fields, has_context)
                plain = self.network(fields, statistics=statistics, has_context=True)
        steady, checkerboard = torch.zeros_like(taught), torch.zeros_like(taught)
        if moved is not None:
            loss = temporal_loss(stylized[:moves], again, moved.grid, self.context)
            steady = steady + TEMPORAL_EVERY * self.temporal_weight * loss.mean()
        if plain is not None:
            loss = checkerboard_loss(plain, self.context)
            weight = CHECKERBOARD_EVERY * self.checkerboard_weight
            checkerboard = checkerboard + weight * loss.mean()
        total = losses.total_loss + taught + steady + checkerboard
        gradients = torch.autograd.grad(total.sum() / count, self.parameters)
        torch._foreach_add_(self.gradients, gradients)
        perceptual = losses.content_loss, losses.style_loss, losses.tv_loss
        terms = *perceptual, taught, steady, checkerboard, total
        self._sums += torch.stack([term.detach().sum() for term in terms]) / count

    def _apply(self) -> Tensor:
        """Update the parameters; return the losses and the gradient's norm."""
        self._average_terms()
        values = torch.cat([self._sums, self._flat.norm()[None]])
        finite = torch.isfinite(values).all()
        self._flat.nan_to_num_(0, 0, 0).mul_(finite)
        self.optimizer.step(self.gradients, self._learning_rate, finite.float())
        return torch.where(finite, values, torch.nan)

    def _average_terms(self) -> None:
        """Report the temporal and checkerboard losses as their means over the steps."""
        terms = self._terms
        for place, (weight, measured, every) in enumerate(
            (
                (self.temporal_weight, terms.temporal, TEMPORAL_EVERY),
                (self.checkerboard_weight, terms.checkerboard, CHECKERBOARD_EVERY),
            )
        ):
            term, last = self._sums[TEMPORAL + place], self.last_terms[place]
            self._sums[TOTAL] -= term  # stays NaN if the term is
            if measured:
                term /= every
                last.copy_(torch.where(term.isfinite(), term, last))
            elif weight:
                term.copy_(last)
            self._sums[TOTAL] += term


def fast_bf16(device: torch.device) -> bool:
    """Return whether a device computes fast in bfloat16; many emulate it slowly."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return not BF16_FEATURES.isdisjoint(read_cpu()[1])


@dataclass(frozen=True)
class _Terms:
    """Which losses a step has besides the perceptual ones."""

    temporal: bool = False
    checkerboard: bool = False


class _Recording:
    """A step as a CUDA graph, for batches of one size and one choice of losses."""

    def __init__(self, update: TrainStep, batch: Array) -> None:
        self._update = update
        self._batch = torch.empty(batch.shape, dtype=torch.uint8, device=update.device)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            update._flat.zero_()
            update._sums.zero_()
            update._accumulate(self._batch, len(batch), 0)
            self._values = update._apply()

    def replay(self, batch: Array) -> Tensor:
        """Run the recorded step on another batch; return its values."""
        self._batch.copy_(self._update._on_device(batch))
        self._graph.replay()
        return self._values.clone()
