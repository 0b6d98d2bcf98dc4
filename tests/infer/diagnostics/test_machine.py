"""`nst info`: facts read from files and tools that the tests set up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import typer
from onnx import TensorProto, helper
from typer.testing import CliRunner

from nst.infer.cli import info as cli_info
from nst.infer.diagnostics import machine
from nst.infer.diagnostics.machine import (
    auto_provider,
    check_providers,
    check_training,
    gpu_memory_used,
    read_machine,
)
from nst.infer.runtime import providers
from nst.system import cpu

posix = pytest.mark.skipif(os.name != "posix", reason="a shell script stands in for nvidia-smi")


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name, first on the path; the test writes what it does."""
    path = tmp_path / "nvidia-smi"
    path.write_text("#!/bin/sh\nexit 9\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return path


def test_this_machine() -> None:
    here = read_machine()
    assert here.cpu
    assert 0 < here.usable_cores <= here.logical_cores == os.cpu_count()
    assert here.physical_cores is None or 0 < here.physical_cores <= here.logical_cores
    assert here.memory > 0.1
    assert here.load is None or here.load >= 0
    assert set(here.features) <= set(machine.FEATURES)
    assert here.python == ".".join(map(str, sys.version_info[:3]))
    assert {"nst", "onnxruntime", "opencv", "torch"} <= set(here.versions)
    assert json.loads(json.dumps(here.to_dict()))["cpu"] == here.cpu
    assert "\n" not in here.line
    assert here.cpu in here.line


@posix
def test_a_bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "read_text", lambda _: "")
    monkeypatch.setattr(machine, "output", lambda _: "")
    monkeypatch.setattr(cpu, "read_text", lambda _: "")
    monkeypatch.setattr(machine, "package_version", lambda _: None)
    here = read_machine()
    assert here.cpu
    assert here.features == here.gpus == ()
    assert here.versions == {}
    assert here.line


@posix
def test_nvidia_smi(nvidia_smi: Path) -> None:
    assert read_machine().gpus == ()
    assert gpu_memory_used() is None
    nvidia_smi.write_text(
        '#!/bin/sh\ncase "$1" in\n'
        "*memory.used*) echo 512; echo 1024;;\n"
        '*) echo "NVIDIA H100 80GB HBM3, 81559, 570.1"; echo "NVIDIA GB10, [N/A], 570.1";;\nesac\n'
    )
    first, second = read_machine().gpus
    assert first == machine.GPU("NVIDIA H100 80GB HBM3", 79.6, "570.1")
    assert second.memory is None
    assert gpu_memory_used() == 1536
    assert "NVIDIA H100 80GB HBM3 (80 GiB), NVIDIA GB10;" in read_machine().line
    nvidia_smi.write_text("#!/bin/sh\necho No devices were found\n")
    assert read_machine().gpus == ()
    assert gpu_memory_used() is None


def test_the_built_in_model() -> None:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, 8, 8]) for n in "xy")
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1, 1, 1, 1], [2.0])
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    made = helper.make_model(
        helper.make_graph([node], "g", [x], [y], [weight]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    assert onnx.load_from_string(machine.TEST_MODEL) == made


def test_providers_are_tried() -> None:
    states = {state.name: state for state in check_providers()}
    assert set(states) == set(providers.KINDS)
    assert states["cpu"].works
    for state in states.values():
        assert state.installed == (state.name in providers.installed_providers())
        assert bool(state.problem) == (state.installed and not state.works)
        assert state.install == providers.KINDS[state.name].install


@pytest.mark.skipif("openvino" in providers.installed_providers(), reason="it would load")
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_listed_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime lists what it was built with, whether or not it loads."""
    monkeypatch.setattr(machine, "installed_providers", lambda: ("openvino", "cpu"))
    monkeypatch.setattr(providers, "installed_providers", lambda: ("openvino", "cpu"))
    states = {state.name: state for state in check_providers()}
    assert states["openvino"].installed
    assert not states["openvino"].works
    assert "does not load" in states["openvino"].problem
    assert "nst info" not in states["openvino"].problem
    assert not states["cuda"].installed
    assert auto_provider(tuple(states.values())) == "cpu"


def test_auto_takes_the_first_that_works() -> None:
    states = [
        machine.ProviderState(name, "", "", True, name in ("directml", "openvino", "cpu"), "", "")
        for name in ("cpu", "cuda", "directml", "openvino")
    ]
    assert auto_provider(tuple(states)) == "openvino"
    assert auto_provider(()) == "cpu"


def test_training(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_training().missing == ()
    monkeypatch.setattr(machine, "cuda_devices", lambda: 1)
    monkeypatch.setattr(machine, "_torch_cuda", lambda: "13.0")
    assert check_training().device == "cuda"
    monkeypatch.setattr(machine, "_torch_cuda", lambda: None)
    assert check_training().device == "cpu"
    installed = machine.package_version
    without = {"torch", "onnx", "numpy"}
    monkeypatch.setattr(
        machine, "package_version", lambda name: None if name in without else installed(name)
    )
    assert check_training().missing == ("torch", "onnx")


def info(*arguments: str) -> str:
    app = typer.Typer()
    app.callback()(lambda: None)
    app.command("info")(cli_info.info_command)
    result = CliRunner().invoke(app, ["info", *arguments])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def test_info_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    text = info()
    here = read_machine()
    assert here.cpu in text
    for name in providers.KINDS:
        assert f"\n  {name}" in text
    assert "auto" in text
    assert "possible on" in text
    installed = machine.package_version
    monkeypatch.setattr(
        machine, "package_version", lambda name: None if name == "torch" else installed(name)
    )
    assert "not possible without torch: pip install 'nst[train]'" in info()


def test_info_as_json() -> None:
    values = json.loads(info("--json"))
    assert values["machine"]["cpu"] == read_machine().cpu
    assert {row["name"] for row in values["providers"]} == set(providers.KINDS)
    assert values["auto"] in providers.AUTO
    assert values["training"]["missing"] == []


def test_no_torch_is_loaded_for_it() -> None:
    code = (
        "import sys\nfrom nst.infer.diagnostics import bench, bench_worker, machine as m\n"
        "m.read_machine(), m.check_providers(), m.check_training()\n"
        "assert not {'torch', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
