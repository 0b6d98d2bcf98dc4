"""Styles over time: which one at which second, and the cross-fades between them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import decoded, make_clip, pictures
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from nst.cli.app import app
from nst.errors import ModelError, NstError, UsageError
from nst.infer.cli.video import video_command
from nst.infer.runtime.stylizer import Stylizer
from nst.infer.video.pipeline import FPS
from nst.infer.video.schedule import FADE, StyleSchedule, VideoStyle, VideoStylizer, parse_styles
from nst.io.images import Array

LUMA = np.array([0.299, 0.587, 0.114])
PICTURE = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)

STYLES: list[Callable[[Array], Array]] = [
    lambda image: 255 - image,
    lambda image: image // 2,
    lambda image: image[::-1],
    lambda image: np.full_like(image, 200),
]


@pytest.fixture(scope="module")
def keeper_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another network, which asks for the photographs' colours."""
    import torch

    from nst.models.transformer import TransformerConfig, TransformerNet
    from nst.train.export.export import export_onnx

    torch.manual_seed(2)
    network = TransformerNet(TransformerConfig(width=4, blocks=1))
    torch.nn.init.normal_(network.output.weight, std=0.2)
    path = tmp_path_factory.mktemp("keeper") / "keeper.onnx"
    export_onnx(
        network,
        path,
        {"title": "Keeper", "style_sha256": "1" * 64, "keep_color": "luminance"},
    )
    return path


def nst(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, " ".join(result.output.split())


def off(one: Array, other: Array | np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other).mean())


def blurred(image: Array) -> Array:
    """Colours are kept for blocks of four pixels only, and these networks paint noise."""
    return np.asarray(cv2.blur(image, (8, 8)), np.uint8)


@settings(max_examples=60)
@given(
    gaps=st.lists(st.floats(0.05, 3), max_size=3),
    fade=st.one_of(st.just(0.0), st.floats(0.01, 4)),
    seconds=st.floats(0, 10),
)
def test_the_share_of_each_style(gaps: list[float], fade: float, seconds: float) -> None:
    starts = [0.0, *np.cumsum(gaps).tolist()]
    assume(all(abs(start - seconds) > 1e-5 for start in starts[1:]))
    made = StyleSchedule(list(zip(STYLES, starts, strict=False)), fade).at(PICTURE, seconds)

    expected = STYLES[0](PICTURE).astype(float)
    for start, stylize in zip(starts[1:], STYLES[1:], strict=False):
        if start <= seconds:
            share = min(1.0, (seconds - start) / fade) if fade else 1.0
            expected = share * stylize(PICTURE) + (1 - share) * expected
    assert made.dtype == np.uint8
    assert np.abs(made - expected).max() <= 0.51 * max(1, len(gaps))  # each rounds


def test_the_command_has_the_library_s_defaults() -> None:
    """It repeats them, so that it starts without OpenCV."""
    given = inspect.signature(video_command).parameters
    assert given["fade"].default == FADE
    assert given["fps"].default == FPS


def test_a_fade_goes_steadily_from_one_to_the_other() -> None:
    """Black to white, over half a second from 1 s on."""
    schedule = StyleSchedule([(lambda i: i * 0, 0), (lambda i: i * 0 + 255, 1)], 0.5)
    levels = [float(schedule.at(PICTURE, t).mean()) for t in np.arange(0, 2, 0.05)]
    assert levels[:20] == [0] * 20
    assert np.diff(levels[20:31]) == pytest.approx(np.full(10, 25.5), abs=1)
    assert levels[30:] == [255] * 10


def test_a_style_begins_with_the_frame_shown_then() -> None:
    """Frames' times are fractions of the video's time base: they may lie a hair before."""
    schedule = StyleSchedule([(STYLES[0], 0), (STYLES[1], 0.3)], 0)
    assert 3 * 0.1 != 0.3
    for seconds in (0.3, 3 * 0.1, 0.3 - 1e-9):
        assert np.array_equal(schedule.at(PICTURE, seconds), STYLES[1](PICTURE))
    for seconds in (-0.01, 0, 0.2999):
        assert np.array_equal(schedule.at(PICTURE, seconds), STYLES[0](PICTURE))


def test_only_styles_that_are_seen_are_computed() -> None:
    called: list[int] = []

    def style(number: int) -> Callable[[Array], Array]:
        return lambda image: called.append(number) or image

    schedule = StyleSchedule([(style(k), float(k)) for k in range(3)], 0.5)
    seen = {}
    for seconds in (0.9, 1.25, 1.75, 2.25, 9):
        called.clear()
        schedule.at(PICTURE, seconds)
        seen[seconds] = sorted(called)
    assert seen == {0.9: [0], 1.25: [0, 1], 1.75: [1], 2.25: [1, 2], 9: [2]}


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "starts",
    [[], [1], [-1, 0], [0, 0], [0, 2, 1], [0, 1, 1], [NAN], [0, NAN], [0, NAN, 1], [0, INF]],
)
def test_starts_rise_from_0(starts: list[float]) -> None:
    with pytest.raises(UsageError, match=r"the styles begin at .* s: let the first begin at 0"):
        StyleSchedule([(STYLES[0], start) for start in starts])


NAMES = st.text("abc@./-_ 1", min_size=1, max_size=12).filter(str.strip)
SECONDS = st.floats(0, 1e6)


@settings(max_examples=60)
@given(st.lists(st.tuples(NAMES, SECONDS), min_size=1, max_size=4))
def test_styles_as_text(styles: Sequence[tuple[str, float]]) -> None:
    text = ",".join(f"{name}@{seconds!r}" for name, seconds in styles)
    assert parse_styles(text) == tuple((Path(name.strip()), s) for name, s in styles)


def test_styles_as_people_write_them() -> None:
    assert parse_styles("a.onnx@0, my@home/b.onnx@5.5 ,c@1e1") == (
        (Path("a.onnx"), 0),
        (Path("my@home/b.onnx"), 5.5),
        (Path("c"), 10),
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "''"),
        ("a.onnx", "'a.onnx'"),
        ("a.onnx@", "'a.onnx@'"),
        ("@5", "'@5'"),
        ("a.onnx@0, @5", "' @5'"),
        ("a.onnx@0,b.onnx@soon", "'b.onnx@soon'"),
        ("a.onnx@0,", "''"),
        ("a.onnx@0,,b.onnx@1", "''"),
        ("a.onnx@0,5", "'5'"),
    ],
)
def test_styles_that_are_none(text: str, part: str) -> None:
    with pytest.raises(UsageError, match="write MODEL@SECONDS") as caught:
        parse_styles(text)
    assert f"styles has {part}: " in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"fade": -1}, {"fade": NAN}, {"fade": INF}, {"strength": 1.1}, {"strength": -0.1}]
)
def test_bad_styles(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"(fade|strength) is"):
        VideoStyle(((Path("a.onnx"), 0.0),), **options)


def test_a_model_may_ask_for_the_colours(
    model_path: Path, keeper_path: Path, photograph: Array
) -> None:
    def repainted(path: Path, **options: str) -> Array:
        with VideoStylizer(VideoStyle(((path, 0.0),), **options)) as stylizer:  # type: ignore[arg-type]
            return stylizer.at(photograph, 0)

    with Stylizer(keeper_path) as stylizer:
        raw = stylizer(photograph)
    # Luminance by the definition: the photograph, as light and dark as the stylized image.
    kept = photograph + ((raw - photograph.astype(float)) @ LUMA)[..., None]
    kept = kept.clip(0, 255)
    assert off(raw, kept) > 10
    assert np.abs(repainted(keeper_path) - kept).max() <= 2
    assert np.abs(repainted(keeper_path, keep_color="luminance") - kept).max() <= 2
    assert np.array_equal(repainted(keeper_path, keep_color="none"), raw)
    # Its own word stands behind the user's.
    assert off(repainted(keeper_path, keep_color="linear"), kept) > 1
    with Stylizer(model_path) as stylizer:
        plain = stylizer(photograph)
    assert np.array_equal(repainted(model_path), plain)
    assert np.array_equal(repainted(model_path, keep_color="none"), plain)
    assert not np.array_equal(repainted(model_path, keep_color="luminance"), plain)


def test_a_video_stylizer_counts_from_its_part(
    model_path: Path, keeper_path: Path, photograph: Array
) -> None:
    style = VideoStyle(((model_path, 0.0), (keeper_path, 2.0)), fade=0, keep_color="none")
    with Stylizer(model_path) as one, Stylizer(keeper_path) as other:
        first, second = one(photograph), other(photograph)
    assert off(first, second) > 10
    for offset, seconds, expected in ((0, 1.9, first), (0, 2, second), (1.5, 0.5, second)):
        with VideoStylizer(style, offset) as stylizer:
            assert stylizer.name == "Tiny, Keeper"
            assert stylizer.provider in ("cpu", "cuda")
            assert np.array_equal(stylizer.at(photograph, seconds), expected)


def test_a_video_stylizer_closes_its_models(
    model_path: Path, keeper_path: Path, photograph: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    close = Stylizer.close
    monkeypatch.setattr(
        Stylizer, "close", lambda stylizer: closed.append(stylizer.name) or close(stylizer)
    )
    with VideoStylizer(VideoStyle(((model_path, 0.0), (keeper_path, 1.0)))) as stylizer:
        assert closed == []
    assert sorted(closed) == ["Keeper", "Tiny"]
    with pytest.raises(NstError, match="closed"):
        stylizer.at(photograph, 0)
    closed.clear()
    with pytest.raises(ModelError, match=r"none\.onnx does not exist"):
        VideoStylizer(VideoStyle(((model_path, 0.0), (Path("none.onnx"), 1.0))))
    with pytest.raises(UsageError, match="the styles begin at"):
        VideoStylizer(VideoStyle(((keeper_path, 1.0),)))
    assert closed == ["Tiny", "Keeper"]


def test_the_command(tmp_path: Path, model_path: Path, keeper_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", pictures(24))
    options = ("--crf", 2, "--keep-color", "none")

    def repainted(*style: object) -> list[Array]:
        status, said = nst("video", source, tmp_path / "b.mp4", *style, *options)
        assert status == 0, said
        images, shown = decoded(tmp_path / "b.mp4")
        assert shown == decoded(source)[1]
        return [blurred(image) for image in images]

    one, other = repainted("--style", model_path), repainted("--style", keeper_path)
    assert all(off(a, b) > 15 for a, b in zip(one, other, strict=True))
    styles = f"{model_path}@0,{keeper_path}@0.4"
    both = repainted("--styles", styles, "--fade", 0.2)
    for k, image in enumerate(both):
        share = min(1.0, max(0.0, (k / 25 - 0.4) / 0.2))
        mixed = share * other[k].astype(float) + (1 - share) * one[k]
        assert off(image, mixed) < 4, k
    cut = repainted("--styles", styles, "--fade", 0)
    expected = [*one[:10], *other[10:]]
    assert all(off(a, b) < 4 for a, b in zip(cut, expected, strict=True))
    # The seconds are those of the repainted film.
    part = ("--start", 0.2, "--duration", 0.6)
    status, said = nst(
        "video", source, tmp_path / "c.mp4", "--styles", styles, "--fade", 0, *part, *options
    )
    assert status == 0, said
    images, _ = decoded(tmp_path / "c.mp4")
    expected = [*one[5:15], *other[15:20]]
    assert all(off(blurred(a), b) < 4 for a, b in zip(images, expected, strict=True))


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ((), 2, "give --style MODEL, or --styles"),
        (("--style", "m.onnx", "--styles", "m.onnx@0"), 2, "give --style MODEL, or --styles"),
        (("--styles", ""), 2, "styles has ''"),
        (("--styles", "m.onnx@0,m.onnx@x"), 2, "write MODEL@SECONDS"),
        (("--styles", "m.onnx@1"), 2, "the styles begin at 1 s"),
        (("--styles", "m.onnx@0,m.onnx@nan"), 2, "the styles begin at 0, nan s"),
        (("--styles", "m.onnx@0,none.onnx@1"), 1, "none.onnx does not exist"),
        (("--styles", "m.onnx@0", "--fade", "-1"), 2, "fade is -1"),
    ],
)
def test_bad_options(
    options: tuple[str, ...],
    status: int,
    words: str,
    tmp_path: Path,
    model_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    make_clip(Path("a.mp4"), pictures(3))
    Path("m.onnx").write_bytes(model_path.read_bytes())
    got, said = nst("video", "a.mp4", "b.mp4", *options)
    assert (got, said.count("error: ")) == (status, 1), said
    assert words in said
    assert {path.name for path in Path().iterdir()} == {"a.mp4", "m.onnx"}
