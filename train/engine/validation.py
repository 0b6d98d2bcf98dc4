"""The validation loss, by which the best weights of a training are chosen."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nst.io.images import Array, center_square
from nst.io.sample_images import validation_photographs
from nst.models.transformer import TransformerNet
from nst.perceptual.losses import PerceptualLoss
from nst.perceptual.tensors import to_image, to_tensor
from nst.train.evaluation.score import squares
from nst.train.losses.checkerboard import (
    FIELD_SIDE,
    checkerboard_loss,
    mixed_statistics,
    plain_fields,
)
from nst.train.losses.temporal import move, temporal_loss


class Validator:
    """Measures a network as it trains, by all terms of its training but the teacher's.

    The photographs are neither trained on nor reported by a score, and motions and fields are the
    same every time, so that losses of different steps compare.

    Args:
        temporal_weight, checkerboard_weight: weights of these losses; 0 for none.
    """

    def __init__(
        self,
        network: TransformerNet,
        objective: PerceptualLoss,
        *,
        temporal_weight: float = 0.0,
        checkerboard_weight: float = 0.0,
    ) -> None:
        self._network, self._objective = network, objective
        self._weights = temporal_weight, checkerboard_weight
        self._device = objective.vgg.mean.device
        photographs = validation_photographs()
        self._photographs = squares(photographs)
        self._batches = [to_tensor(photo).to(self._device) for photo in self._photographs]
        self._targets = [objective.content_features(batch) for batch in self._batches]
        side = 2 * (FIELD_SIDE + network.context)  # room for a field and its context
        crops = [to_tensor(center_square(photo, side)) for photo in photographs]
        self._crops = torch.cat(crops).to(self._device)

    @torch.inference_mode()
    def __call__(self) -> tuple[float, Array]:
        """Return the validation loss, and the photographs beside their results, HWC uint8 RGB."""
        network, (temporal_weight, checkerboard_weight) = self._network, self._weights
        network.eval()
        losses, rows = [], []
        cuda = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(cuda):
            torch.manual_seed(0)
            for photograph, batch, targets in zip(
                self._photographs, self._batches, self._targets, strict=True
            ):
                stylized = network(batch, network.export_padding)
                image = to_image(stylized)
                loss = self._objective(to_tensor(image).to(self._device), targets).total_loss
                if temporal_weight:
                    loss = loss + temporal_weight * self._temporal(batch, stylized)
                losses.append(float(loss))
                rows.append(np.hstack([photograph, image]))
            flat = checkerboard_weight * self._checkerboard() if checkerboard_weight else 0.0
        network.train()
        return float(np.mean(losses)) + flat, np.vstack(rows)

    def _temporal(self, batch: Tensor, stylized: Tensor) -> Tensor:
        moved = move(batch)
        again = self._network(moved.crops, self._network.export_padding)
        return temporal_loss(stylized, again, moved.grid)

    def _checkerboard(self) -> float:
        network = self._network
        fields = plain_fields(self._crops, network.context)
        statistics = mixed_statistics(network, fields, self._crops)
        stylized = network(fields, statistics=statistics, has_context=True)
        return float(checkerboard_loss(stylized, network.context).mean())
