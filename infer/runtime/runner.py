"""Runs ONNX Runtime sessions on arrays: plainly, or on a GPU's own tensors and CUDA graphs."""

from __future__ import annotations

import contextlib
import threading
from functools import partial
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from nst.infer.runtime.providers import GPU
from nst.infer.runtime.signature import HELD_NAME, STATISTICS_NAME, Signature

# The root mean square of each of a network's K normalised channels over a whole frame: [N, K].
FrameStatistics = NDArray[np.float32]

CALLS = 3  # calls of one size in a row after which a CUDA graph pays
GRAPHS = 8  # most CUDA graphs of a session, which keeps them all


class Runner:
    """Runs a session on arrays: images, and statistics if the model has them."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        on_gpu = "CUDAExecutionProvider" in session.get_providers()
        self._lock: contextlib.AbstractContextManager[Any] = (
            GPU if on_gpu else contextlib.nullcontext()
        )

    def __call__(
        self, signature: Signature, x: NDArray[Any], held: FrameStatistics | None = None
    ) -> tuple[NDArray[Any], FrameStatistics | None]:
        """Repaint `x`, normalised by `held` if given; return the output and its statistics."""
        feed = {signature.input_name: x}
        if held is not None:
            feed[HELD_NAME] = held
        names = [signature.output_name, *([STATISTICS_NAME] if signature.statistics else [])]
        output, *found = self._run(names, feed)
        return output, found[0] if found else None

    def statistics(self, signature: Signature, x: NDArray[Any]) -> FrameStatistics:
        return self._run([STATISTICS_NAME], {signature.input_name: x})[0]

    def _run(self, names: list[str], feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        with self._lock:
            return self._session.run(names, feed, _graph_options(None))


class BoundRunner(Runner):
    """Runs a session on a GPU and reuses the tensors there while the size stays.

    If the session supports it, calls are recorded as a CUDA graph and replayed, because launching a
    network's kernels one by one takes longer than running them. A graph belongs to its tensors, and
    in ONNX Runtime to the thread that recorded it.
    """

    def __init__(self, session: onnxruntime.InferenceSession, device: str = "cuda") -> None:
        super().__init__(session)
        self._device = device
        self._lock = GPU  # guards the tensors, too
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
        """Allocate the tensors for images of a shape."""
        make = partial(
            onnxruntime.OrtValue.ortvalue_from_shape_and_type, device_type=self._device, device_id=0
        )
        self._shape = ()
        self._calls, self._graph, self._thread = 0, None, 0
        self._input = make(shape, np.uint8)
        self._output = make(shape, np.uint8)
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(signature.input_name, self._input)
        self._binding.bind_ortvalue_output(signature.output_name, self._output)
        if signature.statistics:
            # ONNX Runtime 1.31 rejects inputs with a default in `bind_cpu_input`.
            self._held = make((1, signature.statistics), np.float32)
            self._found = make((shape[0], signature.statistics), np.float32)
            self._binding.bind_ortvalue_input(HELD_NAME, self._held)
            self._binding.bind_ortvalue_output(STATISTICS_NAME, self._found)
        self._shape = shape

    def _compute(self) -> None:
        """Run the session once; record the `CALLS`th call of a size as a CUDA graph."""
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
    """Make options that record or replay the CUDA graph of a number; None for no graph."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4  # failures raise errors, which nst reports itself
    options.add_run_config_entry("gpu_graph_id", str(-1 if graph is None else graph))
    return options
