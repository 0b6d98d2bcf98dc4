"""`nst bench`: the table, the JSON, the reference with and without torch, bad input."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import typer
from onnx import helper
from typer.testing import CliRunner

from nst.infer.diagnostics.bench import BenchConfig, Measurement
from nst.infer.diagnostics.machine import read_machine
from nst.models.config import PRESETS, TransformerConfig
from nst.train.cli import bench as cli_bench
from nst.train.config import PRECISIONS
from nst.train.export.macs import count_macs

QUICK = ("--seconds", "0.01", "--size", "40x32", "--threads", "1")


def nst(*arguments: object) -> tuple[int, str, str]:
    """Exit status, stdout, stderr."""
    app = typer.Typer()
    app.callback()(lambda: None)
    app.command("bench")(cli_bench.bench_command)
    result = CliRunner().invoke(app, ["bench", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def small_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    for preset in list(PRESETS):
        monkeypatch.delitem(PRESETS, preset)
    monkeypatch.setitem(PRESETS, "quality", TransformerConfig(width=4, blocks=1))


def read_table(text: str) -> list[dict[str, str]]:
    """The rows of a GitHub Markdown table below one line of text and an empty one."""
    head, empty, *lines = text.rstrip("\n").split("\n")
    assert head
    assert not empty
    rows = []
    for line in lines:
        assert line.startswith("| ")
        assert line.endswith(" |")
        cells = line.replace("\\|", "\0")[2:-2].split(" | ")
        rows.append([cell.replace("\0", "|") for cell in cells])
    names, rules, *rest = rows
    assert all(set(rule) <= set("-:") and len(rule) >= 3 for rule in rules)
    assert all(len(row) == len(names) == len(rules) for row in rest)
    assert all(cell for row in rest for cell in row)
    return [dict(zip(names, row, strict=True)) for row in rest]


@pytest.mark.usefixtures("small_preset")
def test_the_presets_are_measured() -> None:
    status, out, err = nst(*QUICK, "--size", "64×48")
    assert status == 0, err
    assert err == ""
    assert read_machine().cpu in out.splitlines()[0]
    rows = read_table(out)
    assert {row["preset"] for row in rows} == {"quality"}
    assert [row["precision"] for row in rows[: len(rows) // 2]] == list(PRECISIONS)
    assert {row["size"] for row in rows} == {"40×32", "64×48"}
    assert rows[0]["speed-up"] == "1.00"
    assert "failed" not in rows[0]
    for row in rows:
        assert 0 < float(row["ms"]) <= float(row["p95"])
        assert int(row["n"]) >= 5
        assert float(row["GMAC"]) > 0


@pytest.mark.usefixtures("small_preset")
def test_presets_leave_no_path_that_is_gone() -> None:
    status, out, err = nst(*QUICK, "--json")
    assert status == 0, err
    assert {row["path"] for row in json.loads(out)["results"]} == {""}


def test_json_and_a_file_as_reference(model_path: Path, tmp_path: Path) -> None:
    model = onnx.load(model_path)
    del model.metadata_props[:]
    helper.set_model_props(model, {"title": "stated", "macs_per_pixel": "1e6"})
    onnx.save(model, tmp_path / "stated.onnx")
    helper.set_model_props(model, {"title": "counted"})
    onnx.save(model, tmp_path / "counted.onnx")
    paths = (tmp_path / "stated.onnx", tmp_path / "counted.onnx")
    status, out, err = nst(*paths, "--reference", model_path, "--json", *QUICK)
    assert status == 0, err
    values = json.loads(out)
    here = replace(read_machine(), load=values["machine"]["load"])
    assert values["machine"] == json.loads(json.dumps(here.to_dict()))
    assert values["config"]["threads"] == 1
    tiny, stated, counted = values["results"]
    assert (tiny["model"], tiny["reference"], tiny["speedup"]) == ("Tiny", True, 1)
    assert (tiny["width"], tiny["height"]) == (40, 32)
    assert stated["speedup"] == pytest.approx(tiny["milliseconds"] / stated["milliseconds"])
    # What can be counted is counted; what a file states is for those who have no onnx.
    for row in (stated, counted):
        assert row["gmac"] == pytest.approx(count_macs(model, (32, 40)) / 1e9)


def test_what_a_file_states_where_nothing_can_be_counted(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load(model_path)
    helper.set_model_props(model, {"title": "stated", "macs_per_pixel": "1e6"})
    onnx.save(model, tmp_path / "stated.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    arguments = (tmp_path / "stated.onnx", "--reference", "none", "--json", *QUICK)
    status, out, err = nst(*arguments)
    assert status == 0, err
    (row,) = json.loads(out)["results"]
    assert row["gmac"] == pytest.approx(1e6 * 40 * 32 / 1e9)


def test_a_provider_that_fails_is_a_row(model_path: Path) -> None:
    providers = ("--provider", "cpu", "--provider", "openvino", "--provider", "cpu")
    status, out, _ = nst(model_path, "--reference", model_path, *providers, *QUICK)
    assert status == 1
    works, fails = read_table(out)  # the model is the reference: measured once
    assert works["failed"] == "–"
    assert works["speed-up"] == "1.00"
    assert "openvino is not installed" in fails["failed"]
    assert fails["ms"] == fails["fps"] == fails["GMAC"] == "–"


def test_defaults_are_the_librarys() -> None:
    config = BenchConfig()
    assert tuple(f"{width}x{height}" for height, width in config.sizes) == cli_bench.SIZES
    options = inspect.signature(cli_bench.bench_command).parameters
    for name in ("seconds", "batch", "threads"):
        assert options[name].default == getattr(config, name)


def test_a_table_of_awkward_names() -> None:
    row = Measurement("a | b\nc", "p", "", "", "cuda", (480, 640), 1, 0.0123, 1234.5, 7.0, 3)
    line, _, *_ = cli_bench.table(read_machine(), BenchConfig(), [row]).splitlines()
    assert "one thread per core" in line
    (cells,) = read_table(cli_bench.table(read_machine(), BenchConfig(), [row]))
    assert cells["model"] == "a | b c"
    assert cells["preset"] == "–"
    assert (cells["ms"], cells["p95"], cells["fps"]) == ("0.0123", "1234", "7.00")
    assert "speed-up" not in cells
    assert "GPU MiB" not in cells


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["none.onnx"], 1, ["none.onnx", "does not exist"]),
        (["text.onnx"], 1, ["text.onnx", "not an ONNX model"]),
        (["."], 1, ["folder"]),
        (["--reference", "fastest"], 1, ["fastest", "quality"]),
        (["--reference", "text.onnx"], 1, ["text.onnx", "not an ONNX model"]),
        (["--precision", "fp8"], 2, ["fp8", "fp32"]),
        (["--provider", "tpu"], 2, ["tpu", "cuda"]),
        (["--size", "axb"], 2, ["axb", "640x480"]),
        (["--size", "0x0"], 2, ["height", "32"]),
        (["--size", "640x31"], 2, ["height", "32"]),
        (["--size", "640"], 2, ["640", "640x480"]),
        (["--seconds", "0"], 2, ["seconds"]),
        (["--seconds", "nan"], 2, ["seconds"]),
        (["--threads", "-1"], 2, ["threads"]),
        (["--batch", "0"], 2, ["batch"]),
    ],
)
def test_bad_input(
    arguments: list[str],
    status: int,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.onnx").write_text("no model")
    got, out, err = nst(*arguments)
    assert got == status, err
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert all(word in line for word in words), line


def test_without_torch(model_path: Path) -> None:
    """The reference is left out with a line; with nothing else to measure, that is an error."""
    code = (
        "import sys\nsys.modules['torch'] = None\nimport json, typer\n"
        "from typer.testing import CliRunner\nfrom nst.train.cli import bench\n"
        "app = typer.Typer()\napp.callback()(lambda: None)\n"
        "app.command('bench')(bench.bench_command)\n"
        "for extra in (sys.argv[1:], []):\n"
        f"    r = CliRunner().invoke(app, ['bench', *{QUICK}, *extra])\n"
        "    print(json.dumps([r.exit_code, r.stdout, r.stderr]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(model_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    with_model, without = map(json.loads, done.stdout.splitlines())
    status, out, err = with_model
    assert status == 0, err
    (row,) = read_table(out)
    assert row["model"] == "Tiny"
    assert "speed-up" not in row
    assert float(row["GMAC"]) > 0  # onnx is there
    assert len(err.splitlines()) == 1
    assert "going on without" in err
    assert "pip install 'nst[train]'" in err
    status, out, err = without
    assert (status, out) == (1, "")
    assert "pip install 'nst[train]'" in err
    assert len(err.splitlines()) == 1
