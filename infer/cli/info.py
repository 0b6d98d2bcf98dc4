"""`nst info`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from nst.cli.console import Debug, command
from nst.cli.options import JsonOption

if TYPE_CHECKING:
    from nst.infer.diagnostics.machine import Machine, ProviderState, TrainingState


@command
def info_command(as_json: JsonOption = False, debug: Debug = False) -> None:
    """Show this machine's CPU, GPUs and versions, and which execution providers work."""
    from nst.infer.diagnostics.machine import (
        auto_provider,
        check_providers,
        check_training,
        read_machine,
    )

    machine, states, training = read_machine(), check_providers(), check_training()
    auto = auto_provider(states)
    if as_json:
        values = {
            "machine": machine.to_dict(),
            "providers": [asdict(state) for state in states],
            "auto": auto,
            "training": asdict(training),
        }
        print(json.dumps(values, indent=2))
    else:
        rows = [*_machine(machine), *_providers(states, auto), *_training(machine, training)]
        width = max(len(name) for name, _ in rows)
        print("\n".join(f"{name:<{width}}  {text}".rstrip() for name, text in rows))


def _machine(machine: Machine) -> Iterator[tuple[str, str]]:
    versions = machine.versions
    yield "nst", f"{versions.get('nst', 'not installed')}, Python {machine.python}"
    yield "system", machine.system
    yield "CPU", machine.cpu_line
    if machine.load is not None:
        yield "load", f"{machine.load:.2f} in the last minute"
    yield "memory", f"{machine.memory:.1f} GiB"
    for gpu in machine.gpus:
        yield "GPU", f"{gpu.line}, driver {gpu.driver}"
    if not machine.gpus:
        yield "GPU", "nvidia-smi lists none"
    yield "ONNX Runtime", versions.get("onnxruntime", "unknown")
    yield "OpenCV", versions.get("opencv", "unknown")


def _providers(states: tuple[ProviderState, ...], auto: str) -> Iterator[tuple[str, str]]:
    from nst.infer.runtime.providers import AUTO

    yield "", ""
    yield "provider", ""
    for state in states:
        if state.works:
            text = f"works ({state.hardware})"
        elif state.installed:
            text = f"does not work: {state.problem}; it needs: {state.install}"
        else:
            text = f"not installed ({state.hardware}): {state.install}"
        yield f"  {state.name}", text
    yield "  auto", f"uses {auto}, the first of {', '.join(AUTO)} that works"


def _training(machine: Machine, training: TrainingState) -> Iterator[tuple[str, str]]:
    yield "", ""
    if training.missing:
        missing = ", ".join(training.missing)
        yield "training", f"not possible without {missing}: pip install 'nst[train]'"
    else:
        cuda = f" for CUDA {machine.torch_cuda}" if machine.torch_cuda else ""
        torch = f"torch {machine.versions.get('torch', 'unknown')}{cuda}"
        yield "training", f"possible on {training.device}, {torch}"
