"""Video files: sound and metadata stay, damage is reported."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from clips import decoded, make_clip, packets, pictures
from processes import ctrl_c_enabled
from typer.testing import CliRunner

from nst.cli.app import app
from nst.color.transfer import keep_color
from nst.errors import NstError, UsageError, VideoError
from nst.infer.runtime.stylizer import Stylizer
from nst.infer.video.pipeline import WAITING, VideoProgress, repaint_video, run_stages
from nst.infer.video.reader import Frame, VideoReader
from nst.infer.video.schedule import VideoStyle, VideoStylizer
from nst.infer.video.writer import EncodeConfig, VideoWriter
from nst.io.images import Array

FINE = EncodeConfig(crf=4)


def same(image: Array) -> Array:
    return image


def darker(image: Array) -> Array:
    return image // 2


def framewise(function: Callable[[Array], Array]) -> Callable[[Frame], Frame]:
    return lambda frame: replace(frame, image=function(frame.image))


def frames_of(path: Path, **options: Any) -> list[Frame]:
    with VideoReader(path, **options) as reader:
        return [part for part in reader if isinstance(part, Frame)]


def off(one: Array, other: Array) -> float:
    return float(np.abs(one.astype(float) - other).mean())


@pytest.mark.parametrize(
    ("suffix", "sound"), [(".mp4", "aac"), (".mkv", "aac"), (".mkv", "libopus")]
)
def test_sound_times_chapters_and_title_stay(suffix: str, sound: str, tmp_path: Path) -> None:
    times = [0, 33, 70, 150, 180, 230, 300, 333, 420, 460]  # none like the other
    images = pictures(len(times))
    source = make_clip(tmp_path / f"a{suffix}", images, times, sound=sound, chapters=True)
    target = tmp_path / f"b{suffix}"
    result = repaint_video(darker, source, target, encode=FINE)
    assert (result.frames, result.shortfall, result.damaged) == (10, 0, 0)
    assert result.notes == ()
    assert packets(target, "audio") == packets(source, "audio")
    assert len(packets(target, "audio")) > 15
    made, shown = decoded(target)
    assert shown == decoded(source)[1]
    assert all(off(image, expected // 2) < 4 for image, expected in zip(made, images, strict=True))
    with av.open(str(source)) as one, av.open(str(target)) as other:
        assert one.duration is not None
        assert other.duration == pytest.approx(one.duration, abs=2000)
        assert other.metadata["title"] == "A clip"
        titles = [chapter["metadata"]["title"] for chapter in other.chapters()]
        spans = [[float(c[k] * c["time_base"]) for k in ("start", "end")] for c in other.chapters()]
        assert titles == ["One", "Two"]
        assert spans == [[0, 0.4], [0.4, 0.9]]


def yuv(rgb: Array, red: float, blue: float, full: bool) -> np.ndarray[Any, Any]:
    """Convert RGB to Y'CbCr by the definition, with the matrix's weights of red and blue."""
    r, g, b = np.moveaxis(rgb / 255.0, -1, 0)
    y = red * r + (1 - red - blue) * g + blue * b
    cb, cr = (b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)
    scale = (255, 0, 255) if full else (219, 16, 224)
    return np.stack([y * scale[0] + scale[1], cb * scale[2] + 128, cr * scale[2] + 128], -1)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("matrix", "red", "blue"), [(5, 0.299, 0.114), (1, 0.2126, 0.0722)])
def test_colours_by_the_definition(
    matrix: int, red: float, blue: float, full: bool, tmp_path: Path
) -> None:
    colors = np.array([[200, 40, 30], [30, 160, 60], [40, 60, 210], [230, 220, 40]], np.uint8)
    image = colors[:, None].repeat(16, 0).repeat(64, 1)
    span = 2 if full else 1
    source = make_clip(tmp_path / "a.mp4", [image] * 3, colors=(matrix, span))
    (frame, *_) = frames_of(source)
    inner = (slice(4, None, 16), 32)
    assert np.abs(frame.image[inner].astype(int) - colors).max() <= 3
    repaint_video(same, source, tmp_path / "b.mp4", encode=EncodeConfig(crf=1))
    with av.open(str(tmp_path / "b.mp4")) as video:
        made = next(video.decode(video.streams.video[0]))
        planes = made.to_ndarray()
        assert made.colorspace == matrix
        assert (made.color_range == 2) is full
    y, u, v = planes[:64], planes[64:80].reshape(32, 32), planes[80:].reshape(32, 32)
    expected = yuv(colors, red, blue, full)
    for got, wanted in ((y[inner], 0), (u[2::8, 16], 1), (v[2::8, 16], 2)):
        assert np.abs(got - expected[:, wanted]).max() <= 3


def test_where_nothing_is_said_hd_is_bt709(tmp_path: Path) -> None:
    for size, matrix in (((48, 64), 5), ((720, 960), 1)):
        images = pictures(1, size)
        with VideoReader(make_clip(tmp_path / "a.mp4", images, colors=None)) as reader:
            assert (reader.colors.matrix, reader.colors.range) == (matrix, 1)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_a_turned_video_is_repainted_upright(rotation: int, tmp_path: Path) -> None:
    images = pictures(4)
    source = make_clip(tmp_path / "a.mp4", images, rotation=rotation)
    upright = [np.rot90(image, rotation // 90) for image in images]
    seen: list[Array] = []
    repaint_video(
        lambda image: seen.append(image) or image, source, tmp_path / "b.mp4", encode=FINE
    )
    assert all(off(a, b) < 4 for a, b in zip(seen, upright, strict=True))
    assert all(image.flags.c_contiguous for image in seen)
    with av.open(str(tmp_path / "b.mp4")) as video:
        frame = next(video.decode(video.streams.video[0]))
        assert frame.rotation == 0
        assert (frame.height, frame.width) == upright[0].shape[:2]


def test_odd_sides_gain_a_row_and_a_column(tmp_path: Path) -> None:
    images = pictures(3, (47, 63))
    source = make_clip(tmp_path / "a.mkv", images)
    seen: list[Array] = []
    repaint_video(
        lambda image: seen.append(image) or image, source, tmp_path / "b.mp4", encode=FINE
    )
    assert {image.shape for image in seen} == {(47, 63, 3)}
    made, _ = decoded(tmp_path / "b.mp4")
    assert made[0].shape == (48, 64, 3)
    assert off(made[0][:47, :63], images[0]) < 4
    assert off(made[0][47], made[0][46]) < 6


def test_a_part_of_a_video(tmp_path: Path) -> None:
    images = pictures(50)
    source = make_clip(tmp_path / "a.mp4", images, sound="aac", chapters=True)
    target = tmp_path / "b.mp4"
    result = repaint_video(same, source, target, start=0.6, duration=0.8, encode=FINE)
    assert (result.frames, result.shortfall) == (20, 0)
    made, shown = decoded(target)
    assert shown == [round(0.04 * k, 4) for k in range(20)]
    assert all(off(a, b) < 4 for a, b in zip(made, images[15:35], strict=True))
    whole = packets(source, "audio")
    part = packets(target, "audio")
    first = next(k for k, (_, data) in enumerate(whole) if data == part[0][1])
    assert [data for _, data in part] == [data for _, data in whole[first : first + len(part)]]
    # It is the sound of those pictures.
    assert part[0][0] == pytest.approx(whole[first][0] - 0.6, abs=0.002)
    assert 0 <= whole[first][0] - 0.6 < 0.03
    assert part[-1][0] == pytest.approx(0.8, abs=0.03)
    with av.open(str(target)) as video:
        assert video.chapters() == []
    with pytest.raises(UsageError, match="beyond the end"):
        repaint_video(same, source, target, start=9)


def test_a_smaller_video_keeps_its_shape(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", pictures(3, (96, 128)))
    seen = []
    repaint_video(
        lambda image: seen.append(image.shape) or image, source, tmp_path / "b.mp4", size=64
    )
    assert set(seen) == {(48, 64, 3)}
    assert decoded(tmp_path / "b.mp4")[0][0].shape == (48, 64, 3)


def test_each_frame_keeps_its_colours(tmp_path: Path, model_path: Path) -> None:
    images = pictures(3)
    source = make_clip(tmp_path / "a.mp4", images)
    with VideoStylizer(
        VideoStyle(((model_path, 0.0),), strength=0.2, keep_color="luminance")
    ) as painter:
        repaint_video(painter, source, tmp_path / "b.mp4", encode=FINE)
    with Stylizer(model_path) as stylizer:
        for made, image in zip(decoded(tmp_path / "b.mp4")[0], images, strict=True):
            assert off(made, keep_color(stylizer(image, 0.2), image, "luminance")) < 5


def test_what_a_container_does_not_take(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mkv", pictures(25), sound="aac", subtitles=True)
    result = repaint_video(same, source, tmp_path / "b.mkv")
    assert result.notes == ()
    assert packets(tmp_path / "b.mkv", "subtitle") == [(0.1, b"Hello")]
    result = repaint_video(same, source, tmp_path / "b.mp4")
    assert result.notes == ("subtitles left out: a .mp4 file takes no subrip",)
    assert packets(tmp_path / "b.mp4", "audio") == packets(source, "audio")
    result = repaint_video(same, source, tmp_path / "b.webm")
    assert result.encoder == "libvpx-vp9"
    assert result.notes[0] == "sound: a .webm file takes no aac: opus"
    with av.open(str(tmp_path / "b.webm")) as video:
        heard = np.concatenate([f.to_ndarray().mean(0) for f in video.decode(audio=0)])
        rate = video.streams.audio[0].rate
    assert len(heard) / rate == pytest.approx(1, abs=0.08)
    tone = np.abs(np.fft.rfft(heard)).argmax() * rate / len(heard)
    assert tone == pytest.approx(48000 / (20 * 2 * np.pi), rel=0.02)


@pytest.mark.parametrize("codec", ["hevc", "av1", "vp9", "mpeg4", "libx264"])
def test_codecs(codec: str, tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", pictures(4, (64, 96)))
    config = EncodeConfig(codec, crf=20 if codec != "mpeg4" else None)
    repaint_video(same, source, tmp_path / "b.mkv", encode=config)
    with av.open(str(tmp_path / "b.mkv")) as video:
        name = video.streams.video[0].codec_context.codec.canonical_name
        assert name == {"libx264": "h264"}.get(codec, codec)
    assert off(decoded(tmp_path / "b.mkv")[0][0], decoded(source)[0][0]) < 8


def test_hardware_that_is_not_there_is_told(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", pictures(3))
    result = repaint_video(same, source, tmp_path / "b.mp4", encode=EncodeConfig(hardware=True))
    noted = result.notes == ("no hardware encodes h264 here: libx264 does",)
    assert noted or result.encoder != "libx264"


def test_a_truncated_video_is_repainted_as_far_as_it_goes(tmp_path: Path, model_path: Path) -> None:
    whole = make_clip(tmp_path / "a.mkv", pictures(100), sound="aac")
    data = whole.read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(data[: len(data) // 2])
    result = repaint_video(same, cut, tmp_path / "b.mkv")
    assert 20 < result.frames < 80
    assert result.shortfall == pytest.approx(4 - result.frames / 25, abs=0.1)
    status, said = nst("video", cut, tmp_path / "c.mkv", "--style", model_path)
    assert status == 1
    assert "is damaged or cut off" in said
    assert len(decoded(tmp_path / "c.mkv")[0]) == result.frames


def test_damage_in_the_middle_is_passed_over(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mkv", pictures(100), sound="aac")
    data = bytearray(source.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = os.urandom(3000)
    (tmp_path / "hurt.mkv").write_bytes(data)
    result = repaint_video(same, tmp_path / "hurt.mkv", tmp_path / "b.mkv")
    assert 50 < result.frames < 101
    made, shown = decoded(tmp_path / "b.mkv")
    assert shown == sorted(set(shown))
    assert off(made[10], decoded(source)[0][10]) < 8


@pytest.mark.parametrize("suffix", [".ts", ".h264", ".avi", ".mpg", ".wmv"])
def test_other_containers_begin_with_their_first_frame(suffix: str, tmp_path: Path) -> None:
    """Some can't seek to their beginning, some have no timestamps."""
    images = pictures(60)
    codec = {".mpg": "mpeg2video", ".wmv": "msmpeg4v3"}.get(suffix, "libx264")
    options = {"g": "50"}
    if codec != "libx264":
        options["b"] = "2000000"
    if suffix == ".avi":
        options["bf"] = "0"
    source = make_clip(tmp_path / f"a{suffix}", images, codec=codec, options=options, rate=True)
    result = repaint_video(same, source, tmp_path / "b.mp4", encode=FINE)
    assert result.frames == 60
    made, shown = decoded(tmp_path / "b.mp4")
    assert np.diff(shown) == pytest.approx(np.full(59, 0.04), abs=0.002)
    assert all(off(a, b) < 12 for a, b in zip(made, images, strict=True))


def test_a_start_is_found_where_seeking_is_coarse(tmp_path: Path) -> None:
    images = pictures(75)
    source = make_clip(tmp_path / "a.ts", images, options={"g": "70"})
    repaint_video(same, source, tmp_path / "b.mp4", start=1, encode=FINE)
    made, shown = decoded(tmp_path / "b.mp4")
    # The file begins two frames before the first, with its decoding.
    assert 0 <= shown[0] < 0.04
    assert len(made) == pytest.approx(51, abs=1)
    assert min(off(made[0], image) for image in images[22:26]) < 6


def test_recordings_put_together_are_shown_one_after_the_other(tmp_path: Path) -> None:
    one = make_clip(tmp_path / "a.ts", pictures(50), sound="aac").read_bytes()
    (tmp_path / "two.ts").write_bytes(one + one)
    result = repaint_video(same, tmp_path / "two.ts", tmp_path / "b.mp4")
    assert result.frames == 100
    _, shown = decoded(tmp_path / "b.mp4")
    assert np.diff(shown) == pytest.approx(np.full(99, 0.04), abs=0.01)
    times = [time for time, _ in packets(tmp_path / "b.mp4", "audio")]
    assert times == sorted(set(times))
    assert times[-1] == pytest.approx(4, abs=0.2)


def test_an_avi_can_be_repainted_again(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", pictures(30))
    repaint_video(same, source, tmp_path / "b.avi")
    _, shown = decoded(tmp_path / "b.avi")
    assert np.diff(shown) == pytest.approx(np.full(29, 0.04), abs=0.001)
    assert repaint_video(same, tmp_path / "b.avi", tmp_path / "c.mp4").frames == 30


def test_sound_that_is_longer_is_no_damage(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mkv", pictures(25), sound="aac", sound_frames=75)
    assert packets(source, "audio")[-1][0] > 2.5
    assert repaint_video(same, source, tmp_path / "b.mkv").shortfall == 0


def test_surround_sound_for_another_container(tmp_path: Path) -> None:
    layout = "5.1(side)"
    source = make_clip(tmp_path / "a.mkv", pictures(25), sound="ac3", layout=layout)
    result = repaint_video(same, source, tmp_path / "b.webm")
    assert result.notes == ("sound: a .webm file takes no ac3: opus",)
    with av.open(str(tmp_path / "b.webm")) as video:
        assert video.streams.audio[0].channels == 6


def test_without_a_frame_the_target_stays(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", pictures(25))
    target = tmp_path / "b.mp4"
    target.write_bytes(b"kept")
    with pytest.raises(VideoError, match="no frame there"):
        repaint_video(same, source, target, start=0.99)

    def never(_: Array) -> Array:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repaint_video(never, source, target)
    assert target.read_bytes() == b"kept"
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "b.mp4"}


def test_ctrl_c_while_the_last_frames_are_written() -> None:
    main = threading.get_ident()

    def functions() -> Iterator[str]:
        frame = sys._current_frames().get(main)
        while frame is not None:
            yield frame.f_code.co_name
            frame = frame.f_back

    class Interrupting(Kept):
        def write(self, part: Any) -> None:
            if not self.parts:
                while "finish" not in functions():  # in which all is painted
                    time.sleep(0.005)
                if sys.platform == "win32":
                    signal.raise_signal(signal.SIGINT)
                else:
                    signal.pthread_kill(main, signal.SIGINT)
            super().write(part)

    sink, before = Interrupting(), threading.active_count()
    with ctrl_c_enabled():
        assert run_stages(Numbers(WAITING), framewise(same), sink)
    assert [part.pts for part in sink.parts] == list(range(WAITING))
    assert threading.active_count() <= before


def test_ctrl_c_leaves_a_file_of_what_was_done(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", pictures(60), sound="aac")
    count = 0

    def impatient(image: Array) -> Array:
        nonlocal count
        count += 1
        if count == 12:
            raise KeyboardInterrupt
        return image

    result = repaint_video(impatient, source, tmp_path / "b.mp4")
    assert result.interrupted
    assert (result.frames, result.shortfall) == (11, 0)
    assert len(decoded(tmp_path / "b.mp4")[0]) == 11
    assert not list(tmp_path.glob(".*"))


def test_progress(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", pictures(20))
    seen: list[VideoProgress] = []
    repaint_video(same, source, tmp_path / "b.mp4", callback=seen.append)
    assert [progress.frames for progress in seen] == list(range(1, 21))
    shares = [progress.done for progress in seen]
    assert shares == pytest.approx([k / 20 for k in range(20)], abs=0.02)
    assert seen[-1].seconds_left is not None
    assert seen[-1].frames_per_second > 0


class Numbers:
    """A source that counts the frames that were read."""

    def __init__(self, count: int) -> None:
        self.count, self.read = count, 0

    def __iter__(self) -> Iterator[Frame]:
        for k in range(self.count):
            self.read += 1
            yield Frame(np.full((2, 2, 3), k % 256, np.uint8), k)


class Kept:
    """A sink that may be slow, or break."""

    def __init__(self, slow: float = 0.0, breaks: int = -1) -> None:
        self.parts: list[Frame] = []
        self.slow, self.breaks = slow, breaks
        self.thread: threading.Thread | None = None

    def write(self, part: Any) -> None:
        self.thread = threading.current_thread()
        time.sleep(self.slow)
        if len(self.parts) == self.breaks:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.parts.append(part)


def test_stages_keep_the_order_and_little_in_memory() -> None:
    source, sink = Numbers(60), Kept(0.002)
    ahead: list[int] = []

    def paint(image: Array) -> Array:
        ahead.append(source.read - len(sink.parts))
        return image + 1

    assert run_stages(source, framewise(paint), sink) is False
    assert [part.pts for part in sink.parts] == list(range(60))
    assert all((part.image == part.pts + 1).all() for part in sink.parts)
    assert max(ahead) <= 2 * WAITING + 4
    assert sink.thread is not threading.current_thread()


def test_an_error_in_any_stage_ends_all() -> None:
    before = threading.active_count()

    def broken() -> Iterator[Frame]:
        yield from Numbers(3)
        raise VideoError("bad")

    with pytest.raises(VideoError, match="bad"):
        run_stages(broken(), framewise(same), Kept())
    with pytest.raises(OSError, match="No space"):
        run_stages(Numbers(1000), framewise(same), Kept(breaks=4))

    def fail(_: Array) -> Array:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_stages(Numbers(1000), framewise(fail), Kept())
    assert threading.active_count() <= before  # threads of other tests may end meanwhile


def nst(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, " ".join(result.output.split())


def test_the_command(tmp_path: Path, model_path: Path) -> None:
    images = pictures(6)
    source = make_clip(tmp_path / "a.mp4", images, sound="aac")
    options = ("--style", model_path, "--crf", 4, "--strength", 0.8)
    status, said = nst("video", source, tmp_path / "b.mp4", *options)
    assert status == 0, said
    assert "6 frames" in said
    with Stylizer(model_path) as stylizer:
        for made, frame in zip(decoded(tmp_path / "b.mp4")[0], frames_of(source), strict=True):
            # Colours are kept for blocks of four pixels only, and this network paints noise.
            expected = stylizer(frame.image, 0.8)
            assert off(cv2.blur(made, (8, 8)), cv2.blur(expected, (8, 8))) < 5
            assert off(made, frame.image) > 20
    assert nst("video", source, tmp_path / "c.mp4", *options, "--quiet") == (0, "")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("missing.mp4", "b.mp4"), 1, ["missing.mp4 does not exist"]),
        (("empty.mp4", "b.mp4"), 1, ["empty.mp4 is empty"]),
        (("text.mp4", "b.mp4"), 1, ["text.mp4", "no video that can be read"]),
        ((".", "b.mp4"), 1, [". names no images", "a pattern"]),
        (("sound.mp4", "b.mp4"), 1, ["sound.mp4 holds no video"]),
        (("cut.mp4", "b.mp4"), 1, ["cut.mp4", "damaged"]),
        (("a.mp4", "a.mp4"), 2, ["is the video to be repainted"]),
        (("a.mp4", "folder"), 1, ["folder is a folder"]),
        (("a.mp4", "text.mp4/b.mp4"), 1, ["cannot write", "text.mp4"]),
        (("a.mp4", "b.xyz"), 2, ["b.xyz", "no suffix that names a video format"]),
        (("a.mp4", "b.mp4", "--codec", "nothing"), 2, ["no encoder 'nothing'", "h264"]),
        (("a.mp4", "b.mp4", "--codec", "aac"), 2, ["aac encodes audio"]),
        (("a.mp4", "b.webm", "--codec", "h264"), 2, ["libx264", "does not go into a .webm"]),
        (("a.mp4", "b.mp4", "--crf", "99"), 2, ["crf is 99"]),
        (("a.mp4", "b.mp4", "--preset", "warp"), 2, ["check codec, crf and preset"]),
        (("a.mp4", "b.mp4", "--size", "4"), 2, ["size is 4"]),
        (("a.mp4", "b.mp4", "--start", "-1"), 2, ["start is -1"]),
        (("a.mp4", "b.mp4", "--start", "50"), 2, ["beyond the end"]),
        (("a.mp4", "b.mp4", "--duration", "0"), 2, ["duration is 0"]),
        (("a.mp4", "b.mp4", "--strength", "nan"), 2, ["strength is nan"]),
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
    whole = make_clip(tmp_path / "a.mp4", pictures(10))
    data = whole.read_bytes()
    Path("empty.mp4").touch()
    Path("text.mp4").write_text("This is no video.\n" * 20)
    Path("cut.mp4").write_bytes(data[: len(data) // 2])  # the index of an MP4 is at its end
    Path("folder").mkdir()
    with av.open("sound.mp4", "w") as made:
        stream: Any = made.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        frame.sample_rate = 48000
        made.mux([*stream.encode(frame), *stream.encode(None)])
    before = {path: path.stat().st_mtime_ns for path in Path().iterdir()}
    got, said = nst("video", *arguments, "--style", model_path)
    assert (got, said.count("error: ")) == (status, 1), said
    assert all(word in said for word in words), said
    assert "Traceback" not in said
    assert {path: path.stat().st_mtime_ns for path in Path().iterdir()} == before
    assert whole.read_bytes() == data


DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
from nst.__main__ import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files' sizes there")
def test_a_disk_that_is_full_midway(tmp_path: Path, model_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 96, 128, 3), np.uint8)
    source = make_clip(tmp_path / "a.mp4", list(noise))
    (tmp_path / "b.mp4").write_bytes(b"kept")
    options = ("--style", model_path, "--crf", "1", "--strength", "0")
    ended = subprocess.run(
        [sys.executable, "-c", DISK, "video", source, tmp_path / "b.mp4", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert "error: cannot write" in ended.stderr
    assert "free some space" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert (tmp_path / "b.mp4").read_bytes() == b"kept"
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "b.mp4"}


def test_a_writer_that_breaks_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_clip(tmp_path / "a.mp4", pictures(10))

    def write(*_: object) -> None:
        raise NstError("cannot write")

    monkeypatch.setattr(VideoWriter, "write", write)
    with pytest.raises(NstError, match="cannot write"):
        repaint_video(same, source, tmp_path / "b.mp4")
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4"}


def written_apart(source: Path, target: Path) -> list[str]:
    """Copy a file so that all pictures come before all sound; the kinds of its packets."""
    with (
        av.open(str(source)) as whole,
        av.open(str(target), "w", options={"max_interleave_delta": "1"}) as made,
    ):
        streams = [whole.streams.video[0], whole.streams.audio[0]]
        copies = {stream: made.add_stream_from_template(stream) for stream in streams}
        kept = [packet for packet in whole.demux(*streams) if packet.size]
        for packet in sorted(kept, key=lambda packet: packet.stream.type != "video"):
            packet.stream = copies[packet.stream]
            made.mux(packet)
    with av.open(str(target)) as whole:
        return [packet.stream.type for packet in whole.demux() if packet.size]


@pytest.mark.parametrize("start", [0, 0.6])
def test_a_part_keeps_sound_that_lies_behind_the_pictures(start: float, tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "a.mp4", pictures(75), sound="aac")
    late = tmp_path / "late.mkv"
    kinds = written_apart(whole, late)
    assert kinds.index("audio") > 60  # pictures of more than two seconds
    result = repaint_video(same, late, tmp_path / "b.mkv", start=start, duration=1)
    assert result.frames == 25
    sound = packets(late, "audio")
    heard = [data for time, data in sound if start <= time < start + 1 or time < 0 == start]
    assert len(heard) > 45
    assert [data for _, data in packets(tmp_path / "b.mkv", "audio")] == heard


def test_hdr_is_declared_again(tmp_path: Path) -> None:
    """BT.2020 primaries, the transfer of PQ, and the matrix of BT.2020."""
    source = tmp_path / "a.mp4"
    with av.open(str(source), "w") as made:
        stream: Any = made.add_stream("libx264", rate=25, options={"crf": "4"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = 9, 16, 9
        context.color_range = 1
        for image in pictures(5):
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            made.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace=9)))
        made.mux(stream.encode(None))
    for suffix in (".mp4", ".mkv"):
        target = tmp_path / f"b{suffix}"
        repaint_video(same, source, target, encode=FINE)
        for path in (source, target):
            with av.open(str(path)) as video:
                shown = next(video.decode(video.streams.video[0]))
                said = (shown.color_primaries, shown.color_trc, shown.colorspace)
                assert [int(what) for what in said] == [9, 16, 9]
                assert int(shown.color_range) == 1
        images, _ = decoded(target)
        assert all(off(a, b) < 3 for a, b in zip(images, decoded(source)[0], strict=True))
