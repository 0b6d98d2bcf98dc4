"""Imports run one way, and what needs no torch loads none."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import nst

# What each package may import of ours; `nst/__init__.py` and `nst/__main__.py` alone look up.
ALLOWED = {
    "nst": {"nst"},
    "models": {"models"},
    "infer": {"nst", "models", "infer"},
    "train": {"nst", "models", "infer", "train"},
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} has a relative import"
            names |= {node.module} | {f"{node.module}.{a.name}" for a in node.names}
    return {name for name in names if name == "nst" or name.startswith("nst.")}


def floor(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ALLOWED else "nst"


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_run_one_way(root: Path, folder: str) -> None:
    files = sorted((root / folder).rglob("*.py"))
    assert files
    for path in files:
        if path.name in ("__init__.py", "__main__.py") and folder == "nst":
            continue
        for module in imported(path):
            assert floor(module) in ALLOWED[folder], f"{path} imports {module}"


def test_no_torch_in_infer(root: Path) -> None:
    for path in (root / "infer").rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "torch" for name in names), path


def loaded_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.splitlines()[-1].split())


def test_import_nst_loads_nothing_heavy() -> None:
    heavy = {"torch", "onnxruntime", "numpy", "cv2", "PIL", "typer"}
    assert not heavy & loaded_after("import nst")


def test_import_infer_loads_no_torch() -> None:
    loaded = loaded_after(
        "import pkgutil, nst.infer, importlib\n"
        "for module in pkgutil.iter_modules(nst.infer.__path__):\n"
        "    importlib.import_module(f'nst.infer.{module.name}')"
    )
    assert "onnxruntime" in loaded
    assert not {"torch", "torchvision", "onnx"} & loaded


@pytest.mark.parametrize(
    "command", ["image", "train", "optimize", "export", "score", "inspect", "bench", "info"]
)
def test_help_loads_neither_torch_nor_onnxruntime(command: str) -> None:
    code = (
        f"import sys; sys.argv = ['nst', '{command}', '--help']\n"
        "from nst.cli.app import app\n"
        "try: app()\nexcept SystemExit: pass"
    )
    assert not {"torch", "onnxruntime"} & loaded_after(code)


def test_every_public_name_resolves() -> None:
    for name in nst.__all__:
        assert getattr(nst, name) is not None
    assert set(nst.__all__) <= set(dir(nst))
    with pytest.raises(AttributeError, match="wibble"):
        nst.wibble  # noqa: B018


def test_a_missing_extra_says_what_to_install() -> None:
    code = (
        "import sys\nsys.modules['torch'] = None\nimport nst\n"
        "try: nst.optimize\nexcept nst.NstError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'nst[train]'" in done.stdout
