"""`Stylizer`: a style model in ONNX Runtime, images in, images out."""

from __future__ import annotations

import contextlib
import os
import threading
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
from nst.infer.runtime.providers import GPU, open_session, reason
from nst.infer.runtime.signature import (
    HELD_NAME,
    SMALLEST_SIDE,
    STATISTICS_NAME,
    Signature,
    read_signature,
)
from nst.infer.runtime.tiles import GPU_TILE_SIDE, Report, repaint_tiles, sample, tiles
from nst.io.files import Closing
from nst.io.images import Array
from nst.system.quota import quota_threads

__all__ = ["FrameStatistics", "Stylizer", "check_strength"]

FrameStatistics = NDArray[np.float32]

CALLS = 3  # of a size in a row, until it is worth a CUDA graph
GRAPHS = 8  # of a session, which keeps them all


class Stylizer(Closing):
    """A style model, ready to repaint. Threads may share one.

    Args:
        model: path of an ONNX file, or its bytes. Files of other makers are taken if they map one
            RGB image to another (see `nst.infer.runtime.signature`).
        provider: where to compute; `auto` takes the first of CUDA, OpenVINO and DirectML that is
            installed and works, else the CPU.
        threads: of the CPU provider; 0 for one a core, or as many as a container's quota allows.

    Attributes:
        provider: our name of the provider at work: `cpu`, `cuda`, …
        notes: a line for each provider that was tried before and failed, and for what was assumed
            about a file of another maker.
        metadata: what the file says of itself: title, artist, year, style_sha256, preset, …
        signature: what the file takes and gives.

    Raises:
        ModelError: the file is missing, is no ONNX model, or maps no image to an image.
        NstError: the provider that is asked for is not installed or does not load.
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
                f"{self._name} is of another maker: its pixels are taken to be "
                f"{span[self.signature.pixels]}",
            )
        self.metadata: dict[str, str] = dict(session.get_modelmeta().custom_metadata_map)
        bound = self.provider in ("cuda", "tensorrt")
        self._side = GPU_TILE_SIDE if bound else None  # of tiles
        self._run_session: _Runner | None = (_BoundRunner if bound else _Runner)(session)

    @property
    def name(self) -> str:
        """The style's title, or the file's name where it has none."""
        return self.metadata.get("title") or Path(self._name).stem

    @property
    def precision(self) -> str:
        """`fp32`, `fp16`, `int8`, or `unknown` for a file of another maker."""
        return self.metadata.get("precision", "unknown")

    @property
    def keep_color(self) -> KeepColor | None:
        """How its pictures are to keep a photograph's colours, of which it paints none."""
        return "luminance" if self.metadata.get("keep_color") == "luminance" else None

    @property
    def receptive_radius(self) -> int | None:
        """Pixels around one on which its result depends; None for the whole image, or unknown."""
        receptive_radius = self.metadata.get("receptive_radius", "")
        return (
            int(receptive_radius)
            if receptive_radius.isascii() and receptive_radius.isdigit()
            else None
        )

    def __call__(self, image: Array, strength: float = 1.0, report: Report | None = None) -> Array:
        """Repaint; large images in pieces, as the whole would be under the same statistics.

        Args:
            image: uint8 RGB, [H, W, 3] or a batch [N, H, W, 3].
            strength: 0 gives the image back, 1 the full style.
            report: called after each piece with how many are done, and of how many.

        Returns:
            The same shape, uint8 RGB.
        """
        single = image.ndim == 3
        stylized, _ = self._stylize(image[None] if single else image, strength, report)
        return stylized[0] if single else stylized

    def frame(
        self, image: Array, strength: float = 1.0, held: FrameStatistics | None = None
    ) -> tuple[Array, FrameStatistics | None]:
        """Repaint a frame under the statistics of others.

        Args:
            image: uint8 [H, W, 3] RGB.
            strength: as above.
            held: float32 [1, K]; None for the frame's own.

        Returns:
            The same shape, and the frame's own statistics; None if the model takes none, or at
            strength 0.
        """
        stylized, statistics = self._stylize(image[None], strength, None, held)
        return stylized[0], statistics

    def statistics(self, image: Array) -> FrameStatistics | None:
        """What the network takes from a frame as a whole, in the whole or in patches of it.

        Args:
            image: uint8 [H, W, 3] RGB.

        Returns:
            float32 [1, K], the root mean squares of K channels; None if it takes none.
        """
        _check_images(image[None])
        if not self.signature.statistics:
            return None
        whole = (
            self.receptive_radius is None
            or len(tiles(image.shape[:2], self.receptive_radius, self._side)) == 1
        )
        seen = image if whole else sample(image)
        return self._runner().statistics(self.signature, _enlarged(seen[None]))

    def close(self) -> None:
        """Release the session and its memory; calls fail from then on, those under way finish."""
        self._run_session = None

    def _runner(self) -> _Runner:
        run = self._run_session  # another thread may close us meanwhile
        if run is None:
            raise NstError(f"{self._name} is closed: make a new Stylizer")
        return run

    def _stylize(
        self,
        batch: Array,
        strength: float,
        report: Report | None = None,
        held: FrameStatistics | None = None,
    ) -> tuple[Array, FrameStatistics | None]:
        """Repaint uint8 [N, H, W, 3], in tiles where they are large; the statistics of each."""
        check_number("strength", strength, most=1)
        _check_images(batch)
        if strength == 0 and self._run_session is not None:
            return batch.copy(), None
        receptive_radius = self.receptive_radius if self.signature.native else None
        if (
            receptive_radius is None
            or len(tiles(batch.shape[1:3], receptive_radius, self._side)) == 1
        ):
            stylized, statistics = self._repaint(batch, held)
        else:
            stylized, statistics = self._in_tiles(batch, receptive_radius, report, held)
        if strength < 1:
            blend = cv2.addWeighted(stylized, strength, batch, 1 - strength, 0)
            stylized = np.asarray(blend, np.uint8)
        return stylized, statistics

    def _in_tiles(
        self,
        batch: Array,
        receptive_radius: int,
        report: Report | None,
        held: FrameStatistics | None,
    ) -> tuple[Array, FrameStatistics | None]:
        """In tiles, under the statistics of each image as a whole, or those that are held."""
        done: list[Array] = []
        found: list[FrameStatistics] = []
        count = len(batch) * len(tiles(batch.shape[1:3], receptive_radius, self._side))

        def step(part: int, parts: int) -> None:
            if report is not None:
                report(len(done) * parts + part, count)

        for image in batch:
            own = self.statistics(image)
            found += [] if own is None else [own]
            used = own if held is None else held

            def repaint(tile: Array, used: FrameStatistics | None = used) -> Array:
                return self._repaint(tile, used)[0]

            done.append(repaint_tiles(repaint, image[None], receptive_radius, step, self._side))
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
        run = _Runner(session)
        return read_signature(
            self._name,
            session.get_inputs(),
            session.get_outputs(),
            lambda signature, batch: run(signature, signature.encode(batch))[0],
            session.get_overridable_initializers(),
        )

    def _probe(self, session: onnxruntime.InferenceSession) -> None:
        """One small image: what a provider cannot compute fails here, not in the middle of work."""
        signature = self._read_signature(session)
        _in_batches(_Runner(session), signature, np.zeros((1, 64, 64, 3), np.uint8))


class _Runner:
    """A session that takes arrays and gives arrays: pictures, and statistics if there are any."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        on_gpu = "CUDAExecutionProvider" in session.get_providers()
        self._lock: contextlib.AbstractContextManager[Any] = (
            GPU if on_gpu else contextlib.nullcontext()
        )

    def __call__(
        self, signature: Signature, x: NDArray[Any], held: FrameStatistics | None = None
    ) -> tuple[NDArray[Any], FrameStatistics | None]:
        """Repaint `x`; under the statistics `held`, if any, in place of its own."""
        feed = {signature.input_name: x}
        if held is not None:
            feed[HELD_NAME] = held
        names = [signature.output_name, *([STATISTICS_NAME] if signature.statistics else [])]
        output, *found = self._run(names, feed)
        return output, found[0] if found else None

    def statistics(self, signature: Signature, x: NDArray[Any]) -> FrameStatistics:
        found: FrameStatistics = self._run([STATISTICS_NAME], {signature.input_name: x})[0]
        return found

    def _run(self, names: list[str], feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        with self._lock:
            outputs: list[NDArray[Any]] = self._session.run(names, feed, _graph_options(None))
        return outputs


class _BoundRunner(_Runner):
    """A session on a GPU: the tensors there are kept and used again while the size stays.

    Where the session takes them, calls are recorded as a CUDA graph and replayed, since to launch
    a network's kernels one by one takes longer than they do. A graph belongs to its tensors, and
    in ONNX Runtime to the thread that recorded it.
    """

    def __init__(self, session: onnxruntime.InferenceSession, device: str = "cuda") -> None:
        super().__init__(session)
        self._device = device
        self._lock = GPU  # one set of buffers, too
        self._shape: tuple[int, ...] = ()
        self._graph: int | None = None
        cuda = session.get_provider_options().get("CUDAExecutionProvider", {})
        self._graphs_left = GRAPHS if cuda.get("enable_cuda_graph") == "1" else 0

    def __call__(
        self, signature: Signature, x: NDArray[Any], held: FrameStatistics | None = None
    ) -> tuple[NDArray[Any], FrameStatistics | None]:
        if not signature.native:
            return super().__call__(signature, x, held)
        with self._lock:
            if x.shape != self._shape:
                self._bind(signature, x.shape)
            self._input.update_inplace(x)
            if signature.statistics:
                if held is None:
                    held = np.full((1, signature.statistics), np.nan, np.float32)
                self._held.update_inplace(held)
            self._compute()
            found = self._found.numpy() if signature.statistics else None
            return self._output.numpy(), found

    def _bind(self, signature: Signature, shape: tuple[int, ...]) -> None:
        """Make the tensors for images of a shape."""
        make = partial(
            onnxruntime.OrtValue.ortvalue_from_shape_and_type,
            device_type=self._device,
            device_id=0,
        )
        self._shape = ()
        self._calls, self._graph, self._thread = 0, None, 0
        self._input = make(shape, np.uint8)
        self._output = make(shape, np.uint8)
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(signature.input_name, self._input)
        self._binding.bind_ortvalue_output(signature.output_name, self._output)
        if signature.statistics:
            # ONNX Runtime 1.31 knows no input with a default in `bind_cpu_input`.
            self._held = make((1, signature.statistics), np.float32)
            self._found = make((shape[0], signature.statistics), np.float32)
            self._binding.bind_ortvalue_input(HELD_NAME, self._held)
            self._binding.bind_ortvalue_output(STATISTICS_NAME, self._found)
        self._shape = shape

    def _compute(self) -> None:
        """One call; the `CALLS`th of a size is recorded."""
        self._calls += 1
        if self._calls == CALLS and self._graphs_left:
            number, self._thread = self._graphs_left, threading.get_ident()
            self._graphs_left -= 1
            try:
                self._session.run_with_iobinding(self._binding, _graph_options(number))
            except Exception:  # ONNX Runtime's exceptions share no base of their own
                self._graphs_left = 0
            else:
                self._graph = number
                return
        graph = self._graph if self._thread == threading.get_ident() else None
        self._session.run_with_iobinding(self._binding, _graph_options(graph))


def _graph_options(graph: int | None) -> onnxruntime.RunOptions:
    """To record or replay a CUDA graph, by its number; None for a call without."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4  # failures are raised, and what is raised we report
    options.add_run_config_entry("gpu_graph_id", str(-1 if graph is None else graph))
    return options


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
    """`batch`, its border continued to the smallest sides that a model takes."""
    down, right = (max(0, SMALLEST_SIDE - side) for side in batch.shape[1:3])
    if down or right:
        batch = np.pad(batch, ((0, 0), (0, down), (0, right), (0, 0)), "edge")
    return np.ascontiguousarray(batch)


def _in_batches(
    run: Callable[[Signature, NDArray[Any]], tuple[NDArray[Any], FrameStatistics | None]],
    signature: Signature,
    batch: Array,
) -> tuple[Array, FrameStatistics | None]:
    """Repaint uint8 [N, H, W, 3] in batches that the model takes; the statistics of each image."""
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
