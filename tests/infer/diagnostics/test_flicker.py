"""How much pictures flicker: stylizers whose flicker is known in advance."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterator
from itertools import count, pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import make_clip
from typer.testing import CliRunner

from nst.cli.app import app
from nst.errors import UsageError
from nst.infer.diagnostics.flicker import (
    MOTIONS,
    MotionError,
    clip_flicker,
    motion_flicker,
    to_dict,
)
from nst.infer.diagnostics.flicker_plots import save_pictures
from nst.infer.runtime.stylizer import Stylizer
from nst.infer.video.temporal import TemporalStylizer
from nst.io.images import Array, load_image, save_image

SHIFTS = ((1, 0), (1, 2), (3, 1), (2, 5))  # down and right: what `shift` stands for
EDGE = 2  # pixels along the border of what is in sight that do not count


def same(image: Array) -> Array:
    return image


def texture(height: int, width: int, seed: int = 0) -> Array:
    """Soft blotches of all colours."""
    noise = np.random.default_rng(seed).normal(0, 1, (height, width, 3)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return np.clip(128 + 45 * soft / soft.std(), 0, 255).astype(np.uint8)


def sliding(count: int, size: tuple[int, int] = (96, 128)) -> list[Array]:
    """A window that slides over a large texture, two pixels down and three right a frame."""
    down, right = 2, 3
    wide = texture(size[0] + count * down, size[1] + count * right)
    return [
        wide[k * down : k * down + size[0], k * right : k * right + size[1]] for k in range(count)
    ]


def by_name(found: tuple[MotionError, ...]) -> dict[str, MotionError]:
    return {error.motion: error for error in found}


def test_what_changes_nothing_has_the_error_of_the_photographs(photograph: Array) -> None:
    found = motion_flicker(same, [photograph, texture(70, 90)])
    assert tuple(error.motion for error in found) == MOTIONS
    for error in found:
        if error.motion in ("shift", "noise", "light"):
            # Nothing moves between pixels, so levels are whole before and after.
            assert error.rms == error.photographs, error
        else:
            assert error.rms == pytest.approx(error.photographs, rel=0.01), error
            assert 0 < error.rms < 1, error  # rounding: a level's 1/√12
    assert by_name(found)["shift"].rms == 0


def test_noise_and_light_are_as_large_as_they_say() -> None:
    grey = np.full((200, 160, 3), 100, np.uint8)
    found = by_name(motion_flicker(same, [grey]))
    assert found["noise"].rms == pytest.approx(np.hypot(3, 1 / np.sqrt(12)), rel=0.02)
    assert found["light"].rms == 4  # 100 becomes 104
    levels = np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (1, 90, 3))
    lighter = np.minimum(np.arange(256) * 1.04, 255).round() - np.arange(256)
    expected = np.sqrt(np.square(lighter[EDGE:-EDGE]).mean())
    assert by_name(motion_flicker(same, [levels]))["light"].rms == pytest.approx(expected, rel=1e-6)

    def contrast(image: Array) -> Array:
        return np.minimum(image.astype(int) * 2, 255).astype(np.uint8)

    # A stylizer with contrast enlarges both.
    harder = by_name(motion_flicker(contrast, [grey]))
    assert harder["light"].rms == 8
    assert harder["noise"].rms == pytest.approx(2 * found["noise"].rms, rel=1e-6)
    assert harder["noise"].photographs == found["noise"].photographs


def in_sight(height: int, width: int, down: int, right: int) -> int:
    """How many pixels of a shifted image count, one by one."""
    return sum(
        EDGE <= row + down <= height - 1 - EDGE and EDGE <= column + right <= width - 1 - EDGE
        for row in range(height)
        for column in range(width)
    )


@pytest.mark.parametrize("period", [2, 3, 4])
def test_a_pattern_that_stays_where_it_is_flickers_as_computed_by_hand(period: int) -> None:
    """A mesh of stripes, as strided networks paint it: `period` pixels wide, ±20 levels."""
    height, width = 70, 85
    photograph = np.full((height, width, 3), 128, np.uint8)
    rows, columns = np.indices((height, width))
    wave = np.where((rows + columns) % period < period / 2, 20, -20)

    def meshed(image: Array) -> Array:
        return (image + wave[..., None]).astype(np.uint8)

    total = pixels = 0.0
    for down, right in SHIFTS:
        n = in_sight(height, width, down, right)
        steps = np.arange(period)
        line = np.where(steps % period < period / 2, 20, -20)
        total += n * np.square(line - np.roll(line, -(down + right))).mean()
        pixels += n
    found = by_name(motion_flicker(meshed, [photograph]))
    assert found["shift"].photographs == 0
    exact = 1e-6 if period == 2 else 2e-3  # the border cuts some of the longer periods
    assert found["shift"].rms == pytest.approx(np.sqrt(total / pixels), rel=exact)
    assert found["noise"].rms == found["noise"].photographs  # it stays where nothing moves
    if period == 2:
        odd = sum(in_sight(height, width, *s) for s in SHIFTS if sum(s) % 2)
        assert found["shift"].rms == pytest.approx(40 * np.sqrt(odd / pixels), rel=1e-6)


@pytest.mark.parametrize(
    "paint",
    [
        lambda x: 255 - x,
        lambda x: (255 * (x / 255) ** 0.4).astype(np.uint8),
        lambda x: x // 64 * 64,
        lambda x: x[..., ::-1],
    ],
)
def test_what_paints_each_pixel_by_itself_does_not_flicker(
    paint: Callable[[Array], Array], photograph: Array
) -> None:
    found = by_name(motion_flicker(paint, [photograph]))
    assert found["shift"].rms == 0


def test_motions_are_what_the_table_calls_them() -> None:
    """A disc off the centre: where the photographs are moved to, and how large it is there."""
    rows, columns = np.indices((200, 200))
    distance = np.hypot(rows - 60, columns - 100)
    disc = np.clip(255 * (25 - distance), 0, 255).astype(np.uint8)[..., None].repeat(3, 2)
    seen: list[Array] = []
    motion_flicker(lambda x: seen.append(x) or x, [disc])
    whole, *moved = (image[..., 0] / 255 for image in seen)
    names = ["shift"] * 4 + ["slide", "turn", "zoom", "bend", "noise", "light"]
    assert len(moved) == len(names)

    def middle(image: np.ndarray) -> np.ndarray:
        return np.array([(rows * image).sum(), (columns * image).sum()]) / image.sum()

    at = dict(zip(names, moved, strict=True))
    for image, shift in zip(moved[:4], SHIFTS, strict=True):
        np.testing.assert_allclose(middle(image) + shift, (60, 100), atol=0.01)
    np.testing.assert_allclose(middle(at["slide"]), (60 - 1.25, 100 - 0.5), atol=0.05)
    # Around the centre at 99.5: one degree, and a hundredth.
    across = middle(at["turn"]) - middle(whole)
    assert abs(across[1]) == pytest.approx(np.radians(1) * 39.5, abs=0.05)
    assert abs(across[0]) < 0.05
    assert (middle(at["zoom"])[0] - 99.5) * 1.01 == pytest.approx(60 - 99.5, abs=0.05)
    assert at["zoom"].sum() * 1.01**2 == pytest.approx(whole.sum(), rel=2e-3)
    assert 0.05 < np.abs(middle(at["bend"]) - middle(whole)).max() < 3


def test_large_photographs_are_made_smaller_and_every_picture_is_counted() -> None:
    shapes: list[tuple[int, ...]] = []
    told: list[tuple[int, int]] = []
    big, small = np.zeros((500, 1000, 3), np.uint8), np.zeros((64, 80, 3), np.uint8)
    motion_flicker(
        lambda x: shapes.append(x.shape) or x, [big, small], lambda *done: told.append(done)
    )
    assert set(shapes) == {(320, 640, 3), (64, 80, 3)}
    assert told == [(n, len(shapes)) for n in range(1, len(shapes) + 1)]


def test_photographs_count_by_their_pixels() -> None:
    small, large = texture(40, 40), texture(90, 70, seed=1)

    def paint(image: Array) -> Array:
        return image if len(image) == 40 else image // 3

    apart = [by_name(motion_flicker(paint, [p]))["light"] for p in (small, large)]
    both = by_name(motion_flicker(paint, [small, large]))["light"]
    counts = [(p.shape[0] - 2 * EDGE) * (p.shape[1] - 2 * EDGE) for p in (small, large)]
    assert apart[0].rms > 2 * apart[1].rms
    expected = np.average([a.rms**2 for a in apart], weights=counts)
    assert both.rms == pytest.approx(np.sqrt(expected), rel=1e-6)


def test_no_photographs() -> None:
    with pytest.raises(UsageError, match="no photographs"):
        motion_flicker(same, [])


def test_a_film_that_slides_has_a_small_error_of_its_own() -> None:
    told: list[int] = []
    found = clip_flicker(same, sliding(5), told.append)
    assert told == [1, 2, 3, 4, 5]
    assert found.frames == 5
    assert found.film < 0.6  # of 45 levels of contrast
    naive = [np.square(b.astype(float) - a).mean() for a, b in pairwise(sliding(5))]
    assert np.sqrt(np.mean(naive)) > 40 * found.film
    assert found.rms == found.film
    assert found.errors == found.film_errors
    assert len(found.errors) == 4
    # Two rows and three columns are new each time, and two pixels of the border don't count.
    assert 0.8 < found.seen <= 92 * 123 / (96 * 128)


def test_brightness_that_alternates_is_found() -> None:
    frames = [frame.clip(20, 200) for frame in sliding(5)]
    number = count()

    def blinking(image: Array) -> Array:
        return image + np.uint8(12 * (next(number) % 2))

    found = clip_flicker(blinking, frames)
    assert found.rms == pytest.approx(np.hypot(12, found.film), rel=0.01)
    assert found.errors == pytest.approx([12] * 4, rel=0.02)
    assert found.film < 0.6
    numbers = found.to_dict()
    assert json.loads(json.dumps(numbers))["rms"] == found.rms
    assert json.loads(json.dumps(to_dict((), found)))["clip"]["errors"] == list(found.errors)


def test_one_bad_picture_shows_before_and_after_itself() -> None:
    number = count(1)

    def jumping(image: Array) -> Array:
        return image + np.uint8(30 * (next(number) == 3))

    found = clip_flicker(jumping, [frame.clip(20, 200) for frame in sliding(6)])
    high = [error > 25 for error in found.errors]  # of the frames 2, 3, 4, 5, 6
    assert high == [False, True, True, False, False]
    expected = np.sqrt(np.mean(np.square(found.errors)))
    assert found.rms == pytest.approx(expected, rel=0.01)


def test_a_pattern_that_stays_where_it_is_flickers_on_a_film_that_slides() -> None:
    rows, columns = np.indices((96, 128))
    checks = np.uint8(30) * ((rows + columns) % 2 == 1)[..., None]
    found = clip_flicker(lambda x: x + checks, [frame.clip(20, 200) for frame in sliding(4)])
    assert found.rms == pytest.approx(30, rel=0.02)  # 2 and 3 pixels on: black is white
    still = clip_flicker(lambda x: x + checks, [sliding(1)[0].clip(20, 200)] * 3)
    assert still.rms == still.film == 0


def test_what_appears_from_behind_does_not_count() -> None:
    far, near = texture(96, 128, 1), texture(40, 40, 2)
    frames = []
    for k in range(4):
        frame = far.copy()
        frame[28:68, 20 + 6 * k : 60 + 6 * k] = near
        frames.append(frame)
    found = clip_flicker(same, frames)
    naive = [np.sqrt(np.square(b.astype(float) - a).mean()) for a, b in pairwise(frames)]
    assert found.film < np.mean(naive) / 4
    assert 0.6 < found.seen < 0.9


def test_the_pictures_of_a_film() -> None:
    frames = sliding(5, size=(33, 47))
    found = clip_flicker(lambda x: 255 - x, frames)
    assert found.slice.shape == (10, 47, 3)
    assert found.slice.dtype == found.difference.dtype == np.uint8
    for k, frame in enumerate(frames):
        np.testing.assert_array_equal(found.slice[k], frame[16])
        np.testing.assert_array_equal(found.slice[5 + k], 255 - frame[16])
    assert found.difference.shape == (33, 94, 3)
    # Of a negative the differences are negative, too, and grey where the film was not in sight.
    film, own = found.difference[:, :47].astype(int), found.difference[:, 47:].astype(int)
    assert np.abs(film + own - 256).max() <= 3
    assert (film[-2:] == 128).all()
    assert (film[:, -3:] == 128).all()
    assert np.ptp(film) > 2


def test_frames_are_let_go() -> None:
    """A long film does not stay in memory."""
    alive: list[weakref.ref[Array]] = []

    def film() -> Iterator[Array]:
        for frame in sliding(8, size=(32, 40)):
            fresh = frame.copy()
            alive.append(weakref.ref(fresh))
            yield fresh

    def repaint(image: Array) -> Array:
        made = 255 - image
        alive.append(weakref.ref(made))
        return made

    most = 0

    def look(_: int) -> None:
        nonlocal most
        most = max(most, sum(ref() is not None for ref in alive))

    found = clip_flicker(repaint, film(), look)
    assert found.frames == 8
    assert most <= 4  # the newest two, and their pictures


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([], "two frames or more"),
        (sliding(1), "two frames or more"),
        ([np.zeros((8, 8, 3), np.uint8)] * 2, "8×8 pixels: give a video"),
        ([np.zeros((32, 40, 3), np.uint8), np.zeros((40, 32, 3), np.uint8)], "40×32 and 32×40"),
    ],
)
def test_films_that_cannot_be_compared(frames: list[Array], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        clip_flicker(same, frames)


@pytest.mark.parametrize("name", ["Wave", "$x_{$ and _y", "a\nb"])
def test_pictures_of_any_name(name: str, tmp_path: Path) -> None:
    found = clip_flicker(same, sliding(3, size=(32, 48)))
    paths = save_pictures(found, tmp_path / "new" / "folder", name)
    assert [path.name for path in paths] == ["flicker.png", "slice.png", "difference.png"]
    assert {path.name for path in paths[0].parent.iterdir()} == {path.name for path in paths}
    plot, rows, difference = map(load_image, paths)
    assert plot.std() > 5
    np.testing.assert_array_equal(rows, found.slice.repeat(80, 0))
    np.testing.assert_array_equal(difference, found.difference)


def nst(*arguments: object) -> tuple[int, str, str]:
    """Status, standard output, and all that was said in one line."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, " ".join(result.output.split())


@pytest.fixture
def photo(tmp_path: Path, photograph: Array) -> Path:
    path = tmp_path / "photo.png"
    save_image(path, photograph)
    return path


def test_the_command_on_a_film(
    tmp_path: Path, model_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_clip(Path("film.mp4"), sliding(7, size=(64, 96)))
    status, table, said = nst("flicker", model_path, "film.mp4", "--content", photo, "--frames", 5)
    assert status == 0, said
    rows = {line.split()[0]: line for line in table.splitlines()}
    assert list(rows) == [*MOTIONS, "video"]
    assert "style Tiny on cpu, photographs: 1" in said
    folder = Path("tiny-flicker")
    assert {path.name for path in folder.iterdir()} == {
        "flicker.png",
        "slice.png",
        "difference.png",
    }
    assert load_image(folder / "flicker.png").std() > 5
    assert load_image(folder / "slice.png").shape == (10 * 48, 96, 3)
    assert load_image(folder / "difference.png").shape == (64, 192, 3)
    # As JSON the same numbers, which are those of the library.
    options = ("--content", photo, "--frames", 5, "--out", "other", "--json")
    status, text, said = nst("flicker", model_path, "film.mp4", *options)
    assert status == 0, said
    numbers = json.loads(text)
    assert (numbers["style"], numbers["photographs"]) == ("Tiny", 1)
    with Stylizer(model_path) as stylizer:
        expected = motion_flicker(stylizer, [load_image(photo)])
    for motion, error in zip(numbers["motions"], expected, strict=True):
        assert motion == {
            "motion": error.motion,
            "rms": pytest.approx(error.rms, rel=1e-3),
            "photographs": pytest.approx(error.photographs),
        }
        row = rows[error.motion]
        assert f"{motion['rms']:.1f} levels" in row
        assert f"{motion['photographs']:.1f} in the photographs" in row
    clip = numbers["clip"]
    assert clip["frames"] == 5
    assert len(clip["errors"]) == 4
    assert f"{clip['rms']:.1f} levels" in rows["video"]
    assert f"{clip['film']:.1f} in the video itself" in rows["video"]
    assert clip["rms"] > 2 * clip["film"]  # this network paints noise
    assert len(list(Path("other").iterdir())) == 3


def test_the_command_without_a_film(
    tmp_path: Path, model_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    status, text, said = nst("flicker", model_path, "--content", photo, "--json")
    assert status == 0, said
    numbers = json.loads(text)
    assert numbers["clip"] is None
    assert [motion["motion"] for motion in numbers["motions"]] == list(MOTIONS)
    assert set(tmp_path.iterdir()) == before


def test_the_command_stabilizes(
    tmp_path: Path, model_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A still scene with noise: the film is repainted as `nst video --stabilize` does."""
    monkeypatch.chdir(tmp_path)
    scene, rng = texture(64, 96), np.random.default_rng(0)
    frames = [
        (scene + rng.normal(0, 4, scene.shape)).clip(0, 255).astype(np.uint8) for _ in range(6)
    ]
    make_clip(Path("film.mp4"), frames, options={"crf": "1"})
    found = []
    for options in ((), ("--stabilize",)):
        status, text, said = nst(
            "flicker", model_path, "film.mp4", "--content", photo, "--json", *options
        )
        assert status == 0, said
        found.append(json.loads(text))
    assert found[0]["motions"] == found[1]["motions"]  # photographs are moved one by one
    assert found[0]["clip"]["film"] == found[1]["clip"]["film"]
    assert found[1]["clip"]["rms"] < 0.6 * found[0]["clip"]["rms"]


def test_photographs_that_cannot_be_read_are_named_and_the_rest_goes_on(
    tmp_path: Path, model_path: Path, photo: Path
) -> None:
    (tmp_path / "text.png").write_text("this is not an image")
    status, table, said = nst("flicker", model_path, "--content", tmp_path)
    assert status == 1
    assert said.count("error: ") == 1
    assert "text.png" in said
    assert [line.split()[0] for line in table.splitlines()] == list(MOTIONS)
    assert photo.exists()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("missing.onnx",), 1, "missing.onnx does not exist"),
        (("text.mp4",), 1, "text.mp4"),
        (("model.onnx", "missing.mp4"), 1, "missing.mp4 does not exist"),
        (("model.onnx", "text.mp4"), 1, "no video that can be read"),
        (("model.onnx", "one.mp4"), 2, "two frames or more"),
        (("model.onnx", "film.mp4", "--frames", 1), 2, "frames is 1"),
        (("model.onnx", "film.mp4", "--limit", 0), 2, "limit is 0"),
        (("model.onnx", "film.mp4", "--content", "missing.png"), 1, "missing.png does not exist"),
        (("model.onnx", "film.mp4", "--content", "text.mp4"), 1, "text.mp4"),
        (("model.onnx", "film.mp4", "--out", "text.mp4"), 1, "text.mp4"),
        (("model.onnx", "--threads", -1), 2, "threads is -1"),
    ],
)
def test_bad_input(
    arguments: tuple[object, ...],
    status: int,
    words: str,
    tmp_path: Path,
    model_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.onnx").write_bytes(model_path.read_bytes())
    Path("text.mp4").write_text("This is no video.\n" * 20)
    make_clip(Path("film.mp4"), sliding(3, size=(32, 48)))
    make_clip(Path("one.mp4"), sliding(1, size=(32, 48)))
    before = {path.name for path in tmp_path.iterdir()}
    got, _, said = nst("flicker", *arguments)
    assert (got, said.count("error: ")) == (status, 1), said
    assert words in said
    assert "Traceback" not in said
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_film_in_its_order(model_path: Path) -> None:
    """What remembers is called frame after frame, once each."""
    frames = sliding(4, size=(32, 48))
    seen: list[Array] = []
    with Stylizer(model_path) as stylizer:
        steady = TemporalStylizer(stylizer)
        clip_flicker(lambda image: seen.append(image) or steady(image), frames)
    assert len(seen) == 4
    assert all(a is b for a, b in zip(seen, frames, strict=True))
