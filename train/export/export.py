"""Exports a trained network as ONNX files; each is checked before it appears."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from nst.config import Device
from nst.errors import ExportError
from nst.infer.runtime.stylizer import Stylizer
from nst.io.files import replacing
from nst.io.images import Array, load_style
from nst.io.sample_images import held_out
from nst.models.transformer import TransformerNet
from nst.system.devices import pick_device
from nst.train.config import check_precisions
from nst.train.content.dataset import Content, calibration_images, open_content
from nst.train.export.folding import equalize
from nst.train.export.graph import transformer_graph
from nst.train.export.graph_builder import OPSET
from nst.train.export.macs import count_macs
from nst.train.export.quantize import to_fp16, to_int8
from nst.train.run.checkpoint import load_checkpoint

# Share of uint8 values that must be within 1 of PyTorch's, and the largest difference allowed.
PARITY_SHARE, PARITY_MOST = 0.999, 3
PARITY_SIZES = ((1, 256, 256), (1, 333, 517), (3, 96, 130))  # (batch, height, width)

# Largest accepted differences of fp16 and int8 from fp32: of the total loss, relative; where no
# loss is known, of the pixel values, the mean in levels.
LOSS_TOLERANCE, LEVELS_TOLERANCE = 0.03, 5.0
MACS_SIZE = (480, 640)


class ExportedNet(nn.Module):
    """A network as it is exported: uint8 [N, H, W, 3] RGB in and out, padded inside."""

    def __init__(self, network: TransformerNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        x = self.network(image.permute(0, 3, 1, 2).float(), self.network.export_padding)
        return x.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def torch_stylizer(network: TransformerNet) -> Callable[[Array], Array]:
    """Return a function, HWC uint8 RGB to the same, that computes an export's result by PyTorch."""
    exported = ExportedNet(network).eval()

    def stylize(image: Array) -> Array:
        with torch.inference_mode():
            stylized: Array = exported(torch.tensor(image)[None])[0].numpy()
        return stylized

    return stylize


@dataclass(frozen=True)
class Exported:
    """One exported file, and how far it is from the fp32 graph on photographs.

    Attributes:
        path: path of the file.
        precision: `fp32`, `fp16` or `int8`.
        mean_difference: mean absolute difference of its uint8 values from fp32's, in levels; None
            where nothing was compared.
        loss_over_fp32: its total loss divided by fp32's; None where no objective was given.
    """

    path: Path
    precision: str
    mean_difference: float | None = None
    loss_over_fp32: float | None = None

    @property
    def within(self) -> bool:
        """Return whether the total loss, or else the mean difference, is within its tolerance."""
        if self.loss_over_fp32 is None:
            return self.mean_difference is None or self.mean_difference <= LEVELS_TOLERANCE
        return abs(self.loss_over_fp32 - 1) <= LOSS_TOLERANCE

    def words(self) -> str:
        """Summarise the comparison, as `int8: total loss +0.3% against fp32, …`."""
        loss = ""
        if self.loss_over_fp32 is not None:
            loss = f"total loss {self.loss_over_fp32 - 1:+.1%} against fp32, "
        if self.mean_difference is None:
            return f"{self.precision}: not compared with fp32"
        return f"{self.precision}: {loss}mean difference {self.mean_difference:.2f} levels"


def export_onnx(
    network: TransformerNet, path: Path, metadata: dict[str, str], precision: str = "fp32"
) -> None:
    """Export one file as `export_precisions` does, without a comparison on photographs.

    An int8 file is calibrated on noise: it serves to measure speed, not to repaint images.
    """
    rng = np.random.default_rng(0)
    noise = list(_smooth_noise((2, 128, 128), rng))
    export_precisions(network, {precision: path}, metadata, calibration=lambda: noise)


def export_precisions(
    network: TransformerNet,
    targets: Mapping[str, Path],
    metadata: dict[str, str],
    *,
    calibration: Callable[[], Sequence[Array]],
    photographs: Sequence[Array] = (),
    total_loss: Callable[[Array, Array], float] | None = None,
) -> tuple[Exported, ...]:
    """Write `network` as ONNX files that follow the contract of `nst.infer.runtime.signature`.

    The fp32 graph is checked against PyTorch. The other precisions are compared with it on
    `photographs`; the differences go into their metadata and are returned.

    Args:
        targets: precision -> path of the file to write.
        metadata: strings to store in the files; network, precision and opset are added.
        calibration: returns the content images, HWC uint8 RGB, on which int8 finds its ranges.
        photographs: images to compare on, HWC uint8 RGB, none of them used for calibration.
        total_loss: the objective of the training, called with (photograph, stylized).

    Raises:
        UsageError: a precision is unknown. ExportError: weights are not finite, or the fp32 graph
        differs from PyTorch.
    """
    check_precisions(tuple(targets))
    # A contiguous copy on the CPU: the trainer's network may be on a GPU, in channels_last.
    plain = copy.deepcopy(network).cpu().float().to(memory_format=torch.contiguous_format)
    exported = ExportedNet(plain).eval()
    tensors = [*exported.parameters(), *exported.buffers()]
    if not all(torch.isfinite(tensor).all() for tensor in tensors):
        raise ExportError(
            "the network has weights that are not finite: train again at a lower learning rate"
        )
    reference = transformer_graph(exported.network)
    fp32 = _serialize(reference)
    check_parity(exported, fp32)
    macs = count_macs(reference, MACS_SIZE) / (MACS_SIZE[0] * MACS_SIZE[1])
    network_config = json.dumps(network.config.to_dict())
    results = []
    for precision, path in targets.items():
        about = {"network": network_config, "precision": precision, "opset": str(OPSET)}
        about["macs_per_pixel"] = f"{macs:.1f}"
        if network.receptive_radius is not None:
            about["receptive_radius"] = str(network.receptive_radius)
        model, result = reference, Exported(path, precision)
        if precision == "fp16":
            model = to_fp16(reference)
        elif precision == "int8":
            photos = calibration()
            source = transformer_graph(equalize(plain, photos), for_int8=True)
            model = to_int8(source, photos)
        if precision != "fp32":
            result = _compare(result, _serialize(model), fp32, photographs, total_loss)
        if result.mean_difference is not None:
            about["mean_difference"] = f"{result.mean_difference:.3f}"
        if result.loss_over_fp32 is not None:
            about["loss_over_fp32"] = f"{result.loss_over_fp32:.4f}"
        described = copy.deepcopy(model)
        onnx.helper.set_model_props(described, {**metadata, **about})
        with replacing(path) as beside:
            beside.write_bytes(_serialize(described))
        results.append(result)
    return tuple(results)


def export_checkpoint(
    checkpoint: Path,
    targets: Mapping[str, Path],
    *,
    styles: Sequence[Path] = (),
    content: Content | None = None,
    vgg: str | None = None,
    device: Device = "auto",
) -> tuple[Exported, ...]:
    """Export a trained network from its checkpoint, as `export_precisions` does.

    Args:
        styles: paths of the style images, for a checkpoint that holds none.
        content: images to calibrate on; None for the built-in ones.
        vgg: VGG weights of the objective; None for those of the training.

    Raises:
        ModelError: the checkpoint can't be read. ImageError: a style image can't be read.
        ExportError: as `export_precisions`.
    """
    # Imported here: VGG and torchvision take seconds that other exports need not wait for.
    from nst.perceptual.losses import build_objective
    from nst.train.evaluation.score import image_losses, squares, trained_objective

    loaded = load_checkpoint(checkpoint)
    images = [load_style(path) for path in styles] or list(loaded.styles)
    total_loss = None
    if images and set(targets) != {"fp32"}:
        config, weights = trained_objective(loaded.metadata)
        if len(weights) != len(images):
            weights = ()
        config = replace(config, vgg=vgg or config.vgg)
        objective = build_objective(images, weights, config, pick_device(device))

        def total_loss(photograph: Array, image: Array) -> float:
            return image_losses(objective, photograph, image).total_loss

    return export_precisions(
        loaded.network,
        targets,
        loaded.metadata,
        calibration=lambda: calibration_images(content or open_content(None)),
        photographs=squares(held_out()),
        total_loss=total_loss,
    )


def _compare(
    result: Exported,
    data: bytes,
    reference: bytes,
    photographs: Sequence[Array],
    total_loss: Callable[[Array, Array], float] | None,
) -> Exported:
    """Return `result` with the differences of the model `data` from `reference`."""
    off, losses = [], []
    with Stylizer(data, provider="cpu") as one, Stylizer(reference, provider="cpu") as other:
        for photograph in photographs:
            got, expected = one(photograph), other(photograph)
            off.append(np.abs(got.astype(np.int16) - expected).mean())
            if total_loss is not None:
                losses.append((total_loss(photograph, got), total_loss(photograph, expected)))
    ratio = None
    if losses:
        got_loss, expected_loss = np.sum(losses, axis=0).tolist()
        ratio = got_loss / expected_loss
    difference = float(np.mean(off)) if off else None
    return Exported(result.path, result.precision, difference, ratio)


def _serialize(model: onnx.ModelProto) -> bytes:
    """Serialise a model after checking that it is valid ONNX.

    Raises:
        ExportError: it is not valid.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported graph is not valid ONNX: {error}") from error
    data: bytes = model.SerializeToString()
    return data


def check_parity(exported: ExportedNet, data: bytes) -> None:
    """Compare the uint8 output of the model `data` with PyTorch's at several sizes.

    Raises:
        ExportError: fewer than 99.9 % of the values are within 1, or one differs by more than 3.
    """
    rng = np.random.default_rng(0)
    with Stylizer(data, provider="cpu") as stylizer:
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
                    f"{share:.2%} of the values within 1, the largest difference {most}"
                )


def _smooth_noise(shape: tuple[int, int, int], rng: np.random.Generator) -> Array:
    """Draw images with structure at all scales, which excite more filters than white noise."""
    batch, height, width = shape
    total = np.zeros((batch, height, width, 3))
    for cell in (1, 4, 16, 64):
        grid = rng.random((batch, -(-height // cell), -(-width // cell), 3))
        total += np.kron(grid, np.ones((1, cell, cell, 1)))[:, :height, :width]
    total -= total.min()
    return (total * (255 / total.max())).astype(np.uint8)
