"""`Stylizer`: repaints images with a style model in ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from nst.config import KeepColor, Provider, check_number
from nst.errors import ModelError, NstError, UsageError
from nst.infer.runtime.providers import open_session, reason
from nst.infer.runtime.runner import BoundRunner, FrameStatistics, Runner
from nst.infer.runtime.signature import SMALLEST_SIDE, Signature, read_signature
from nst.infer.runtime.tiles import GPU_TILE_SIDE, TileCallback, repaint_tiles, sample, tiles
from nst.io.files import Closing
from nst.io.images import Array
from nst.system.quota import quota_threads

__all__ = ["FrameStatistics", "Stylizer", "check_strength"]


class Stylizer(Closing):
    """A style model, ready to repaint; threads may share it.

    Args:
        model: path of an ONNX file, or its bytes. Files of other makers work if they map one RGB
            image to another (see `nst.infer.runtime.signature`).
        provider: execution provider to compute with; `auto` takes the first of CUDA, OpenVINO and
            DirectML that is installed and works, else the CPU.
        threads: threads of the CPU provider; 0 for one per core, or as many as a container's quota
            allows.

    Attributes:
        provider: nst's name of the provider in use: `cpu`, `cuda`, …
        notes: a line for each provider that was tried before and failed, and for each assumption
            about a file of another maker.
        metadata: the file's metadata: title, artist, year, style_sha256, preset, …
        signature: layout, type and size of the file's input and output.

    Raises:
        UsageError: `threads` is negative, or no provider has that name.
        ModelError: the file is missing, is not an ONNX model, or maps no image to an image.
        NstError: the named provider is not installed or does not load.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        *,
        provider: Provider = "auto",
        threads: int = 0,
    ) -> None:
        check_number("threads", threads)
        self._name = "the model" if isinstance(model, bytes) else os.fspath(model)
        data = model if isinstance(model, bytes) else _read(Path(model))
        session, self.provider, self.notes = open_session(
            data, self._name, provider, threads or quota_threads(), self._probe
        )
        self.signature = self._read_signature(session)
        if np.uint8 not in (self.signature.input_type, self.signature.output_type):
            span = {"byte": "0 to 255", "unit": "0 to 1", "signed": "-1 to 1"}
            self.notes += (
                f"{self._name} is of another maker: its pixels are assumed to be "
                f"{span[self.signature.pixels]}",
            )
        self.metadata: dict[str, str] = dict(session.get_modelmeta().custom_metadata_map)
        bound = self.provider in ("cuda", "tensorrt")
        self._tile_side = GPU_TILE_SIDE if bound else None
        self._run_session: Runner | None = (BoundRunner if bound else Runner)(session)

    @property
    def name(self) -> str:
        """The style's title, or the file's name if it has none."""
        return self.metadata.get("title") or Path(self._name).stem

    @property
    def precision(self) -> str:
        """`fp32`, `fp16`, `int8`, or `unknown` for a file of another maker."""
        return self.metadata.get("precision", "unknown")

    @property
    def keep_color(self) -> KeepColor | None:
        """The method that its results need to keep a photograph's colours; None for most models."""
        return "luminance" if self.metadata.get("keep_color") == "luminance" else None

    @property
    def receptive_radius(self) -> int | None:
        """How far the pixels that a result depends on lie from it; None if unlimited or unknown."""
        radius = self.metadata.get("receptive_radius", "")
        return int(radius) if radius.isascii() and radius.isdigit() else None

    def __call__(
        self, image: Array, strength: float = 1.0, report: TileCallback | None = None
    ) -> Array:
        """Repaint an image or a batch.

        Large images are repainted in tiles, normalised by the statistics of the whole image.

        Args:
            image: uint8 RGB, [H, W, 3] or a batch [N, H, W, 3].
            strength: 0 returns the image, 1 the full style.
            report: called after each tile of a large image.

        Returns:
            The same shape, uint8 RGB.

        Raises:
            UsageError: the image is of another type or shape, or the strength outside 0 to 1.
            NstError: the model can't repaint this size, memory is short, or it is closed.
        """
        single = image.ndim == 3
        stylized, _ = self._stylize(image[None] if single else image, strength, report)
        return stylized[0] if single else stylized

    def frame(
        self, image: Array, strength: float = 1.0, held: FrameStatistics | None = None
    ) -> tuple[Array, FrameStatistics | None]:
        """Repaint a frame, normalised by the statistics of other frames.

        Args:
            image: uint8 [H, W, 3] RGB.
            strength: 0 returns the image, 1 the full style.
            held: statistics to normalise by, [1, K]; None for the frame's own.

        Returns:
            The repainted frame, uint8 [H, W, 3] RGB, and the frame's own statistics; None for
            these if the model has none, or at strength 0.
        """
        stylized, statistics = self._stylize(image[None], strength, None, held)
        return stylized[0], statistics

    def statistics(self, image: Array) -> FrameStatistics | None:
        """Measure the statistics of a frame: on all of it, or on patches if it is large.

        Args:
            image: uint8 [H, W, 3] RGB.

        Returns:
            [1, K]; None if the model has none.
        """
        _check_images(image[None])
        if not self.signature.statistics:
            return None
        radius = self.receptive_radius
        whole = radius is None or len(tiles(image.shape[:2], radius, self._tile_side)) == 1
        seen = image if whole else sample(image)
        return self._runner().statistics(self.signature, _enlarged(seen[None]))

    def close(self) -> None:
        """Release the session and its memory; running calls finish, later ones raise `NstError`."""
        self._run_session = None

    def _runner(self) -> Runner:
        run = self._run_session  # another thread may close it meanwhile
        if run is None:
            raise NstError(f"{self._name} is closed: make a new Stylizer")
        return run

    def _stylize(
        self,
        batch: Array,
        strength: float,
        report: TileCallback | None = None,
        held: FrameStatistics | None = None,
    ) -> tuple[Array, FrameStatistics | None]:
        """Repaint uint8 [N, H, W, 3], in tiles if large, and return each image's statistics."""
        check_number("strength", strength, most=1)
        _check_images(batch)
        if strength == 0 and self._run_session is not None:
            return batch.copy(), None
        radius = self.receptive_radius if self.signature.native else None
        if radius is None or len(tiles(batch.shape[1:3], radius, self._tile_side)) == 1:
            stylized, statistics = self._repaint(batch, held)
        else:
            stylized, statistics = self._in_tiles(batch, radius, report, held)
        if strength < 1:
            blend = cv2.addWeighted(stylized, strength, batch, 1 - strength, 0)
            stylized = np.asarray(blend, np.uint8)
        return stylized, statistics

    def _in_tiles(
        self, batch: Array, radius: int, report: TileCallback | None, held: FrameStatistics | None
    ) -> tuple[Array, FrameStatistics | None]:
        """Repaint in tiles, normalised by `held` or else by each image's own statistics."""
        done: list[Array] = []
        found: list[FrameStatistics] = []
        count = len(batch) * len(tiles(batch.shape[1:3], radius, self._tile_side))

        def step(part: int, parts: int) -> None:
            if report is not None:
                report(len(done) * parts + part, count)

        for image in batch:
            own = self.statistics(image)
            found += [] if own is None else [own]
            used = own if held is None else held

            def repaint(tile: Array, used: FrameStatistics | None = used) -> Array:
                return self._repaint(tile, used)[0]

            done.append(repaint_tiles(repaint, image[None], radius, step, self._tile_side))
        return np.concatenate(done), np.concatenate(found) if found else None

    def _repaint(
        self, batch: Array, held: FrameStatistics | None = None
    ) -> tuple[Array, FrameStatistics | None]:
        run = partial(self._runner(), held=held)
        height, width = batch.shape[1:3]
        batch = _enlarged(batch)
        try:
            stylized, statistics = _in_batches(run, self.signature, batch)
        except Exception as error:
            raise NstError(
                f"{self._name} cannot repaint {width}×{height} pixels, is memory short? "
                f"({reason(error)})"
            ) from error
        return stylized[:, :height, :width], statistics

    def _read_signature(self, session: onnxruntime.InferenceSession) -> Signature:
        run = Runner(session)
        return read_signature(
            self._name,
            session.get_inputs(),
            session.get_outputs(),
            lambda signature, batch: run(signature, signature.encode(batch))[0],
            session.get_overridable_initializers(),
        )

    def _probe(self, session: onnxruntime.InferenceSession) -> None:
        """Repaint a small image, so that a provider that can't compute the model fails at once."""
        signature = self._read_signature(session)
        _in_batches(Runner(session), signature, np.zeros((1, 64, 64, 3), np.uint8))


def check_strength(strength: float, quality: int = 95) -> None:
    """Raise `UsageError` for a strength outside 0 to 1 or a quality outside 1 to 100."""
    check_number("strength", strength, most=1)
    check_number("quality", quality, least=1, most=100)


def _check_images(batch: Array) -> None:
    if batch.ndim != 4 or batch.shape[3] != 3 or batch.dtype != np.uint8 or not batch.size:
        raise UsageError(
            f"the image is {batch.dtype} {list(batch.shape[1:])}: give uint8 [H, W, 3] RGB"
        )


def _enlarged(batch: Array) -> Array:
    """Pad a batch to the smallest sides that a model accepts, by repeating its border."""
    down, right = (max(0, SMALLEST_SIDE - side) for side in batch.shape[1:3])
    if down or right:
        batch = np.pad(batch, ((0, 0), (0, down), (0, right), (0, 0)), "edge")
    return np.ascontiguousarray(batch)


def _in_batches(
    run: Callable[[Signature, NDArray[Any]], tuple[NDArray[Any], FrameStatistics | None]],
    signature: Signature,
    batch: Array,
) -> tuple[Array, FrameStatistics | None]:
    """Repaint uint8 [N, H, W, 3] in batches of the model's size; return the statistics, too."""
    if signature.native and signature.batch in (None, len(batch)):
        return run(signature, batch)
    size = batch.shape[1:3]
    if signature.batch is None:
        stylized, statistics = run(signature, signature.encode(batch))
        return signature.decode(stylized, size), statistics
    done: list[Array] = []
    found: list[FrameStatistics] = []
    for start in range(0, len(batch), signature.batch):
        part = batch[start : start + signature.batch]
        missing = signature.batch - len(part)
        full = np.concatenate([part, np.repeat(part[-1:], missing, 0)])
        stylized, statistics = run(signature, signature.encode(full))
        done.append(signature.decode(stylized, size)[: len(part)])
        found += [] if statistics is None else [statistics[: len(part)]]
    return np.concatenate(done), np.concatenate(found) if found else None


def _read(path: Path) -> bytes:
    if os.path.isdir(path):
        raise ModelError(f"{path} is a folder: name the .onnx file in it")
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(
            f"{path} does not exist: check the path, or train with nst-train"
        ) from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
