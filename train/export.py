"""A trained network becomes one ONNX file, checked against PyTorch before it appears."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst.errors import ExportError
from nst.files import replacing
from nst.images import Array
from nst.infer.session import Stylizer
from nst.models.transformer import RIM, TransformerNet
from nst.train.graph import OPSET, transformer_graph

# Share of uint8 values that must lie within 1 of PyTorch's, and the most that any may differ.
PARITY_SHARE, PARITY_MOST = 0.999, 3
PARITY_SIZES = ((1, 256, 256), (1, 333, 517), (3, 96, 130))  # (batch, height, width)


class ExportedNet(nn.Module):
    """The exported graph: uint8 [N, H, W, 3] RGB in and out, a rim around a `TransformerNet`."""

    def __init__(self, network: TransformerNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        x = F.pad(image.permute(0, 3, 1, 2).float(), [RIM] * 4, mode="reflect")
        x = self.network(x)[..., RIM:-RIM, RIM:-RIM]
        return x.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def export_onnx(network: TransformerNet, path: Path, metadata: dict[str, str]) -> None:
    """Write `network` as an ONNX file by the contract of `nst.infer.session`, if it passes.

    Args:
        metadata: strings that travel in the file; the network's config and the opset are added.

    Raises:
        ExportError: weights that are not finite, or a file that differs from PyTorch.
    """
    # A copy in plain layout: the trainer's may live on a GPU, in channels_last.
    plain = copy.deepcopy(network).cpu().float().to(memory_format=torch.contiguous_format)
    exported = ExportedNet(plain).eval()
    if not all(torch.isfinite(parameter).all() for parameter in exported.parameters()):
        raise ExportError(
            "the network holds numbers that are not finite: lower --lr and train again"
        )
    model = transformer_graph(exported.network)
    config = json.dumps(network.config.to_dict())
    onnx.helper.set_model_props(model, {**metadata, "network": config, "opset": str(OPSET)})
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported graph is not valid ONNX: {error}") from error
    data = model.SerializeToString()
    check_parity(exported, data)
    with replacing(path) as beside:
        beside.write_bytes(data)


def check_parity(exported: ExportedNet, data: bytes) -> None:
    """Compare the file with PyTorch on its uint8 output, at several sizes.

    Raises:
        ExportError: fewer than 99.9 % of the values within 1, or any beyond 3.
    """
    rng = np.random.default_rng(0)
    with Stylizer(data, device="cpu") as stylizer:
        for shape in PARITY_SIZES:
            batch = _smooth_noise(shape, rng)
            with torch.inference_mode():
                expected = exported(torch.from_numpy(batch)).numpy()
            got = stylizer(batch)
            if got.shape != expected.shape:
                raise ExportError(f"the export gives {got.shape} for {batch.shape}")
            off = np.abs(got.astype(np.int16) - expected.astype(np.int16))
            share, most = float((off <= 1).mean()), int(off.max())
            if share < PARITY_SHARE or most > PARITY_MOST:
                raise ExportError(
                    f"the export differs from PyTorch at {shape[1]}×{shape[2]}: "
                    f"{share:.2%} of the values within 1, the worst off by {most}"
                )


def _smooth_noise(shape: tuple[int, int, int], rng: np.random.Generator) -> Array:
    """Random images with structure at all scales: they reach more of a network than white noise."""
    batch, height, width = shape
    total = np.zeros((batch, height, width, 3))
    for cell in (1, 4, 16, 64):
        grid = rng.random((batch, -(-height // cell), -(-width // cell), 3))
        total += np.kron(grid, np.ones((1, cell, cell, 1)))[:, :height, :width]
    total -= total.min()
    return (total * (255 / total.max())).astype(np.uint8)
