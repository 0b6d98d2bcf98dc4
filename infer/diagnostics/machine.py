"""What this machine has, and which execution providers really work on it."""

from __future__ import annotations

import base64
import ctypes
import importlib.metadata
import os
import platform
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime

from nst.config import Provider
from nst.errors import TRAIN_PACKAGES, NstError
from nst.infer.runtime.providers import AUTO, KINDS, cuda_devices, installed_providers, open_session
from nst.system.cpu import FEATURES, output, read_cpu, sysctl
from nst.system.quota import memory_limits, read_text, usable_cores

# The packages that bring ONNX Runtime and OpenCV under one import name each.
PACKAGES = {
    "nst": ("nst",),
    "onnxruntime": (
        *("onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime"),
    ),
    "opencv": (
        *("opencv-python", "opencv-python-headless"),
        *("opencv-contrib-python", "opencv-contrib-python-headless"),
    ),
    "torch": ("torch",),
}

# A 1×1 convolution that doubles float [1, 1, 8, 8]: opset 17, IR 8. tests/infer/test_machine.py
# builds the same with onnx, which the base install lacks.
TEST_MODEL = base64.b64decode(
    "CAg6YwoPCgF4CgF3EgF5IgRDb252EgFnKhMIAQgBCAEIARABIgQAAABAQgF3WhsKAXgSFgoUCAESEAoCCAEKAggBCgII"
    "CAoCCAhiGwoBeRIWChQIARIQCgIIAQoCCAEKAggICgIICEIECgAQEQ=="
)


@dataclass(frozen=True)
class GPU:
    """An NVIDIA GPU, as nvidia-smi describes it; memory in GiB, None where it is the machine's."""

    name: str
    memory: float | None
    driver: str

    @property
    def line(self) -> str:
        """Name and memory."""
        return self.name if self.memory is None else f"{self.name} ({self.memory:.0f} GiB)"


@dataclass(frozen=True)
class Machine:
    """What this machine has; None or empty where it can't be told.

    Attributes:
        cpu: its name.
        physical_cores, logical_cores: of the machine.
        usable_cores: what affinity and the container's quota leave to this process.
        load: processes that ran or waited for a core, the average of the last minute.
        memory: GiB, of the machine or of the container if that has less.
        features: of `FEATURES`, those that the CPU has.
        gpus: NVIDIA GPUs.
        system, python: operating system and Python version.
        versions: of nst, onnxruntime, opencv and torch, those that are installed, each with the
            name of its package where that differs.
        torch_cuda: the CUDA version that torch was built for.
    """

    cpu: str
    physical_cores: int | None
    logical_cores: int
    usable_cores: float
    load: float | None
    memory: float | None
    features: tuple[str, ...]
    gpus: tuple[GPU, ...]
    system: str
    python: str
    versions: dict[str, str]
    torch_cuda: str | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def cpu_line(self) -> str:
        """The CPU in a few words: name, cores, features."""
        cores = self.physical_cores or self.logical_cores
        line = f"{self.cpu}, {cores} core{'s' if cores != 1 else ''}"
        if self.logical_cores != cores:
            line += f" with {self.logical_cores} threads"
        if self.usable_cores < self.logical_cores:
            line += f", {self.usable_cores:g} of them usable"
        return line + (f" ({' '.join(self.features)})" if self.features else "")

    @property
    def line(self) -> str:
        """The machine in one line, as a benchmark states it."""
        memory = "" if self.memory is None else f", {self.memory:.0f} GiB"
        gpus = ", ".join(gpu.line for gpu in self.gpus) or "no GPU"
        runtime = self.versions.get("onnxruntime", "unknown")
        return f"{self.cpu_line}{memory}; {gpus}; ONNX Runtime {runtime}"


@dataclass(frozen=True)
class ProviderState:
    """One execution provider on this machine.

    Attributes:
        name: ours, `cuda`; full_name: ONNX Runtime's.
        hardware: what it computes on.
        installed: whether this ONNX Runtime was built with it.
        works: whether a small model ran on it.
        problem: why it does not work; empty if it does, or isn't installed.
        install: how to get it.
    """

    name: str
    full_name: str
    hardware: str
    installed: bool
    works: bool
    problem: str
    install: str


@dataclass(frozen=True)
class TrainingState:
    """Whether this machine can train.

    Attributes:
        missing: packages of the extra that aren't installed.
        device: where `--device auto` will most likely train: `cuda` or `cpu`.
    """

    missing: tuple[str, ...]
    device: str


def read_machine() -> Machine:
    """Look at the machine. Loads no torch, and never fails."""
    name, features = read_cpu()
    return Machine(
        cpu=name or platform.processor() or platform.machine() or "unknown CPU",
        physical_cores=_physical_cores(),
        logical_cores=os.cpu_count() or 1,
        usable_cores=usable_cores(),
        load=_load(),
        memory=_memory(),
        features=tuple(feature for feature in FEATURES if feature in features),
        gpus=_gpus(),
        system=_system(),
        python=platform.python_version(),
        versions=_versions(),
        torch_cuda=_torch_cuda(),
    )


def check_providers() -> tuple[ProviderState, ...]:
    """Every provider that nst knows, each tried with a small model."""
    installed = installed_providers()
    states = []
    for name, kind in KINDS.items():
        problem = _problem(name) if name in installed else ""
        works = name in installed and not problem
        state = ProviderState(
            *(name, kind.full_name, kind.hardware, name in installed, works, problem, kind.install)
        )
        states.append(state)
    return tuple(states)


def auto_provider(states: tuple[ProviderState, ...]) -> str:
    """Which of them `auto` takes."""
    works = {state.name for state in states if state.works}
    return next((name for name in AUTO if name in works), "cpu")


def check_training() -> TrainingState:
    """Whether the extra is installed. Loads no torch: its device is told from its build."""
    try:
        wanted = importlib.metadata.requires("nst") or []
    except importlib.metadata.PackageNotFoundError:
        wanted = [f'{package}; extra == "train"' for package in sorted(TRAIN_PACKAGES)]
    packages = [
        re.split(r"[^\w.-]", line)[0] for line in wanted if re.search("extra == .train", line)
    ]
    return TrainingState(
        missing=tuple(package for package in packages if package_version(package) is None),
        device="cuda" if _torch_cuda() and cuda_devices() else "cpu",
    )


def gpu_memory_used() -> float | None:
    """MiB in use on all NVIDIA GPUs together, by whichever process; None without nvidia-smi."""
    used = [float(row[0]) for row in _nvidia_smi("memory.used") if row[0].isdigit()]
    return sum(used) if used else None


def _problem(provider: str) -> str:
    """Why the test model does not run on a provider; empty if it does."""
    try:
        open_session(TEST_MODEL, "the test model", cast(Provider, provider), 1, _probe)
    except NstError as error:
        return str(error).rpartition(": ")[0]  # less the mend, which points here
    return ""


def _probe(session: onnxruntime.InferenceSession) -> None:
    x = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8)
    (y,) = session.run(None, {"x": x})
    if not np.allclose(y, 2 * x):
        raise RuntimeError("its results are wrong")


def _physical_cores() -> int | None:
    if sys.platform == "darwin":
        count = sysctl("hw.physicalcpu")
        return int(count) if count.isdigit() else None
    siblings = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/topology/thread_siblings_list")
    return len({read_text(path) for path in siblings}) or None


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):  # Windows has none
        return None


def _memory() -> float | None:
    try:
        if sys.platform == "win32":
            kilobytes = ctypes.c_ulonglong()
            ctypes.windll.kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(kilobytes))
            return kilobytes.value / 2**20 or None
        if sys.platform == "darwin":
            return int(sysctl("hw.memsize")) / 2**30
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError, AttributeError):
        return None
    return min([total, *memory_limits()]) / 2**30


def _gpus() -> tuple[GPU, ...]:
    return tuple(
        GPU(name, round(int(memory) / 1024, 1) if memory.isdigit() else None, driver)
        for name, memory, driver in _nvidia_smi("name,memory.total,driver_version")
    )


def _nvidia_smi(fields: str) -> list[list[str]]:
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    rows = [line.split(", ") for line in output(command).splitlines()]
    return [row for row in rows if len(row) == fields.count(",") + 1]


def _system() -> str:
    kernel = platform.platform(terse=True)
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
    except (OSError, KeyError):
        return kernel


def _versions() -> dict[str, str]:
    found = {}
    for name, packages in PACKAGES.items():
        for package in packages:
            version = package_version(package)
            if version is not None:
                found[name] = version if package == name else f"{version} ({package})"
                break
    return found


def package_version(package: str) -> str | None:
    """The installed version, without importing the package; None if it isn't installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch_cuda() -> str | None:
    try:
        path = importlib.metadata.distribution("torch").locate_file("torch/version.py")
    except importlib.metadata.PackageNotFoundError:
        return None
    match = re.search(r"^cuda\b.*= '([\d.]+)'", read_text(Path(str(path))), re.M)
    return match[1] if match else None
