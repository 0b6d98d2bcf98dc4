"""Bad input through the commands: one line, the mend named, the right status, nothing left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer.main
from typer.testing import CliRunner

from nst.cli.app import app
from nst.config import ObjectiveConfig
from nst.errors import NstError
from nst.infer.runtime.stylizer import Stylizer
from nst.io.images import Array, load_image, save_image
from nst.models.transformer import TransformerConfig, TransformerNet
from nst.train.config import TrainConfig
from nst.train.config_file import KEYS
from nst.train.engine import trainer
from nst.train.run.checkpoint import save_checkpoint

COMMANDS = (
    "train",
    "image",
    "video",
    "webcam",
    "optimize",
    "export",
    "score",
    "inspect",
    "bench",
    "info",
)


def nst(*arguments: object) -> tuple[int, list[str]]:
    """Exit status and the lines on stderr."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stderr.splitlines()


def refused(status: int, arguments: Sequence[object], *words: object) -> None:
    got, lines = nst(*arguments)
    assert got == status, lines
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    for word in words:
        assert str(word) in lines[0]


def test_help_and_version() -> None:
    for arguments in ([], *([name] for name in COMMANDS)):
        result = CliRunner().invoke(app, [*arguments, "--help"])
        assert result.exit_code == 0
        assert "Usage" in result.output
    assert CliRunner().invoke(app, ["--version"]).output.startswith("nst ")


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "empty", "truncated"])
def test_bad_style_images(kind: str, bad_images: dict[str, Path], tmp_path: Path) -> None:
    style = bad_images[kind]
    refused(1, ["train", "--style", style, "--out", tmp_path / "run"], style)
    assert list(tmp_path.iterdir()) == []


def test_a_one_pixel_style(tmp_path: Path) -> None:
    save_image(tmp_path / "dot.png", np.zeros((1, 1, 3), np.uint8))
    refused(1, ["train", "--style", tmp_path / "dot.png", "--out", tmp_path / "run"], "1×1", "32")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1"])
@pytest.mark.parametrize("option", ["--style-weight", "--content-weight", "--tv-weight"])
def test_bad_weights(option: str, value: str, style_path: Path, tmp_path: Path) -> None:
    arguments = ["--style", style_path, "--out", tmp_path / "out.png", f"{option}={value}"]
    refused(2, ["train", *arguments], option[2:].replace("-", " "), "finite")
    refused(2, ["optimize", style_path, *arguments], "finite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--style-weights", "a,b"], "0.7,0.3"),
        (["--style-weights", "1,2"], "2 numbers for one style image"),
        (["--preset", "splendid"], "quality"),
        (["--steps", "0"], "steps"),
        (["--seconds", "nan"], "seconds"),
        (["--steps", "3", "--seconds", "3"], "choose one"),
        (["--batch-size", "0"], "batch size"),
        (["--size", "1"], "size"),
        (["--vgg", "resnet"], "FILE:caffe"),
    ],
)
def test_bad_options_of_train(
    arguments: list[str], word: str, style_path: Path, tmp_path: Path
) -> None:
    out = ["--out", tmp_path / "run"]
    refused(2, ["train", "--style", style_path, *out, *arguments], word)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the trainer is asked for; it trains nothing."""
    asked: list[Any] = []

    def stop(what: Any, *callbacks: Callable[[str], None]) -> None:
        asked.append(what)
        callbacks[-1]("a remark")
        raise NstError("enough")

    monkeypatch.setattr(trainer, "train_style", stop)
    monkeypatch.setattr(trainer, "resume_style", stop, raising=False)
    return asked


def test_the_options_of_train_are_those_of_its_config(style_path: Path, trained: list[Any]) -> None:
    assert nst("train", "--style", style_path) == (1, ["note: a remark", "error: enough"])
    assert trained == [TrainConfig(style=(style_path,))]
    options = {p.name for p in typer.main.get_command(app).commands["train"].params}  # type: ignore[attr-defined]
    assert options - set(KEYS) == {"stroke", "resume", "config", "save_config", "debug"}
    assert set(KEYS) <= options
    nst(
        *("train", "--style", "a.jpg", "--style", "b.jpg", "--style-weights", "3,1"),
        *("--content", "coco", "--stroke", 1.5, "--style-strength", 2, "--precision", "int8,fp16"),
        *("--max-memory", 6, "--teacher", "optimizer", "--style-layers", "relu1_1", "--no-score"),
    )
    assert trained[1] == TrainConfig(
        style=(Path("a.jpg"), Path("b.jpg")),
        style_weights=(3, 1),
        content=Path("coco"),
        objective=ObjectiveConfig(style_size=576, style_strength=2, style_layers=("relu1_1",)),
        precisions=("int8", "fp16"),
        max_memory=6,
        teacher="optimizer",
        score=False,
    )


def test_the_help_is_in_groups() -> None:
    for name, groups in {
        "train": ("How it looks", "Content", "Machine and memory", "Run and files", "Experts"),
        "optimize": ("How it looks", "Experts"),
        "score": ("Objective",),
    }.items():
        result = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "80"})
        assert all(group in result.output for group in groups)


def test_options_are_saved_and_used_again(
    style_path: Path, tmp_path: Path, trained: list[Any]
) -> None:
    file = tmp_path / "run.toml"
    common = ["train", "--style", style_path, "--seconds", 5, "--style-weight", 3, "--artist", "A"]
    status, lines = nst(*common, "--out", tmp_path / "run", "--save-config", file)
    assert status == 0
    assert len(lines) == 1
    assert f"--config {file}" in lines[0]
    assert list(tmp_path.iterdir()) == [file]
    assert trained == []
    nst("train", "--config", file)
    config = TrainConfig(
        style=(style_path,),
        seconds=5,
        objective=ObjectiveConfig(style_weight=3),
        artist="A",
        out=tmp_path / "run",
    )
    assert trained == [config]
    nst("train", "--config", file, "--steps", 9, "--style-strength", 2, "--style", "other.jpg")
    assert trained[1] == replace(
        config,
        style=(Path("other.jpg"),),
        steps=9,
        seconds=None,
        objective=ObjectiveConfig(style_strength=2),
        artist="",
    )


def test_bad_config_files(style_path: Path, tmp_path: Path, trained: list[Any]) -> None:
    file = tmp_path / "run.toml"
    refused(1, ["train", "--config", file], file, "does not exist")
    file.write_text("szie = 3")
    refused(2, ["train", "--config", file], file, "szie", "did you mean size?")
    file.write_text("size = 128")
    refused(2, ["train", "--config", file], "--style")
    save = ["train", "--style", style_path, "--save-config"]
    refused(2, [*save, style_path], style_path, "run.toml")
    style = tmp_path / "style.toml"
    style.write_bytes(style_path.read_bytes())
    refused(2, ["train", "--style", style, "--save-config", style], "overwrite")
    assert style.read_bytes() == style_path.read_bytes()
    (tmp_path / "folder.toml").mkdir()
    refused(1, [*save, tmp_path / "folder.toml"], "folder")
    refused(1, [*save, file / "below.toml"], "cannot write")
    assert trained == []


def test_resume_stands_alone(style_path: Path, tmp_path: Path, trained: list[Any]) -> None:
    assert nst("train", "--resume", tmp_path) == (1, ["note: a remark", "error: enough"])
    assert trained == [tmp_path]
    for more in (["--style", style_path], ["--save-every", 60], ["--score"], ["--config", "a"]):
        refused(2, ["train", "--resume", tmp_path, *more], "--resume", f"leave out {more[0]}")
    debug = ["train", "--resume", str(tmp_path), "--debug"]
    assert str(CliRunner().invoke(app, debug).exception) == "enough"


def test_one_of_two_options_that_stand_for_the_same(
    style_path: Path, model_path: Path, tmp_path: Path
) -> None:
    for command in (
        ["train", "--style", style_path],
        ["optimize", style_path, "--style", style_path, "--out", tmp_path / "a.png"],
        ["score", model_path, "--style", style_path],
    ):
        both = ["--style-strength", 1, "--style-weight", 5]
        refused(2, [*command, *both], "--style-strength", "--style-weight", "choose one")
        refused(2, [*command, "--style-strength", "0"], "style strength")
    for command in (
        ["train", "--style", style_path],
        ["optimize", style_path, "--style", style_path, "--out", tmp_path / "a.png"],
    ):
        refused(2, [*command, "--stroke", 1, "--style-size", 384], "--stroke", "choose one")
        for stroke in ("nan", "0", "11", "-1"):
            refused(2, [*command, f"--stroke={stroke}"], "stroke")


def test_bad_content_folders(tmp_path: Path, style_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    common = ["train", "--style", style_path, "--out", tmp_path / "run", "--content"]
    refused(1, [*common, tmp_path / "empty"], tmp_path / "empty", "no usable image")
    refused(1, [*common, tmp_path / "nowhere"], "not a folder")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is present")
def test_cuda_without_a_gpu(style_path: Path, model_path: Path, tmp_path: Path) -> None:
    for arguments in (
        ["train", "--style", style_path, "--out", tmp_path / "run"],
        ["optimize", style_path, "--style", style_path, "--out", tmp_path / "a.png"],
        ["score", model_path, "--style", style_path],
    ):
        refused(1, [*arguments, "--device", "cuda"], "device cpu")
    image = ["image", style_path, "--style", model_path, "--out", tmp_path / "a.png"]
    for provider in ("cuda", "tensorrt", "openvino", "coreml", "directml"):
        refused(1, [*image, "--provider", provider], provider)
    assert list(tmp_path.iterdir()) == []


def test_unknown_providers_and_precisions(
    style_path: Path, model_path: Path, tmp_path: Path
) -> None:
    out = ["--out", tmp_path / "a.png"]
    got, lines = nst("image", style_path, "--style", model_path, *out, "--provider", "tpu")
    assert got == 2
    assert "tpu" in "".join(lines)
    train = ["train", "--style", style_path, "--out", tmp_path / "run"]
    for precision in ("int4", "fp32,fp32", ""):
        refused(2, [*train, "--precision", precision], "precision")
        refused(2, ["export", model_path, "--precision", precision], "precision")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, style_path: Path) -> Path:
    """A small untrained network's checkpoint, with its style image."""
    torch.manual_seed(1)
    network = TransformerNet(TransformerConfig(width=4, blocks=1))
    path = tmp_path_factory.mktemp("run") / "stripes.safetensors"
    config = {"objective": asdict(ObjectiveConfig(style_size=64)), "style_weights": []}
    metadata = {"title": "Stripes", "config": json.dumps(config)}
    save_checkpoint(path, network, metadata, [load_image(style_path)])
    return path


def test_export_from_a_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    status, lines = nst("export", checkpoint, "--precision", "fp32,int8", "--out", tmp_path)
    assert status == 0
    assert {p.name for p in tmp_path.iterdir()} == {"stripes.onnx", "stripes-int8.onnx"}
    assert any("against fp32" in line for line in lines)
    with Stylizer(tmp_path / "stripes-int8.onnx") as stylizer:
        assert stylizer.name == "Stripes"
        assert stylizer.precision == "int8"
        assert "loss_over_fp32" in stylizer.metadata
    one = tmp_path / "one.onnx"
    assert nst("export", checkpoint, "--precision", "fp16", "--out", one)[0] == 0
    with Stylizer(one, provider="cpu") as stylizer:
        assert stylizer.precision == "fp16"


def test_export_names_the_content_that_it_cannot_read(
    checkpoint: Path, tmp_path: Path, photograph: Array
) -> None:
    save_image(tmp_path / "photos" / "good.png", photograph)
    (tmp_path / "photos" / "bad.jpg").write_text("no image")
    arguments = ["--content", tmp_path / "photos", "--out", tmp_path / "out"]
    status, lines = nst("export", checkpoint, *arguments)
    assert status == 0
    assert sum("bad.jpg" in line and line.startswith("skipped: ") for line in lines) == 1
    assert (tmp_path / "out" / "stripes-int8.onnx").exists()


def test_bad_input_of_export(
    checkpoint: Path, tmp_path: Path, bad_images: dict[str, Path], style_path: Path
) -> None:
    refused(1, ["export", tmp_path / "typo" / "none.safetensors"], "does not exist")
    assert not (tmp_path / "typo").exists()
    refused(1, ["export", style_path, "--out", tmp_path / "out"], "is no checkpoint")
    both = ["export", checkpoint, "--precision", "fp16,int8", "--out", tmp_path / "a.onnx"]
    refused(2, both, "name a folder")
    refused(
        1,
        ["export", checkpoint, "--out", tmp_path / "out", "--style", bad_images["text"]],
        bad_images["text"],
    )
    (tmp_path / "empty").mkdir()
    refused(
        1,
        ["export", checkpoint, "--out", tmp_path / "out", "--content", tmp_path / "empty"],
        "no usable image",
    )
    assert not list(tmp_path.rglob("*.onnx"))


def test_score(model_path: Path, style_path: Path, tmp_path: Path, photograph: Array) -> None:
    save_image(tmp_path / "photos" / "a.png", photograph)
    (tmp_path / "photos" / "b.jpg").write_text("no image")
    common = ["score", model_path, "--style", style_path, "--content", tmp_path / "photos"]
    common += ["--iterations", "1", "--device", "cpu", "--style-size", "64"]
    result = CliRunner().invoke(
        app, [str(a) for a in (*common, "--json", "--plot", tmp_path / "a.png")]
    )
    assert result.exit_code == 1, result.output  # one photograph could not be read
    found = json.loads(result.stdout)
    assert found["objective"]["style_size"] == 64
    assert len(found["photographs"]) == 1
    assert load_image(tmp_path / "a.png").std() > 10
    lines = result.stderr.splitlines()
    assert any("b.jpg" in line for line in lines)
    # The tiny model says that it learned from another image.
    assert any("is not the style image" in line for line in lines)
    table = CliRunner().invoke(app, [str(a) for a in common]).stdout
    assert "iterations of the optimiser" in table
    assert "photographs as they are" in table


def test_bad_input_of_score(
    model_path: Path, style_path: Path, tmp_path: Path, bad_images: dict[str, Path]
) -> None:
    common = ["score", model_path, "--style", style_path]
    (tmp_path / "empty").mkdir()
    refused(1, [*common, "--content", tmp_path / "empty"], "no usable image")
    refused(1, [*common, "--content", tmp_path / "nowhere"], "does not exist")
    refused(1, [*common, "--content", bad_images["text"]], bad_images["text"])
    refused(2, [*common, "--iterations", "0"], "iterations")
    refused(2, [*common, "--iterations", "1001"], "iterations")
    refused(2, [*common, "--plot", tmp_path / "a.jpg"], "PNG")
    refused(2, [*common, "--style-weight", "nan"], "finite")
    missing = ["score", model_path, "--style", bad_images["missing"]]
    refused(1, [*missing, "--plot", tmp_path / "new" / "a.png"], "does not exist")
    assert not (tmp_path / "new").exists()
    refused(1, ["score", tmp_path / "none.onnx", "--style", style_path], "does not exist")
    refused(1, ["score", bad_images["text"], "--style", style_path], "not an ONNX model")


def test_a_model_that_is_not_ours(tmp_path: Path, style_path: Path) -> None:
    (tmp_path / "bad.onnx").write_text("no model")
    out = tmp_path / "a.png"
    common = ["image", style_path, "--out", out, "--style"]
    refused(1, [*common, tmp_path / "bad.onnx"], "bad.onnx", "nst-train")
    refused(1, [*common, tmp_path / "none.onnx"], "none.onnx")
    refused(1, [*common, style_path], style_path)
    assert not out.exists()


def test_bad_options_of_image(tmp_path: Path, style_path: Path, model_path: Path) -> None:
    common = ["image", style_path, "--style", model_path, "--out", tmp_path / "a.png"]
    refused(2, [*common, "--strength", "2"], "strength")
    refused(2, [*common, "--strength", "nan"], "strength")
    refused(2, [*common, "--quality", "0"], "quality")
    refused(2, ["image", style_path, "--style", model_path, "--out", style_path], "overwrite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", ["nan", "inf", "256.7", "", "9", "512,256"])
def test_bad_sizes_of_optimize(size: str, style_path: Path, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "a.png"]
    refused(2, ["optimize", style_path, "--style", style_path, *out, "--size", size], "size")
    refused(2, ["optimize", style_path, "--style", style_path, "--out", style_path], "overwrite")


def test_bad_targets(tmp_path: Path, style_path: Path, model_path: Path) -> None:
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "deeper"
    refused(1, ["train", "--style", style_path, "--out", below], "cannot write", "another path")
    optimize = ["optimize", style_path, "--style", style_path, "--iterations", 1, "--size", 64]
    refused(1, [*optimize, "--out", tmp_path], "folder")
    refused(1, [*optimize, "--out", tmp_path / "a.xyz"], ".png")
    refused(1, [*optimize, "--out", below / "a.png"], "cannot write")
    status, lines = nst("image", style_path, "--style", model_path, "--out", below / "a.png")
    assert status == 1
    assert sum(line.startswith("error: cannot write") for line in lines) == 1


def limited(command: Sequence[object], most_bytes: int) -> subprocess.CompletedProcess[str]:
    """Run with a limit on the size of files, which fails a write midway as a full disk does."""
    resource = pytest.importorskip("resource", reason="no limits on this system")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    words = [sys.executable, "-m", "nst", *map(str, command)]
    return subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=300, preexec_fn=limit
    )


def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, model_path: Path, photograph: Array
) -> None:
    save_image(tmp_path / "a.png", photograph)
    out = tmp_path / "out" / "b.png"
    done = limited(["image", tmp_path / "a.png", "--style", model_path, "--out", out], 5000)
    assert done.returncode == 1
    assert done.stderr.count("error: cannot write") == 1
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_after_training(tmp_path: Path, style_path: Path) -> None:
    run = ["train", "--style", style_path, "--steps", 1, "--size", 64, "--style-size", 64]
    done = limited([*run, "--out", tmp_path / "run"], 1_000_000)
    assert done.returncode == 1
    assert done.stderr.count("error: cannot write") == 1
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "run").rglob("*"))


def test_folders_and_names_that_the_system_refuses(tmp_path: Path, model_path: Path) -> None:
    for name in ("x" * 300 + ".png", "a\0b.png"):
        status, lines = nst("image", name, "--style", model_path, "--out", tmp_path / "a.png")
        assert status == 1
        assert sum(line.startswith("error: ") for line in lines) == 1


def test_optimize_writes_the_image_and_every_kth(tmp_path: Path, style_path: Path) -> None:
    out = tmp_path / "a.png"
    arguments = ["--style", style_path, "--style-size", 64, "--size", "48,64", "--iterations", 4]
    status, lines = nst("optimize", style_path, *arguments, "--save-every", 3, "--out", out)
    assert status == 0, lines
    assert "total loss" in lines[-1]
    assert {p.name for p in tmp_path.iterdir()} == {"a.png", "a-0003.png", "a-0006.png"}
    assert max(load_image(out).shape) == 64


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nst", "optimize", "none.jpg", "--style", "none.jpg"]
    command += ["--out", str(tmp_path / "a.png"), "--debug"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_nst_train_is_nst_train(style_path: Path, tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("nst-train")
    run = [str(command), "--style", str(style_path), "--steps", "1", "--size", "64"]
    run += ["--style-size", "64", "--samples", "0", "--no-score"]
    run += ["--out", str(tmp_path / "run")]
    done = subprocess.run(
        run, capture_output=True, text=True, timeout=300, check=False, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / f"{style_path.stem}.onnx").is_file()
    assert "held-out photographs: total loss" in done.stderr
