"""Numbered images and GIF: in the order people count, at the right time, whole or not at all."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import decoded, make_clip, packets, pictures
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from nst.cli.app import app
from nst.errors import NstError, UsageError, VideoError
from nst.infer.video.pipeline import repaint_video
from nst.infer.video.reader import Frame
from nst.infer.video.sequence import GIFWriter, SequenceReader, SequenceWriter, is_sequence
from nst.io.images import Array, load_image, save_image

TEN = Fraction(10)
MILLI = Fraction(1, 1000)


def flat(value: int, size: tuple[int, int] = (32, 40)) -> Array:
    return np.full((*size, 3), value, np.uint8)


def folder_of(folder: Path, names: Sequence[str]) -> Path:
    """Flat images whose grey is their place in `names`."""
    for value, name in enumerate(names):
        save_image(folder / name, flat(value))
    return folder


def frames_of(path: Path, rate: Fraction = TEN, **options: float) -> list[Frame]:
    with SequenceReader(path, rate, **options) as reader:
        return [part for part in reader if isinstance(part, Frame)]


def greys(path: Path, **options: float) -> list[int]:
    return [int(frame.image[0, 0, 0]) for frame in frames_of(path, **options)]


def off(one: Array, other: Array) -> float:
    return float(np.abs(one.astype(float) - other).mean())


ASCII = sys.getfilesystemencoding() == "ascii"


def nst(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.parametrize(
    "names",
    [
        ["1.png", "2.png", "9.png", "10.png", "11.png", "100.png"],
        ["shot 1 of 9.png", "shot 2 of 10.png", "shot 2 of 11.png", "shot 10 of 2.png"],
        ["007.png", "08.png", "9.png", "0010.png"],
        pytest.param(
            ["1.png", "1²2.png", "2.png"],  # a digit to Python, no number to anyone
            marks=pytest.mark.skipif(ASCII, reason="files cannot have such names there"),
        ),
    ],
)
def test_a_folder_in_the_order_people_count(names: list[str], tmp_path: Path) -> None:
    folder_of(tmp_path, names)
    (tmp_path / "notes 3.txt").write_text("no image")
    (tmp_path / ".4.png").write_bytes(b"hidden")
    frames = frames_of(tmp_path)
    assert [int(frame.image.max()) for frame in frames] == list(range(len(names)))
    assert [frame.pts for frame in frames] == list(range(len(names)))


@pytest.mark.parametrize(
    ("pattern", "names", "others"),
    [
        (
            "a%03d.png",
            ["a001.png", "a002.png", "a010.png", "a1000.png"],
            ["a3.png", "a0004.png", "xa005.png", "a006.png.png", "a007.jpg", "A008.png", "a.png"],
        ),
        ("%d.png", ["0.png", "7.png", "10.png"], ["08.png", "x9.png", "9x.png", "-1.png"]),
        ("a+(%02d].png", ["a+(01].png", "a+(02].png"], ["aa(03].png", "a+(4].png"]),
    ],
)
def test_a_pattern_takes_the_names_that_match_exactly(
    pattern: str, names: list[str], others: list[str], tmp_path: Path
) -> None:
    folder_of(tmp_path, [*names, *others])
    assert is_sequence(tmp_path / pattern)
    assert greys(tmp_path / pattern) == list(range(len(names)))


def test_a_video_with_a_percent_sign_in_its_name_is_a_video(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "50%done.mp4", pictures(3))
    assert not is_sequence(source)
    assert repaint_video(lambda image: image, source, tmp_path / "b.mp4").frames == 3


def test_a_video_to_be_may_have_one_too(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", pictures(3))
    repaint_video(lambda image: image, source, tmp_path / "50%done.mp4")
    assert len(decoded(tmp_path / "50%done.mp4")[0]) == 3


def test_a_part_of_it(tmp_path: Path) -> None:
    folder_of(tmp_path, [f"{k}.png" for k in range(12)])
    rate = Fraction(4)
    with SequenceReader(tmp_path, rate, start=0.5, duration=1) as reader:
        assert (reader.seconds, reader.time_base, reader.rate) == (1, Fraction(1, 4), rate)
        assert (reader.extras, reader.chapters(), reader.metadata) == ((), [], {})
        frames = [part for part in reader if isinstance(part, Frame)]
    assert [(int(f.image.max()), f.pts, f.duration) for f in frames] == [
        (2, 0, 1),
        (3, 1, 1),
        (4, 2, 1),
        (5, 3, 1),
    ]
    assert greys(tmp_path, start=0.9) == [9, 10, 11]
    assert greys(tmp_path, duration=0.3) == [0, 1, 2]
    assert greys(tmp_path, start=1.1, duration=50) == [11]


@pytest.mark.parametrize(
    "options",
    [
        {"start": 0.3},
        {"start": -1},
        {"start": float("nan")},
        {"start": 1e308},
        {"duration": 0},
        {"duration": -1},
        {"duration": 1e308},
    ],
)
def test_parts_that_are_none(options: dict[str, float], tmp_path: Path) -> None:
    folder_of(tmp_path, ["1.png", "2.png", "3.png"])
    with pytest.raises(UsageError, match=r"start|duration"):
        SequenceReader(tmp_path, TEN, **options)


def test_a_bad_image_is_skipped_and_named(tmp_path: Path) -> None:
    folder_of(tmp_path, [f"{k}.png" for k in range(5)])
    (tmp_path / "0.png").write_text("no image")
    whole = (tmp_path / "3.png").read_bytes()
    (tmp_path / "3.png").write_bytes(whole[: len(whole) // 2])
    with SequenceReader(tmp_path, TEN) as reader:
        frames = [part for part in reader if isinstance(part, Frame)]
        list(reader)  # again: it is not counted again
        assert reader.size == (32, 40)
        assert reader.damaged == 2
        assert set(reader.skipped) == {tmp_path / "0.png", tmp_path / "3.png"}
        assert all(str(path) in why for path, why in reader.skipped.items())
    # The others stay where they were in time.
    assert [(int(f.image.max()), f.pts) for f in frames] == [(1, 1), (2, 2), (4, 4)]


def test_where_there_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    folder_of(tmp_path / "full", ["a1.png"])
    for path in ("empty", "missing/%04d.png", "full/b%d.png"):
        with pytest.raises(VideoError, match="names no images"):
            SequenceReader(tmp_path / path, TEN)
    (tmp_path / "full" / "a1.png").write_bytes(b"")
    with pytest.raises(VideoError, match="no image that can be read"):
        SequenceReader(tmp_path / "full", TEN)


def test_other_sizes_become_the_first(tmp_path: Path, photograph: Array) -> None:
    first, double = photograph[:48, :64], photograph
    save_image(tmp_path / "1.png", first)
    save_image(tmp_path / "2.png", double)
    save_image(tmp_path / "3.png", flat(77, (20, 100)))
    frames = frames_of(tmp_path)
    assert [frame.image.shape for frame in frames] == [(48, 64, 3)] * 3
    assert np.array_equal(frames[0].image, first)
    means = double.reshape(48, 2, 64, 2, 3).astype(float).mean((1, 3))
    assert np.abs(frames[1].image - means).max() <= 1
    assert (frames[2].image == 77).all()


def test_images_are_numbered_from_1(tmp_path: Path, photograph: Array) -> None:
    shots = [photograph[k : 32 + k, k : 40 + k] for k in range(11)]
    with SequenceWriter(tmp_path / "new" / "folder" / "p%02d.png") as writer:
        for k, shot in enumerate(shots):
            writer.write(Frame(shot, 40 * k))
            writer.write(av.Packet(8))  # of sound: there is no place for it
    assert (writer.frames, writer.encoder, writer.notes) == (11, "png", [])
    names = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert names == [f"p{k:02d}.png" for k in range(1, 12)]
    for k, shot in enumerate(shots, start=1):
        with Image.open(tmp_path / "new" / "folder" / f"p{k:02d}.png") as made:
            assert np.array_equal(np.asarray(made), shot)


@pytest.mark.parametrize("name", ["%04d.xyz", "%04d.mp4", "%04d", "%04d.gif"])
def test_a_suffix_that_names_no_image(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write images as"):
        SequenceWriter(tmp_path / "new" / name)
    assert not list(tmp_path.iterdir())


WORDS = st.text("ab1._- (+[^$", max_size=4)


@settings(max_examples=25)
@given(before=WORDS, width=st.sampled_from(["", "02", "04", "3"]), after=WORDS)
def test_what_is_written_is_read_again(before: str, width: str, after: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{before}%{width}d{after}.bmp")
        with SequenceWriter(path) as writer:
            for value in range(12):
                writer.write(Frame(flat(value, (2, 2)), value))
        assert greys(path) == list(range(12))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that temporary files go to."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def read_gif(path: Path) -> tuple[list[Array], list[int], int | None]:
    """RGB frames, their milliseconds, and how often it is played; 0 for ever."""
    images, spans = [], []
    with Image.open(path) as gif:
        for number in range(getattr(gif, "n_frames", 1)):
            gif.seek(number)
            spans.append(int(gif.info.get("duration", 0)))
            images.append(np.asarray(gif.convert("RGB")))
        return images, spans, gif.info.get("loop")


def write_gif(
    path: Path, images: Sequence[Array], times: Sequence[int], unit: Fraction = MILLI, last: int = 0
) -> None:
    """`last`: for how long the last one is shown; 0 where nothing is said."""
    with GIFWriter(path, time_base=unit, rate=TEN) as writer:
        for image, time in zip(images, times, strict=True):
            writer.write(Frame(image, time, last if time == times[-1] else 0))
            writer.write(av.Packet(8))
    assert writer.frames == len(images)


def test_a_gif(tmp_path: Path, temporary: Path) -> None:
    images = pictures(5)
    target = tmp_path / "new" / "a.gif"
    write_gif(target, images, [0, 40, 103, 170, 251], last=90)
    made, spans, loop = read_gif(target)
    # In hundredths it is 0, 4, 10, 17, 25 and 34: what is rounded is when, not how long.
    assert spans == [40, 60, 70, 80, 90]
    assert loop == 0
    assert [image.shape for image in made] == [images[0].shape] * 5
    assert all(off(a, b) < 4 for a, b in zip(made, images, strict=True))
    assert not list(temporary.iterdir())
    write_gif(target, images[:2], [0, 40])
    assert read_gif(target)[1] == [40, 100]  # the last as the rate has it


def test_a_gif_does_not_drift(tmp_path: Path) -> None:
    """At 29.97 frames a second a frame lasts 3.337 hundredths."""
    images = [flat(50 + 150 * (k % 2), (4, 4)) for k in range(120)]
    write_gif(tmp_path / "a.gif", images, range(120), Fraction(1001, 30000), last=1)
    made, spans, _ = read_gif(tmp_path / "a.gif")
    assert len(made) == 120
    begins = np.cumsum([0, *spans]) / 1000
    assert np.abs(begins - np.arange(121) * 1001 / 30000).max() <= 0.005 + 1e-9


def test_a_gif_of_a_fast_video_is_not_slow(tmp_path: Path) -> None:
    """Players show no frame for less than two hundredths: of sixty a second some are left out."""
    with GIFWriter(tmp_path / "a.gif", time_base=Fraction(1, 60), rate=Fraction(60)) as writer:
        for number in range(60):
            writer.write(Frame(flat(4 * number), number, 1))
    assert writer.frames == 60
    images, lengths, _ = read_gif(tmp_path / "a.gif")
    assert sum(lengths) == 1000
    assert min(lengths) >= 20
    assert 40 <= len(images) <= 50


def test_a_still_gif_lasts_as_long(tmp_path: Path) -> None:
    write_gif(tmp_path / "a.gif", [flat(90)] * 6, range(0, 600, 100))
    made, spans, _ = read_gif(tmp_path / "a.gif")
    assert sum(spans) == 600
    assert all(off(image, flat(90)) < 2 for image in made)
    write_gif(tmp_path / "one.gif", [flat(90)], [0])
    assert len(read_gif(tmp_path / "one.gif")[0]) == 1


def test_no_half_gif(tmp_path: Path, temporary: Path) -> None:
    target = tmp_path / "a.gif"

    def broken() -> None:
        with GIFWriter(target, time_base=MILLI, rate=TEN) as writer:
            writer.write(Frame(flat(1), 0))
            assert list(temporary.iterdir())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    with GIFWriter(target, time_base=MILLI, rate=TEN) as writer:
        pass
    assert writer.frames == 0
    assert not target.exists()
    target.mkdir()
    with pytest.raises(NstError, match=r"a\.gif is a folder"):  # before anything is repainted
        GIFWriter(target, time_base=MILLI, rate=TEN)
    assert not list(temporary.iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"a.gif", "temporary"}


def test_from_a_clip_to_gif_and_back(tmp_path: Path, model_path: Path, temporary: Path) -> None:
    images = pictures(8)
    source = make_clip(tmp_path / "a.mp4", images, sound="aac")
    options = ("--style", model_path, "--strength", 0, "--crf", 4)
    status, said = nst("video", source, tmp_path / "b.gif", *options)
    assert status == 0, said
    assert "note: sound left out: GIF take none" in said
    assert "8 frames" in said
    made, spans, loop = read_gif(tmp_path / "b.gif")
    assert (spans, loop) == ([40] * 8, 0)
    assert all(off(a, b) < 6 for a, b in zip(made, images, strict=True))
    status, said = nst("video", tmp_path / "b.gif", tmp_path / "c.mp4", *options)
    assert status == 0, said
    again, shown = decoded(tmp_path / "c.mp4")
    assert shown == pytest.approx([0.04 * k for k in range(8)], abs=1e-3)
    assert all(off(a, b) < 6 for a, b in zip(again, made, strict=True))
    assert not list(temporary.iterdir())


def test_from_a_clip_to_images_and_back(tmp_path: Path, model_path: Path) -> None:
    images = pictures(12)
    source = make_clip(tmp_path / "a.mp4", images, sound="aac", subtitles=False)
    options = ("--style", model_path, "--strength", 0, "--crf", 4)
    folder = tmp_path / "painted"
    status, said = nst("video", source, folder / "%04d.png", *options)
    assert status == 0, said
    assert "note: sound left out: images take none" in said
    assert sorted(path.name for path in folder.iterdir()) == [f"{k:04d}.png" for k in range(1, 13)]
    for k, image in enumerate(images, start=1):
        assert off(load_image(folder / f"{k:04d}.png"), image) < 4
    for path in (folder, folder / "%04d.png"):
        status, said = nst("video", path, tmp_path / "b.mp4", "--fps", 10, *options)
        assert status == 0, said
        made, shown = decoded(tmp_path / "b.mp4")
        assert shown == [round(0.1 * k, 4) for k in range(12)]
        assert all(off(a, b) < 5 for a, b in zip(made, images, strict=True))
        assert packets(tmp_path / "b.mp4", "audio") == []


def test_a_bad_image_in_a_video(tmp_path: Path, model_path: Path) -> None:
    """It is named, the others are repainted at their times, and the status is 1."""
    folder_of(tmp_path / "frames", [f"{k}.png" for k in range(5)])
    (tmp_path / "frames" / "2.png").write_text("no image")
    options = ("--style", model_path, "--fps", 10)
    status, said = nst("video", tmp_path / "frames", tmp_path / "b.mp4", *options)
    assert status == 1
    assert said.count("error: ") == 1
    assert f"{tmp_path / 'frames' / '2.png'} is not an image" in said
    assert decoded(tmp_path / "b.mp4")[1] == [0, 0.1, 0.3, 0.4]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("nothing", "b.mp4"), 1, ["nothing names no images"]),
        (("missing/%04d.png", "b.mp4"), 1, ["missing/%04d.png names no images"]),
        (("frames", "%04d.xyz"), 2, ["no suffix that names a video format"]),
        (("frames", "text.txt/%04d.png"), 1, ["cannot write text.txt/0001.png"]),
        (("frames", "text.txt/a.gif"), 1, ["cannot write text.txt/a.gif"]),
        (("frames", "folder.gif"), 1, ["folder.gif is a folder"]),
        (("frames", "b.mp4", "--fps", "0"), 2, ["fps is 0"]),
        (("frames", "b.mp4", "--fps", "1e-9"), 2, ["fps is 1e-09"]),
        (("frames", "b.mp4", "--fps", "1e9"), 2, ["fps is 1e+09"]),
        (("frames", "b.mp4", "--start", "9"), 2, ["start 9 is beyond the end of frames: 0.12 s"]),
        (("frames", "b.mp4", "--start", "1e308"), 2, ["start is 1e+308"]),
        (("frames", "frames/%d.png"), 2, ["would overwrite images of frames"]),
        (("frames/%d.png", "frames/../frames/%01d.png"), 2, ["would overwrite images"]),
        (("frames", "frames/a.gif"), 2, ["would overwrite images of frames"]),
        (("frames/%d.png", "frames/%d.png"), 2, ["is the video to be repainted"]),
    ],
)
def test_bad_input(
    arguments: tuple[str, ...],
    status: int,
    words: list[str],
    tmp_path: Path,
    model_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    folder_of(Path("frames"), ["1.png", "2.png"])
    Image.fromarray(flat(9)).save("frames/a.gif")
    Path("text.txt").write_text("This is no folder.")
    Path("nothing").mkdir()
    Path("folder.gif").mkdir()
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    got, said = nst("video", *arguments, "--style", model_path)
    assert (got, said.count("error: ")) == (status, 1), said
    assert all(word in said for word in words), said
    assert "Traceback" not in said
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before
