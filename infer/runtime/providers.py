"""Opens models on ONNX Runtime's execution providers, and lists which are installed."""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import onnxruntime

from nst.config import PROVIDERS, Provider
from nst.errors import ModelError, NstError, UsageError


@dataclass(frozen=True)
class ProviderKind:
    """An execution provider and its settings.

    Attributes:
        full_name: ONNX Runtime's name for it.
        hardware: the hardware that it computes on.
        install: how to install it, and what it needs.
        options: options for ONNX Runtime.
        optional: further options that make it faster, but that not every GPU and network supports.
        disabled_optimizers: ONNX Runtime's graph optimizers that make it slower.
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
        # Tensor cores need channels last; the provider then keeps the whole graph in that layout.
        {"prefer_nhwc": "1"},
        {"enable_cuda_graph": "1"},
        # cuDNN takes twice as long for a bias as for the addition that it replaces. Fusing it with
        # its convolution (`fuse_conv_bias`) saves more, but compiles kernels for seconds.
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
    "cpu": ProviderKind("CPUExecutionProvider", "the CPU", "always installed"),
}

# Every use of a CUDA GPU through ONNX Runtime holds this lock: a call that is recorded as a CUDA
# graph fails when another thread uses the GPU meanwhile, and so does that thread's call.
GPU = threading.RLock()

# The providers that `auto` tries, in order. OpenVINO and DirectML come in separate packages, so
# users who have them want them. TensorRT builds engines for minutes, and CoreML is part of every
# ONNX Runtime on macOS: both are used only by name.
AUTO = ("cuda", "openvino", "directml", "cpu")


def installed_providers() -> tuple[str, ...]:
    """Return nst's names of the providers in this ONNX Runtime, whether or not they load."""
    available = set(onnxruntime.get_available_providers())
    return tuple(name for name, kind in KINDS.items() if kind.full_name in available)


def cuda_devices() -> int:
    """Return how many CUDA devices the driver sees; 0 without one. Loads no CUDA library."""
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
    """Open a session on a provider, or on the first of `AUTO` that works.

    Args:
        data: bytes of the ONNX file.
        name: name of the model for messages.
        provider: nst's name of a provider, or `auto`.
        threads: threads of the CPU provider; 0 for one per core.
        probe: runs a session once; a provider other than `cpu` counts as working only if this
            raises nothing.

    Returns:
        The session, nst's name of its provider, and a line for each provider that failed before.

    Raises:
        UsageError: no provider has that name.
        ModelError: `data` is not an ONNX model.
        NstError: the named provider is not installed, or does not load.
    """
    if provider not in PROVIDERS:
        raise UsageError(f"provider is {provider!r}: choose one of {', '.join(PROVIDERS)}")
    installed = installed_providers()
    if provider != "auto" and provider not in installed:
        raise NstError(
            f"the provider {provider} is not installed: {KINDS[provider].install}; "
            "or use the provider auto"
        )
    wanted = AUTO if provider == "auto" else (provider,)
    notes = []
    for candidate in wanted:
        if candidate not in installed or candidate == "cpu":
            continue
        if candidate in ("cuda", "tensorrt") and cuda_devices() == 0:
            if provider != "auto":
                raise NstError(
                    f"no CUDA device is available for {provider}: use the provider cpu, "
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
                raise NstError(f"{why}: see nst info, or use the provider cpu") from error
            notes.append(f"{why}, going on without it: see nst info")
            continue
        return session, candidate, tuple(notes)
    return _open_on_cpu(data, name, threads), "cpu", tuple(notes)


def _open_probed(
    data: bytes, name: str, threads: int, probe: Callable[[onnxruntime.InferenceSession], object]
) -> onnxruntime.InferenceSession:
    """Open and probe a session; without the optional options if it fails with them."""
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
    """Return the last line of ONNX Runtime's message, without the error codes."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].rpartition(" : ")[2][:200].rstrip(".")


@functools.cache
def _preload_cuda() -> None:
    """Load CUDA's libraries from Python packages, without printing; callers hold `GPU`."""
    if hasattr(onnxruntime, "preload_dlls"):
        # It prints to the standard output, where an image may be on its way. Shadow `print` in its
        # module alone: redirecting sys.stdout would swallow what other threads print.
        onnxruntime.print = lambda *_, **__: None
        try:
            onnxruntime.preload_dlls()
        finally:
            del onnxruntime.print


def _open(
    data: bytes, name: str, threads: int, optional: Mapping[str, str] = MappingProxyType({})
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # No log, neither the session's nor the default one: nst reports the errors itself.
    options.log_severity_level = 4
    onnxruntime.set_default_logger_severity(4)
    if name == "directml":  # as its documentation requires
        options.enable_mem_pattern = False
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    stack = {"tensorrt": ("tensorrt", "cuda")}.get(name, (name,))
    kinds = [KINDS[part] for part in dict.fromkeys((*stack, "cpu"))]
    providers = [(kind.full_name, dict(kind.options)) for kind in kinds]
    providers[0][1].update(optional)
    if name in ("cuda", "tensorrt"):
        _preload_cuda()
    # A fallback would print, and silently change the provider.
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
