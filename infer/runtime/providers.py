"""ONNX Runtime's execution providers: which are installed, which really load, what brings more."""

from __future__ import annotations

import contextlib
import ctypes
import io
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import onnxruntime

from nst.config import PROVIDERS, Provider
from nst.errors import ModelError, NstError, UsageError


@dataclass(frozen=True)
class ProviderKind:
    """One execution provider.

    Attributes:
        full_name: ONNX Runtime's name for it.
        hardware: what it computes on.
        install: how to get it, and what must be there.
        options: handed to ONNX Runtime.
        optional: more of them, which make it faster, and which not every GPU and network takes.
        disabled_optimizers: ONNX Runtime's changes to a graph that do no good there.
    """

    full_name: str
    hardware: str
    install: str
    options: dict[str, str] = field(default_factory=dict)
    optional: dict[str, str] = field(default_factory=dict)
    disabled_optimizers: tuple[str, ...] = ()


KINDS: dict[str, ProviderKind] = {
    "cuda": ProviderKind(
        "CUDAExecutionProvider",
        "NVIDIA GPUs",
        "pip install 'onnxruntime-gpu[cuda,cudnn]', and an NVIDIA driver",
        # Tensor cores want channels last; the provider then keeps the whole graph in that layout.
        {"prefer_nhwc": "1"},
        {"enable_cuda_graph": "1"},
        # A bias takes cuDNN twice as long as the addition that it was. To fuse it with its
        # convolution (`fuse_conv_bias`) saves more, but compiles kernels for seconds.
        ("ConvAddFusion",),
    ),
    "tensorrt": ProviderKind(
        "TensorrtExecutionProvider",
        "NVIDIA GPUs, an engine built for each model and size",
        "pip install onnxruntime-gpu tensorrt-cu13, and an NVIDIA driver",
        {"trt_fp16_enable": "1", "trt_engine_cache_enable": "0"},
    ),
    "openvino": ProviderKind(
        "OpenVINOExecutionProvider",
        "Intel CPUs and GPUs",
        "pip uninstall onnxruntime-gpu, then pip install onnxruntime-openvino",
        {"device_type": "CPU"},
    ),
    "coreml": ProviderKind(
        "CoreMLExecutionProvider",
        "Apple's GPU and neural engine",
        "pip install onnxruntime (on macOS)",
        {"ModelFormat": "MLProgram", "MLComputeUnits": "ALL"},
    ),
    "directml": ProviderKind(
        "DmlExecutionProvider",
        "any GPU under Windows",
        "pip uninstall onnxruntime-gpu, then pip install onnxruntime-directml (on Windows)",
    ),
    "cpu": ProviderKind("CPUExecutionProvider", "the CPU", "always there"),
}

_OPENING = threading.Lock()

# Whoever uses a CUDA GPU through ONNX Runtime holds it: a call that is recorded as a CUDA graph
# fails when another thread uses the GPU meanwhile, and so does that thread.
GPU = threading.RLock()

# What `auto` tries. OpenVINO and DirectML come only in packages of their own, so whoever has them
# wants them. TensorRT builds engines for minutes and CoreML comes unasked: both by name only.
AUTO = ("cuda", "openvino", "directml", "cpu")


def installed_providers() -> tuple[str, ...]:
    """The providers of this ONNX Runtime, by our names, whether or not they load."""
    available = set(onnxruntime.get_available_providers())
    return tuple(name for name, kind in KINDS.items() if kind.full_name in available)


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


def open_session(
    data: bytes,
    name: str,
    provider: Provider = "auto",
    threads: int = 0,
    probe: Callable[[onnxruntime.InferenceSession], object] = lambda _: None,
) -> tuple[onnxruntime.InferenceSession, str, tuple[str, ...]]:
    """A session on the asked-for provider, or on the first of `AUTO` that works.

    Args:
        data: the ONNX file's bytes.
        name: of the model, for messages.
        threads: of the CPU provider; 0 for one a core.
        probe: runs a session once; a provider other than the CPU's on which that fails does not
            count as working.

    Returns:
        The session, our name of its provider, and a line for each provider that failed before.

    Raises:
        UsageError: no provider has that name. ModelError: `data` is no ONNX model.
        NstError: the provider that was asked for is not installed, or does not load.
    """
    if provider not in PROVIDERS:
        raise UsageError(f"provider is {provider!r}: choose one of {', '.join(PROVIDERS)}")
    installed = installed_providers()
    if provider != "auto" and provider not in installed:
        raise NstError(
            f"the provider {provider} is not installed: {KINDS[provider].install}; "
            "or use --provider auto"
        )
    wanted = AUTO if provider == "auto" else (provider,)
    notes = []
    for candidate in wanted:
        if candidate not in installed or candidate == "cpu":
            continue
        if candidate in ("cuda", "tensorrt") and cuda_devices() == 0:
            if provider != "auto":
                raise NstError(
                    f"no CUDA device is available for {provider}: use --provider cpu, "
                    "or check nvidia-smi"
                )
            continue
        try:
            session = _open_probed(data, candidate, threads, probe)
        except ModelError:
            raise  # the file's fault
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            _open_on_cpu(data, name, threads)  # is it the file's fault?
            why = f"the provider {candidate} does not load ({reason(error)})"
            if provider != "auto":
                raise NstError(f"{why}: see nst info, or use --provider cpu") from error
            notes.append(f"{why}, going on without it: see nst info")
            continue
        return session, candidate, tuple(notes)
    return _open_on_cpu(data, name, threads), "cpu", tuple(notes)


def _open_probed(
    data: bytes,
    name: str,
    threads: int,
    probe: Callable[[onnxruntime.InferenceSession], object],
) -> onnxruntime.InferenceSession:
    """A session that has computed; without what is optional if it does not take it."""
    optional = KINDS[name].optional
    with GPU:
        try:
            session = _open(data, name, threads, optional)
            probe(session)
        except ModelError:
            raise  # the file's fault
        except Exception:  # ONNX Runtime's exceptions share no base of their own
            if not optional:
                raise
            session = _open(data, name, threads)
            probe(session)
    return session


def _open_on_cpu(data: bytes, name: str, threads: int) -> onnxruntime.InferenceSession:
    try:
        return _open(data, "cpu", threads)
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise ModelError(
            f"{name} is not an ONNX model that can be opened ({reason(error)}): "
            "train one with nst-train"
        ) from error


def reason(error: Exception) -> str:
    """The telling part of ONNX Runtime's message: its last line, less the error's codes."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].rpartition(" : ")[2][:200].rstrip(".")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """No log of ONNX Runtime's own: what fails is raised, and said in one line.

    Log level and standard output belong to the whole process, so one session opens at a time.
    """
    with _OPENING:
        onnxruntime.set_default_logger_severity(4)
        try:
            yield
        finally:
            onnxruntime.set_default_logger_severity(2)  # as it comes


def _open(
    data: bytes, name: str, threads: int, optional: Mapping[str, str] = MappingProxyType({})
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # failures are raised, and what is raised we report
    if name == "directml":  # as its documentation demands
        options.enable_mem_pattern = False
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    stack = {"tensorrt": ("tensorrt", "cuda")}.get(name, (name,))
    providers = [(KINDS[part].full_name, dict(KINDS[part].options)) for part in (*stack, "cpu")]
    providers[0][1].update(optional)
    if name == "cpu":
        providers = providers[:1]
    with _silence():
        if name in ("cuda", "tensorrt") and hasattr(onnxruntime, "preload_dlls"):
            # It prints to the standard output, where a picture may be on its way.
            with contextlib.redirect_stdout(io.StringIO()):
                onnxruntime.preload_dlls()
        # A fallback would print, and change the provider behind our back.
        session = onnxruntime.InferenceSession(
            data,
            options,
            providers=providers,
            disabled_optimizers=KINDS[name].disabled_optimizers,
            enable_fallback=0,
        )
    session.disable_fallback()
    if session.get_providers()[0] != KINDS[name].full_name:
        raise RuntimeError("its libraries are missing or of another version")
    return session
