"""The measurements find painted checkerboards, frames and textures of known size."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from nst.errors import UsageError
from nst.infer.cli import inspect as cli_inspect
from nst.infer.diagnostics.border import border
from nst.infer.diagnostics.checkerboard import PERIODS, checkerboard, checkerboard_bins, fields
from nst.infer.diagnostics.inspection import inspect
from nst.infer.diagnostics.inspection_plots import PICTURES, draw_size
from nst.infer.diagnostics.photographs import Stylize
from nst.infer.diagnostics.strokes import HEIGHTS, stroke_scale
from nst.io.images import Array, save_image

quick = settings(max_examples=4, derandomize=True)


def identity(image: Array) -> Array:
    return image.copy()


def black(image: Array) -> Array:
    return np.zeros_like(image)


def painting(pattern: Callable[[int, int], np.ndarray], keep: float = 0.0) -> Stylize:
    """Paints `pattern`(height, width) in grey over `keep` times the image."""

    def stylize(image: Array) -> Array:
        ground = 128 + keep * (image.astype(float) - 128)
        return np.clip(np.rint(ground + pattern(*image.shape[:2])[..., None]), 0, 255).astype(
            np.uint8
        )

    return stylize


def dots(period: int, level: float, down: int = 0, right: int = 0) -> Stylize:
    def pattern(height: int, width: int) -> np.ndarray:
        y, x = np.mgrid[:height, :width]
        return level * ((y % period == down % period) & (x % period == right % period))

    return painting(pattern)


def stripes(wavelength: Callable[[int], float], level: float = 30, keep: float = 0.5) -> Stylize:
    """Slanted waves of a wavelength that may depend on the height."""

    def pattern(height: int, width: int) -> np.ndarray:
        y, x = np.mgrid[:height, :width]
        return level * np.sin(2 * np.pi * (0.6 * x + 0.8 * y) / wavelength(height))

    return painting(pattern, keep)


def framing(thick: int, level: int) -> Stylize:
    """Adds `level` to the outer `thick` pixels, without touching 0 or 255."""

    def stylize(image: Array) -> Array:
        painted = 64 + image.astype(int) // 2
        inner = painted[thick:-thick, thick:-thick].copy()
        painted += level
        painted[thick:-thick, thick:-thick] = inner
        return painted.astype(np.uint8)

    return stylize


@pytest.fixture(scope="module")
def photographs(photograph: Array) -> list[Array]:
    return [photograph, np.rot90(photograph).copy()]


# -- checkerboard


def test_checkerboard_frequencies_are_those_of_the_period_and_no_shorter_one() -> None:
    side = 48

    def grid(period: int) -> set[tuple[Fraction, Fraction]]:
        parts = [Fraction(a, period) for a in range(period)]
        return set(product(parts, parts))

    for period in PERIODS:
        expected = grid(period) - grid(period // 2)
        bins = [
            (Fraction(int(a), side), Fraction(int(b), side))
            for a, b in checkerboard_bins(period, side)
        ]
        assert len(set(bins)) == len(bins)
        assert set(bins) == expected


def test_the_test_fields_hold_no_checkerboard_themselves() -> None:
    assert {kind for kind, _, _ in fields()} == {"constant", "grain", "ramp"}
    assert len({name for _, name, _ in fields()}) == len(fields())
    for period in checkerboard(identity).periods:
        assert period.ratio == pytest.approx(1, abs=0.15)
        assert period.median_ratio == pytest.approx(1, abs=0.01)
        assert period.amplitude < 0.03
        assert period.constant < 1e-6
        assert period.ramp < 1e-6


def test_a_constant_output_has_a_ratio_of_one() -> None:
    found = checkerboard(black)
    assert [p.ratio for p in found.periods] == pytest.approx([1, 1, 1])
    assert [p.decibels for p in found.periods] == pytest.approx([0, 0, 0])
    assert [p.amplitude for p in found.periods] == [0, 0, 0]


@quick
@given(
    period=st.sampled_from(PERIODS),
    level=st.integers(3, 100),
    down=st.integers(0, 7),
    right=st.integers(0, 7),
)
def test_dots_of_known_strength(period: int, level: int, down: int, right: int) -> None:
    """A dot of height A in every p×p cell puts A/p² on each of its p² frequencies."""
    for found in checkerboard(dots(period, level, down, right)).periods:
        if found.period > period:
            assert found.amplitude < 0.01
            assert found.ratio == pytest.approx(1, abs=0.05)
        else:
            share = found.period**2 - (found.period // 2) ** 2  # frequencies of that period
            assert found.amplitude == pytest.approx(level / period**2 * share**0.5, rel=0.02)


@quick
@given(period=st.sampled_from(PERIODS), level=st.floats(2, 30), grain=st.floats(0, 4))
def test_a_mesh_in_grain_is_found_at_its_own_period(
    period: int, level: float, grain: float
) -> None:
    rng = np.random.default_rng(0)

    def pattern(height: int, width: int) -> np.ndarray:
        y, x = np.mgrid[:height, :width]
        mesh = np.cos(2 * np.pi * x / period) * np.cos(2 * np.pi * y / period)
        return level * mesh + rng.normal(0, grain, mesh.shape)

    rms = level if period == 2 else level / 2
    for found in checkerboard(painting(pattern)).periods:
        if found.period == period:
            assert found.amplitude == pytest.approx(rms, rel=0.1, abs=0.1)
            assert found.constant == pytest.approx(rms, rel=0.1, abs=0.1)
            assert found.worst_ratio >= found.median_ratio > 2
        else:  # rounding to whole levels distorts a mesh a little
            assert found.amplitude < 0.25


def test_noise_is_no_checkerboard() -> None:
    rng = np.random.default_rng(1)
    for found in checkerboard(painting(lambda h, w: rng.normal(0, 12, (h, w)))).periods:
        assert found.ratio == pytest.approx(1, abs=0.25)
        assert found.amplitude < 0.35


def test_bands_across_and_down_are_no_checkerboard() -> None:
    """A broad spectrum on an axis is held against that axis."""
    rng = np.random.default_rng(2)

    def pattern(height: int, width: int) -> np.ndarray:
        bands = rng.normal(0, 20, max(height, width))
        return np.tile(bands[:width], (height, 1)) + bands[:height, None]

    for found in checkerboard(painting(pattern)).periods:
        assert found.ratio == pytest.approx(1, abs=0.3)


def test_strokes_of_other_periods_are_no_checkerboard() -> None:
    for found in checkerboard(stripes(lambda _: 11.3)).periods:
        assert found.amplitude < 0.25


# -- border


def test_a_network_without_a_frame(photographs: list[Array]) -> None:
    found = border(identity, photographs)
    assert found.crops == 12
    assert found.shift == 0
    assert found.channel_shift == (0, 0, 0)
    assert found.rms_ratio == found.contrast == found.contrast_inside == 1
    assert len(found.profile_rms) == len(found.profile_shift) == 48
    assert found.difference.shape == (256, 256, 3)


def test_a_network_that_sees_the_whole_image_has_no_frame_by_that(photograph: Array) -> None:
    """What differs everywhere alike is not the border's."""

    def levelled(image: Array) -> Array:
        painted = 128 + (image - image.mean((0, 1))) / 2
        return np.rint(painted).astype(np.uint8)

    found = border(levelled, [photograph])
    assert max(found.profile_rms) > 3
    assert found.shift < 0.1
    assert found.rms_ratio == pytest.approx(1, abs=0.1)
    assert found.contrast == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("thick", "level"), [(3, -12), (10, -5), (16, 20), (1, 40)])
def test_a_painted_frame(thick: int, level: int, photograph: Array) -> None:
    found = border(framing(thick, level), [photograph])
    # Pixels of the outer `thick` among those of the outer 16, in a square of 256.
    share = (256**2 - (256 - 2 * thick) ** 2) / (256**2 - 224**2)
    assert found.channel_shift == pytest.approx((level * share,) * 3)
    assert found.shift == pytest.approx(abs(level) * share)
    assert found.shift_error == pytest.approx(0)
    assert found.rms_ratio == pytest.approx(((level**2 * share + 1 / 6) * 6) ** 0.5)
    assert [row[0] for row in found.profile_shift[: thick + 1]] == [level] * thick + [0] * (
        thick < 48
    )
    assert found.contrast == pytest.approx(1)


def test_a_frame_of_another_colour(photograph: Array) -> None:
    def tinted(image: Array) -> Array:
        painted = framing(4, 0)(image)
        painted[:4, :, 2] += 8  # the top alone, and blue alone
        return painted

    red, green, blue = border(tinted, [photograph]).channel_shift
    assert (red, green) == (0, 0)
    assert blue == pytest.approx(8 * 4 * 256 / (256**2 - 224**2))


def test_a_frame_that_loses_contrast(photograph: Array) -> None:
    def faded(image: Array) -> Array:
        painted = 128 + (image.astype(float) - 128) / 4
        painted[16:-16, 16:-16] = image[16:-16, 16:-16]
        return np.rint(painted).astype(np.uint8)

    found = border(faded, [photograph])
    assert found.contrast == pytest.approx(1 / 4, abs=0.01)
    assert found.contrast_inside == 1


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (33, 700), (900, 40)])
def test_photographs_of_any_size(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    assert border(framing(2, 9), [image]).shift > 0
    assert stroke_scale(black, [image], (64, 96)).hold is None


# -- stroke scale


@pytest.mark.parametrize("wavelength", [5, 8, 13, 40])
def test_strokes_of_fixed_pixels(wavelength: int, photograph: Array) -> None:
    found = stroke_scale(stripes(lambda _: wavelength), [photograph], (256, 480))
    for size in found.sizes:
        assert size.pixels == pytest.approx(wavelength, rel=0.03)
        assert size.percent == pytest.approx(100 * wavelength / size.height, rel=0.03)
        assert size.strength == pytest.approx(30 / 2**0.5, rel=0.1)
    assert found.hold == pytest.approx(256 / 480, rel=0.02)
    assert found.examples[1].shape == (480, 640, 3)


def test_fixed_pixels_and_growing_strokes_up_to_1080_lines(photograph: Array) -> None:
    fixed = stroke_scale(stripes(lambda _: 10), [photograph])
    assert [size.height for size in fixed.sizes] == list(HEIGHTS)
    assert fixed.hold == pytest.approx(256 / 1080, rel=0.03)
    ends = (HEIGHTS[0], HEIGHTS[-1])
    growing = stroke_scale(stripes(lambda height: 0.05 * height), [photograph], ends)
    assert [size.percent for size in growing.sizes] == pytest.approx([5, 5], rel=0.03)
    assert growing.hold == pytest.approx(1, abs=0.03)


def test_strokes_of_two_sizes_meet_in_the_geometric_mean(photograph: Array) -> None:
    def pattern(height: int, width: int) -> np.ndarray:
        y, x = np.mgrid[:height, :width]
        return 20 * np.sin(2 * np.pi * x / 8) + 20 * np.sin(2 * np.pi * y / 32)

    found = stroke_scale(painting(pattern), [photograph], (256, 480))
    assert [size.pixels for size in found.sizes] == pytest.approx([16, 16], rel=0.03)


def test_the_checkerboard_and_the_light_are_no_strokes(photograph: Array) -> None:
    def pattern(height: int, width: int) -> np.ndarray:
        y, x = np.mgrid[:height, :width]
        mesh = 20 * np.cos(np.pi / 2 * x) + 20 * np.cos(np.pi * y)
        return mesh + 30 * np.sin(2 * np.pi * y / height) + 6 * np.sin(2 * np.pi * x / 12)

    found = stroke_scale(painting(pattern), [photograph], (256, 480))
    assert [size.pixels for size in found.sizes] == pytest.approx([12, 12], rel=0.03)


def test_what_the_content_explains_is_no_stroke(photograph: Array) -> None:
    def toned(image: Array) -> Array:
        """A curve and a tint, as of a film."""
        x = image / 255
        return np.rint(255 * (0.9 * x**2 + 0.05 * x[..., ::-1])).astype(np.uint8)

    for stylize in (identity, black, toned):
        found = stroke_scale(stylize, [photograph], (64, 128))
        assert found.hold is None
        assert all(size.pixels is None and size.strength < 0.3 for size in found.sizes)


@pytest.mark.parametrize("heights", [(256,), (480, 256), (256, 256), (9, 256), (256, 9000), ()])
def test_heights_that_make_no_sense(heights: tuple[int, ...], photograph: Array) -> None:
    with pytest.raises(UsageError, match="rising"):
        stroke_scale(identity, [photograph], heights)


def test_no_photographs() -> None:
    for call in (border, stroke_scale, inspect):
        with pytest.raises(UsageError, match="no photographs"):
            call(identity, [])


# -- all of it, pictures, command


def test_inspection_reports_its_progress_and_is_ready_for_json(photograph: Array) -> None:
    seen = []
    found = inspect(identity, [photograph], heights=(64, 96), callback=seen.append)
    assert [p.done for p in seen] == sorted({p.done for p in seen})
    assert {p.total for p in seen} == {seen[-1].done}
    numbers = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert set(numbers) == {"checkerboard", "border", "strokes"}
    assert [p["period"] for p in numbers["checkerboard"]["periods"]] == [2, 4, 8]
    assert "spectrum" not in numbers["checkerboard"]
    assert "difference" not in numbers["border"]
    assert numbers["strokes"]["hold"] is None
    assert draw_size(found.strokes, "Nothing").axes  # with nothing to plot


app = typer.Typer(pretty_exceptions_enable=False)
app.command("inspect")(cli_inspect.inspect_command)
app.command("other")(lambda: None)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that gives back what it gets."""
    shape = ["n", "h", "w", 3]
    image, stylized = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, shape)
        for name in ("image", "stylized")
    )
    node = onnx.helper.make_node("Identity", ["image"], ["stylized"])
    graph = onnx.helper.make_graph([node], "nothing", [image], [stylized])
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.helper.set_model_props(model, {"title": "Nothing"})
    path = tmp_path_factory.mktemp("model") / "nothing.onnx"
    onnx.save(model, path)
    return path


def run(*arguments: object) -> tuple[int, list[str], str]:
    """Exit status, the lines on stderr, and stdout."""
    result = CliRunner().invoke(app, ["inspect", *(str(a) for a in arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stderr.splitlines(), result.stdout


def refused(status: int, arguments: list[object], *words: object) -> None:
    got, lines, printed = run(*arguments)
    assert (got, len(lines), printed) == (status, 1, ""), lines
    assert lines[0].startswith("error: ")
    for word in words:
        assert str(word) in lines[0]


def test_the_command(
    model_path: Path, photograph: Array, bad_images: dict[str, Path], tmp_path: Path
) -> None:
    """One bad photograph is named, the rest are measured and drawn, the status tells."""
    (tmp_path / "photographs").mkdir()
    save_image(tmp_path / "photographs" / "good.png", photograph)
    bad, out = bad_images["truncated"], tmp_path / "out"
    content = ["--content", tmp_path / "photographs", "--content", bad]
    common = [model_path, *content, "--heights", "64,96", "--out", out]
    assert "border, colour" in run(*common)[2]
    status, lines, printed = run(*common, "--json")
    assert status == 1
    assert [line for line in lines if line.startswith("error: ")] == [lines[0]]
    assert str(bad) in lines[0]
    numbers = json.loads(printed)
    assert numbers["photographs"] == 1
    assert numbers["style"] == "Nothing"
    assert len(numbers["strokes"]["sizes"]) == 2
    assert {path.name for path in out.iterdir()} == set(PICTURES)
    for name in PICTURES:
        assert str(out / name) in lines[-1]
        with Image.open(out / name) as picture:
            assert picture.format == "PNG"
            assert picture.width >= 1600


def test_the_table_says_how_to_read_each_number(photograph: Array) -> None:
    found = inspect(stripes(lambda _: 10), [photograph], heights=(64, 128))
    lines = cli_inspect.table(found)
    assert len(lines) == 3 + 3 + 2
    assert all(len(line) < 100 for line in lines)
    assert "10.0 px" in lines[-2]
    assert "0.50" in lines[-1]


def test_bad_photographs(model_path: Path, bad_images: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    for name in ("a.jpg", "b.png"):
        (tmp_path / "bad" / name).write_text("no image")
    save_image(tmp_path / "icon.png", np.zeros((20, 20, 3), np.uint8))
    out = tmp_path / "out"
    common = [model_path, "--out", out, "--content"]
    refused(1, [*common, tmp_path / "nowhere"], tmp_path / "nowhere", "does not exist")
    refused(1, [*common, tmp_path / "empty"], tmp_path / "empty", "no usable image")
    refused(1, [*common, tmp_path / "bad"], tmp_path / "bad", "2 unreadable or tiny")
    refused(1, [*common, bad_images["text"]], bad_images["text"], "JPEG or PNG")
    refused(1, [*common, tmp_path / "icon.png"], "icon.png", "20×20", "64")
    assert not out.exists()


def test_bad_options(model_path: Path, tmp_path: Path, photograph: Array) -> None:
    save_image(tmp_path / "a.png", photograph)
    common = ["--content", tmp_path / "a.png", "--out", tmp_path / "out"]
    refused(2, [model_path, *common, "--heights", "480,256"], "rising")
    refused(2, [model_path, *common, "--heights", "tall"], "--heights", "tall")
    refused(2, [model_path, *common, "--limit", "0"], "limit")
    refused(1, [tmp_path / "none.onnx", *common], "none.onnx")
    refused(1, [tmp_path / "a.png", *common], "a.png")
    assert not (tmp_path / "out").exists()
    file = tmp_path / "a.png" / "deeper"
    refused(1, [model_path, *common[:2], "--out", file], "cannot write")


def test_without_matplotlib(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    refused(1, [model_path], "matplotlib", "pip install 'nst[train]'")


def test_the_command_measures_at_the_heights_of_the_library() -> None:
    assert ",".join(map(str, HEIGHTS)) == cli_inspect.HEIGHTS
