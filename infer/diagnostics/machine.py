"""Reads what this machine has, and tries which execution providers work on it."""

from __future__ import annotations

import base64
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
from nst.system.cpu import FEATURES, output, read_cpu
from nst.system.quota import memory_limits, read_text, usable_cores

# Packages that may provide each import name.
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

# A 1×1 convolution that doubles float [1, 1, 8, 8]: opset 17, IR 8. The tests build the same with
# onnx, which the base install lacks.
TEST_MODEL = base64.b64decode(
    "CAg6YwoPCgF4CgF3EgF5IgRDb252EgFnKhMIAQgBCAEIARABIgQAAABAQgF3WhsKAXgSFgoUCAESEAoCCAEKAggBCgII"
    "CAoCCAhiGwoBeRIWChQIARIQCgIIAQoCCAEKAggICgIICEIECgAQEQ=="
)


@dataclass(frozen=True)
class GPU:
    """An NVIDIA GPU, as nvidia-smi describes it.

    Attributes:
        name: the product's name.
        memory: in GiB; None where the GPU shares the machine's memory.
        driver: version of the driver.
    """

    name: str
    memory: float | None
    driver: str

    @property
    def line(self) -> str:
        """The name and the memory in one line."""
        return self.name if self.memory is None else f"{self.name} ({self.memory:.0f} GiB)"


@dataclass(frozen=True)
class Machine:
    """The hardware and the software of this machine; None or empty where unknown.

    Attributes:
        cpu: name of the CPU.
        physical_cores: number of cores of the machine.
        logical_cores: number of hardware threads of the machine.
        usable_cores: cores that affinity and the container's quota leave to this process.
        load: processes that ran or waited for a core, averaged over the last minute.
        memory: GiB of the machine, or of the container if that has less.
        features: the members of `FEATURES` that the CPU has.
        gpus: NVIDIA GPUs.
        system: operating system.
        python: Python version.
        versions: versions of nst, onnxruntime, opencv and torch as far as they are installed, each
            with the name of its package where that differs.
        torch_cuda: CUDA version that torch was built for.
    """

    cpu: str
    physical_cores: int | None
    logical_cores: int
    usable_cores: float
    load: float | None
    memory: float
    features: tuple[str, ...]
    gpus: tuple[GPU, ...]
    system: str
    python: str
    versions: dict[str, str]
    torch_cuda: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return all attributes, ready for JSON."""
        return asdict(self)

    @property
    def cpu_line(self) -> str:
        """The CPU's name, cores and features in one line."""
        cores = self.physical_cores or self.logical_cores
        line = f"{self.cpu}, {cores} core{'s' if cores != 1 else ''}"
        if self.logical_cores != cores:
            line += f" with {self.logical_cores} threads"
        if self.usable_cores < self.logical_cores:
            line += f", {self.usable_cores:g} of them usable"
        return line + (f" ({' '.join(self.features)})" if self.features else "")

    @property
    def line(self) -> str:
        """The machine in one line, as a benchmark prints it."""
        gpus = ", ".join(gpu.line for gpu in self.gpus) or "no GPU"
        runtime = self.versions.get("onnxruntime", "unknown")
        return f"{self.cpu_line}, {self.memory:.0f} GiB; {gpus}; ONNX Runtime {runtime}"


@dataclass(frozen=True)
class ProviderState:
    """The state of one execution provider on this machine.

    Attributes:
        name: nst's name for it, such as `cuda`.
        full_name: ONNX Runtime's name for it.
        hardware: the hardware that it computes on.
        installed: whether this ONNX Runtime was built with it.
        works: whether a small model ran on it.
        problem: reason why it does not work; empty if it works or is not installed.
        install: how to install it.
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
    """Whether this machine can train, and on which device.

    Attributes:
        missing: packages of the extra `train` that are not installed.
        device: device that `auto` will most likely choose: `cuda` or `cpu`.
    """

    missing: tuple[str, ...]
    device: str


def read_machine() -> Machine:
    """Read what this machine has, without loading torch."""
    import psutil

    name, features = read_cpu()
    return Machine(
        cpu=name or platform.processor() or platform.machine() or "unknown CPU",
        physical_cores=psutil.cpu_count(logical=False),
        logical_cores=os.cpu_count() or 1,
        usable_cores=usable_cores(),
        # psutil's emulation for Windows starts from 0 in each process.
        load=None if sys.platform == "win32" else os.getloadavg()[0],
        memory=min([psutil.virtual_memory().total, *memory_limits()]) / 2**30,
        features=tuple(feature for feature in FEATURES if feature in features),
        gpus=_gpus(),
        system=_system(),
        python=platform.python_version(),
        versions=_versions(),
        torch_cuda=_torch_cuda(),
    )


def check_providers() -> tuple[ProviderState, ...]:
    """Try every provider that nst knows with a small model."""
    installed = installed_providers()
    states = []
    for name, kind in KINDS.items():
        problem = _problem(name) if name in installed else ""
        works = name in installed and not problem
        facts = kind.full_name, kind.hardware, name in installed, works, problem, kind.install
        states.append(ProviderState(name, *facts))
    return tuple(states)


def auto_provider(states: tuple[ProviderState, ...]) -> str:
    """Return the name of the provider that `auto` takes."""
    works = {state.name for state in states if state.works}
    return next((name for name in AUTO if name in works), "cpu")


def check_training() -> TrainingState:
    """Check whether this machine can train, without loading torch."""
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
    """Return the MiB that all processes use on all NVIDIA GPUs; None without nvidia-smi."""
    used = [float(row[0]) for row in _nvidia_smi("memory.used") if row[0].isdigit()]
    return sum(used) if used else None


def _problem(provider: str) -> str:
    """Return why the test model does not run on a provider; empty if it does."""
    try:
        open_session(TEST_MODEL, "the test model", cast(Provider, provider), 1, _probe)
    except NstError as error:
        return str(error).rpartition(": ")[0]  # without the advice, which names nst info
    return ""


def _probe(session: onnxruntime.InferenceSession) -> None:
    x = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8)
    (y,) = session.run(None, {"x": x})
    if not np.allclose(y, 2 * x):
        raise RuntimeError("its results are wrong")


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
    """Return an installed package's version without importing it; None if it is missing."""
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
