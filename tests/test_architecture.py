"""Imports run one way and in no circle, and what needs no torch loads none."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import nst

# What each folder may import of ours; `nst/__init__.py` and the root of the command look up.
ALLOWED = {
    "nst": {"nst"},
    "models": {"models"},
    "infer": {"nst", "models", "infer"},
    "train": {"nst", "models", "infer", "train"},
}
LOOKING_UP = {"nst", "nst.cli.app"}
ROOT = Path(__file__).parent.parent
COMMANDS = (
    *("image", "video", "webcam", "train", "optimize", "color", "export"),
    *("score", "inspect", "flicker", "bench", "info"),
)
HEAVY = frozenset(
    {
        *("torch", "torchvision", "onnx", "onnxruntime", "numpy", "cv2", "av", "PIL", "psutil"),
        *("matplotlib", "scipy", "skimage", "sklearn", "safetensors", "pydantic", "rich"),
    }
)


def modules() -> dict[str, Path]:
    """Every module of ours by its dotted name."""
    found = {}
    for folder in ALLOWED:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            parts = parts if folder == "nst" else ["nst", *parts]
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imported(path: Path) -> set[str]:
    """Names that a file imports anywhere, below `if TYPE_CHECKING` and in functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} has a relative import"
            names |= {node.module} | {f"{node.module}.{a.name}" for a in node.names}
    return names


IMPORTS = {name: imported(path) for name, path in MODULES.items()}
OURS = {name: {n for n in found if n in MODULES} - {name} for name, found in IMPORTS.items()}


def top(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ALLOWED else "nst"


def room(module: str) -> str:
    """The room of a module: `nst.train.engine` of `nst.train.engine.loop`, or the module itself."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    return module if package in ("nst", "nst.models", "nst.train", "nst.infer") else package


def assert_no_circle(graph: dict[str, Iterable[str]]) -> None:
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names it


def test_every_folder_of_code_is_a_package() -> None:
    for path in MODULES.values():
        assert (path.parent / "__init__.py").is_file(), path.parent
    assert len(MODULES) > 100


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_run_one_way(folder: str) -> None:
    own = [name for name in MODULES if top(name) == folder and name not in LOOKING_UP]
    assert own
    for name in own:
        for module in OURS[name]:
            assert top(module) in ALLOWED[folder], f"{name} imports {module}"


def test_no_module_is_in_a_circle() -> None:
    # A package that is imported for a module in it is none of that module's needs.
    assert_no_circle(
        {name: found for name, found in OURS.items() if name not in ("nst", "nst.__main__")}
    )


def test_no_room_is_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for name, found in OURS.items():
        if name not in LOOKING_UP | {"nst.__main__"}:
            rooms = {room(module) for module in found if MODULES[module].name != "__init__.py"}
            graph.setdefault(room(name), set()).update(rooms - {room(name)})
    assert_no_circle(graph)


def test_commands_stand_on_top() -> None:
    for name, found in OURS.items():
        if ".cli." not in name and name not in LOOKING_UP | {"nst.__main__"}:
            assert not [module for module in found if ".cli" in module], name


def test_no_torch_in_infer() -> None:
    for name, found in IMPORTS.items():
        if top(name) == "infer":
            assert not {n for n in found if n.split(".")[0] in ("torch", "torchvision")}, name


def loaded_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.splitlines()[-1].split())


def test_import_nst_loads_nothing_heavy() -> None:
    assert not (HEAVY | {"typer"}) & loaded_after("import nst")


def test_import_infer_loads_no_torch() -> None:
    names = [name for name in MODULES if top(name) == "infer"]
    assert len(names) > 30
    loaded = loaded_after(f"import importlib\nfor name in {names!r}: importlib.import_module(name)")
    assert "onnxruntime" in loaded
    assert not {"torch", "torchvision", "onnx"} & loaded


def test_onnx_runtime_reports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its events would wait for their upload in the user's cache."""
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    assert "onnxruntime" in loaded_after("import nst.infer.runtime.providers")
    assert not list(tmp_path.rglob("*onnxruntime*"))


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_loads_nothing_heavy(command: str) -> None:
    """Else it takes a second: `nst --help` is what a newcomer sees first."""
    code = (
        f"import sys; sys.argv = ['nst', *'{command}'.split(), '--help']\n"
        "from nst.cli.app import app\n"
        "try: app()\nexcept SystemExit as end: assert not end.code"
    )
    assert not HEAVY & loaded_after(code)


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


def rooms() -> list[tuple[str, str]]:
    """The folders of the four, and what their packages say of themselves."""
    found = []
    for folder in ALLOWED:
        for path in sorted((ROOT / folder).rglob("__init__.py")):
            words = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
            name = path.parent.relative_to(ROOT).as_posix() + "/"
            found.append((name, words.partition("\n")[0].rstrip(".")))
    return found


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_the_tree_of_the_docs_is_that_of_the_folders(page: str) -> None:
    """A line a room: its folder and the first line of its package's docstring."""
    text = (ROOT / page).read_text("utf-8")
    tree = re.search(r"```\n(nst/ .*?)```", text, re.S)
    assert tree, f"{page} shows no tree"
    shown, above = [], ""
    for line in tree[1].splitlines():
        match = re.fullmatch(r"( *)(\w+/) +(.+)", line)
        assert match, line
        above = above if match[1] else match[2]
        shown.append((above + match[2] if match[1] else match[2], match[3]))
    expected = rooms()
    assert [x for x in shown if x[0] != "tests/"] == expected
