"""Config files: what is saved comes back, what is wrong is named in one line."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nst.config import VGG_LAYERS
from nst.errors import NstError, UsageError
from nst.train.config import PRECISIONS, TrainConfig
from nst.train.config_file import (
    KEYS,
    flat_options,
    load_config,
    make_config,
    merge_options,
    save_config,
)

ROOT = Path(Path.cwd().anchor)
names = st.text(
    st.characters(exclude_characters="/\\:\0", exclude_categories=("Cs",)), min_size=1, max_size=9
).filter(lambda name: name not in (".", ".."))
paths = st.lists(names, min_size=1, max_size=3).map(lambda parts: ROOT.joinpath(*parts))
numbers = st.floats(1e-3, 10)
layers = st.lists(st.sampled_from(VGG_LAYERS), min_size=1, max_size=3, unique=True).map(tuple)


@st.composite
def options(draw: st.DrawFn) -> dict[str, Any]:
    """Any options that make sense, some of them left to their defaults."""
    style = draw(st.lists(paths, min_size=1, max_size=3))
    count = len(style)
    chosen = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "style_weights": st.lists(numbers, min_size=count, max_size=count).map(tuple),
                "content": st.one_of(paths, st.just(Path("coco"))),
                "out": paths,
                "teacher": st.one_of(paths.map(str), st.just("optimizer")),
                "vgg": st.one_of(paths.map(lambda path: f"{path}:caffe"), st.just("torchvision")),
                "title": st.text(max_size=9),
                "artist": st.text(max_size=9),
                "lr": st.floats(1e-6, 1),
                "size": st.integers(64, 2048),
                "batch_size": st.integers(1, 64),
                "seed": st.integers(0, 2**63 - 1),
                "max_memory": numbers,
                "save_every": numbers,
                "tv_weight": numbers,
                "style_layers": layers,
                "content_layers": layers,
                "precision": st.permutations(PRECISIONS).map(tuple),
                "score": st.booleans(),
                "device": st.sampled_from(["auto", "cpu", "cuda"]),
            },
        )
    )
    budget = draw(st.sampled_from([{}, {"steps": 7}, {"seconds": 0.5}]))
    weight = draw(st.sampled_from([{}, {"style_weight": 3.5}, {"style_strength": 0.5}]))
    return {"style": tuple(style), **chosen, **budget, **weight}


@settings(max_examples=60)
@given(options())
def test_what_is_saved_comes_back(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]
) -> None:
    config = make_config(values)
    path = tmp_path_factory.getbasetemp() / "some" / "run.toml"
    save_config(path, config)
    loaded = load_config(path)
    assert make_config(loaded) == config
    assert loaded == {k: v for k, v in flat_options(config).items() if v is not None}
    assert set(tomllib.loads(path.read_text("utf-8"))) <= set(KEYS)


def test_paths_start_at_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = TrainConfig(style=(Path("pictures/wave.jpg"),), content=Path("photos"))
    save_config(Path("configs/run.toml"), config)
    found = tomllib.loads(Path("configs/run.toml").read_text())
    assert found["style"] == ["../pictures/wave.jpg"]
    assert found["content"] == "../photos"
    assert make_config(load_config(Path("configs/run.toml"))) == config
    other = tmp_path / "elsewhere"
    other.mkdir()
    monkeypatch.chdir(other)
    options = load_config(Path("../configs/run.toml"))
    assert options["style"] == (Path("../pictures/wave.jpg"),)
    assert options["content"] == Path("../photos")


def test_a_file_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(b'\xef\xbb\xbfstyle = "wave.jpg"\nstyle_weight = 10\nprecision = "int8"\r\n')
    config = make_config(load_config(path))
    assert config.style == (tmp_path / "wave.jpg",)
    assert config.objective.style_weight == 10
    assert config.precisions == ("int8",)
    (tmp_path / "part.toml").write_text("style_weights = [1, 2]\nsteps = 5")
    assert load_config(tmp_path / "part.toml") == {"style_weights": (1.0, 2.0), "steps": 5}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("style_wieght = 3", ["style_wieght", "did you mean style_weight?"]),
        ("style-weight = 3", ["style-weight", "did you mean style_weight?"]),
        ("learning_rate = 1e-3", ["learning_rate", "did you mean lr?"]),
        ("wibble = 3", ["wibble", "--help"]),
        ("[objective]\nstyle_size = 64", ["objective"]),
        ("size = 'large'", ["size is 'large'", "valid integer"]),
        ("size = 256.0", ["size is 256.0", "valid integer"]),
        ("size = true", ["size is True", "valid integer"]),
        ("seconds = '60'", ["seconds is '60'", "valid number"]),
        ("score = 1", ["score is 1", "valid boolean"]),
        ("year = 1831", ["year is 1831", "valid string"]),
        ("style = 3", ["style is 3", "path"]),
        ("style = [['a.jpg']]", ["style is ['a.jpg']"]),
        ("title = 1979-05-27", ["title is"]),
        ("style = []", ["no style image"]),
        ("style_weights = [1, '2']", ["style_weights is '2'", "valid number"]),
        ("style = ['a.jpg']\nstyle_weights = [1, 2]", ["style weights", "2 numbers for one"]),
        ("style_weights = [nan]", ["finite"]),
        ("size = 3", ["size is 3", "at least 64"]),
        (f"size = {'9' * 400}", ["size is inf"]),
        (f"tv_weight = {'9' * 400}", ["tv_weight is"]),
        (f"steps = {'9' * 5000}", ["not TOML"]),
        ("style_strength = nan", ["style strength is nan"]),
        ("style_strength = 2\nstyle_weight = 3", ["choose one"]),
        ("steps = 3\nseconds = 3", ["choose one"]),
        ("device = 'tpu'", ["device is 'tpu'", "'auto', 'cpu' or 'cuda'"]),
        ("precision = ['int4']", ["int4"]),
        ("preset = 'splendid'", ["splendid", "quality"]),
        ("style_layers = ['relu9_9']", ["relu9_9"]),
        ("size = 3\nsize = 4", ["not TOML"]),
        ("size: 256", ["not TOML", "line 1"]),
        ("a = " + "[" * 5000, ["not TOML"]),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: list[str]) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_config(path)
    line = str(caught.value)
    assert len(line) < 300
    for words in (str(path), *said):
        assert words in line


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path, Path("a\0b.toml")):
        with pytest.raises(NstError) as caught:
            load_config(path)
        assert caught.value.exit_status == 1


def test_names_that_are_no_text(tmp_path: Path) -> None:
    config = TrainConfig(style=(tmp_path / os.fsdecode(b"w\xff.png"),))
    save_config(tmp_path / "run.toml", config)
    assert make_config(load_config(tmp_path / "run.toml")) == config


def test_the_command_line_stands_in_for_the_file() -> None:
    file = {"style": (Path("a"), Path("b")), "style_weights": (1.0, 2.0), "seconds": 5.0}
    file |= {"style_weight": 3.0, "title": "A", "artist": "B", "year": "C", "size": 128}
    assert merge_options(file, {}) == file
    merged = merge_options(file, {"steps": 7, "style_strength": 2.0, "size": 64})
    assert merged["steps"] == 7
    assert merged["size"] == 64
    assert merged["title"] == "A"
    assert not {"seconds", "style_weight"} & set(merged)
    assert merge_options({"steps": 7}, {"seconds": 1.0}) == {"seconds": 1.0}
    merged = merge_options(file, {"style": (Path("c"),), "artist": "D"})
    assert merged["style"] == (Path("c"),)
    assert merged["artist"] == "D"
    assert not {"style_weights", "title", "year"} & set(merged)
