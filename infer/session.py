"""`Stylizer`: an exported model in ONNX Runtime, images in, images out."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import sys
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
import onnxruntime

from nst.config import Device, check_number
from nst.errors import ModelError, NstError, UsageError
from nst.images import Array

# The exported file's contract: uint8 [N, H, W, 3] RGB in and out, any batch, height and width.
INPUT_NAME = "image"
OUTPUT_NAME = "stylized"
SMALLEST_SIDE = 32

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class Stylizer:
    """A style model, ready to repaint.

    Args:
        model: path of an ONNX file that nst exported, or its bytes.
        device: `auto` takes CUDA where it really loads, else the CPU.
        threads: of the CPU provider; 0 for one a core.

    Attributes:
        provider: the ONNX Runtime provider at work.
        metadata: what the file says of itself: title, artist, year, style_sha256, preset, …

    Raises:
        ModelError: the file is missing, is no ONNX model, or has another signature.
        NstError: `cuda` is asked for and does not load.
    """

    def __init__(
        self, model: str | os.PathLike[str] | bytes, *, device: Device = "auto", threads: int = 0
    ) -> None:
        check_number("threads", threads)
        if device not in ("auto", "cpu", "cuda"):
            raise UsageError(f"device is {device!r}: choose auto, cpu or cuda")
        self._name = "the model" if isinstance(model, bytes) else os.fspath(model)
        data = model if isinstance(model, bytes) else _read(Path(model))
        cuda = device != "cpu" and cuda_devices() > 0
        if device == "cuda" and not cuda:
            raise NstError("no CUDA device is available: use --device cpu, or check nvidia-smi")
        session = self._open(data, "cuda" if cuda else "cpu", threads)
        self._session: onnxruntime.InferenceSession | None = session
        self.provider: str = session.get_providers()[0]
        if device == "cuda" and self.provider != _PROVIDERS["cuda"]:
            raise NstError(
                "ONNX Runtime's CUDA provider does not load: install onnxruntime-gpu with its CUDA "
                "libraries, or use --device cpu"
            )
        self._check_signature(session)
        self.metadata: dict[str, str] = dict(session.get_modelmeta().custom_metadata_map)

    @property
    def name(self) -> str:
        """The style's title, or the file's name where it has none."""
        return self.metadata.get("title") or Path(self._name).stem

    def __call__(self, image: Array, strength: float = 1.0) -> Array:
        """Repaint.

        Args:
            image: uint8 RGB, [H, W, 3] or a batch [N, H, W, 3].
            strength: 0 gives the image back, 1 the full style.

        Returns:
            The same shape, uint8 RGB.
        """
        check_number("strength", strength, most=1)
        single = image.ndim == 3
        batch = image[None] if single else image
        if batch.ndim != 4 or batch.shape[3] != 3 or batch.dtype != np.uint8 or not batch.size:
            raise UsageError(
                f"the image is {image.dtype} {list(image.shape)}: give uint8 [H, W, 3] RGB"
            )
        if strength == 0:
            return image.copy()
        stylized = self._run(np.ascontiguousarray(batch))
        if strength < 1:
            blend = cv2.addWeighted(stylized, strength, batch, 1 - strength, 0)
            stylized = np.asarray(blend, np.uint8)
        return stylized[0] if single else stylized

    def close(self) -> None:
        """Release the session and its memory; calls fail from then on."""
        self._session = None

    def __enter__(self) -> Stylizer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, batch: Array) -> Array:
        if self._session is None:
            raise NstError(f"{self._name} is closed: make a new Stylizer")
        height, width = batch.shape[1:3]
        down, right = max(0, SMALLEST_SIDE - height), max(0, SMALLEST_SIDE - width)
        if down or right:
            batch = np.pad(batch, ((0, 0), (0, down), (0, right), (0, 0)), "edge")
        try:
            stylized: Array = self._session.run([OUTPUT_NAME], {INPUT_NAME: batch})[0]
        except Exception as error:
            raise NstError(
                f"{self._name} cannot repaint {width}×{height} pixels, is memory short? "
                f"({_reason(error)})"
            ) from error
        return stylized[:, :height, :width]

    def _open(self, data: bytes, device: str, threads: int) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # failures are raised, and what is raised we report
        providers = [_PROVIDERS["cpu"]]
        if device == "cuda":
            providers.insert(0, _PROVIDERS["cuda"])
        try:
            # ONNX Runtime prints to the standard output, where a picture may be on its way.
            with contextlib.redirect_stdout(io.StringIO()):
                if device == "cuda" and hasattr(onnxruntime, "preload_dlls"):
                    onnxruntime.preload_dlls()
                session = onnxruntime.InferenceSession(data, options, providers=providers)
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            raise ModelError(
                f"{self._name} is not an ONNX model that can be opened ({_reason(error)}): "
                "train one with nst-train"
            ) from error
        session.disable_fallback()  # it would change the provider behind our back
        return session

    def _check_signature(self, session: onnxruntime.InferenceSession) -> None:
        inputs = [(i.name, i.type, len(i.shape)) for i in session.get_inputs()]
        outputs = [(o.name, o.type, len(o.shape)) for o in session.get_outputs()]
        if inputs != [(INPUT_NAME, "tensor(uint8)", 4)] or outputs != [
            (OUTPUT_NAME, "tensor(uint8)", 4)
        ]:
            raise ModelError(
                f"{self._name} is an ONNX model, but not one of nst (it must map uint8 'image' to "
                "uint8 'stylized'): train one with nst-train"
            )


def check_strength(strength: float, quality: int = 95) -> None:
    """Raise `UsageError` for a strength outside 0 to 1 or a quality outside 1 to 100."""
    check_number("strength", strength, most=1)
    check_number("quality", quality, least=1, most=100)


def cuda_devices() -> int:
    """How many CUDA devices the driver sees; 0 without a driver. Loads no CUDA library."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int()
        if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
            return 0
    except (OSError, AttributeError):
        return 0
    return count.value


def _reason(error: Exception) -> str:
    """The telling part of ONNX Runtime's message: its last line, less the error's codes."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].rpartition(" : ")[2][:200].rstrip(".")


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
