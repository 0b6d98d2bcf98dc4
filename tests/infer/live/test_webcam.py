"""The live loop, with files for cameras, lists for windows, and once with a real window."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from clips import decoded, make_clip, pictures
from processes import start
from typer.testing import CliRunner

from nst.cli.app import app
from nst.color.transfer import keep_color
from nst.config import KeepColor
from nst.errors import MissingExtraError, NstError, UsageError, VideoError
from nst.infer.live import camera as camera_module
from nst.infer.live import webcam as webcam_module
from nst.infer.live import window as window_module
from nst.infer.live.camera import Camera
from nst.infer.live.pacer import Pacer
from nst.infer.live.webcam import WebcamConfig, WebcamResult, run_webcam
from nst.infer.live.window import OpenCVWindow, VirtualCamera, check_display, source_of
from nst.infer.video.reader import VideoReader
from nst.io.images import Array, load_image


class Source:
    """A camera of OpenCV's kind: numbered frames at a pace, then an end, or a gap."""

    def __init__(self, count: int, period: float = 0.0, size: tuple[int, int] = (48, 64)) -> None:
        self.count, self.period, self.size = count, period, size
        self.given = 0
        self.released = False
        self.asked: dict[int, float] = {}

    def isOpened(self) -> bool:  # noqa: N802
        return self.count > 0

    def read(self) -> tuple[bool, Array | None]:
        time.sleep(self.period)
        if self.given == self.count:
            return False, None
        self.given += 1
        image = np.zeros((*self.size, 3), np.uint8)
        image[..., 0] = self.given % 256  # blue, in BGR
        image[:, : self.size[1] // 4, 2] = 200
        return True, image

    def get(self, propId: int) -> float:  # noqa: ARG002, N803
        return 1 / self.period if self.period else 0.0

    def set(self, propId: int, value: float) -> bool:  # noqa: N803
        self.asked[propId] = value
        return True

    def release(self) -> None:
        self.released = True


def camera(*sources: Source, **options: Any) -> Camera:
    """A camera that gives one source after another, each time it is opened."""
    left = iter(sources)
    return Camera(0, opener=lambda _: next(left, Source(0)), **{"reconnect": 0.0} | options)


def patient(*sources: Source, **options: Any) -> Camera:
    """A camera that waits until its last frame was taken."""
    made: list[Camera] = []

    def waiting() -> bool:
        if not made:
            return True
        return made[0]._newest is not None and not made[0]._closed

    def wait(read: Callable[[], tuple[bool, Array | None]]) -> tuple[bool, Array | None]:
        while waiting():
            time.sleep(0)
        return read()

    for source in sources:
        source.read = partial(wait, source.read)  # type: ignore[method-assign]
    made.append(camera(*sources, **options))
    return made[0]


class Window:
    """Takes frames, gives keys: a script of {frame number: key}."""

    def __init__(self, keys: dict[int, str] | None = None, close_at: int = -1) -> None:
        self.keys, self.close_at = keys or {}, close_at
        self.images: list[Array] = []
        self.modes: list[bool] = []

    def show(self, image: Array) -> None:
        self.images.append(image)

    def key(self) -> str | None:
        return self.keys.pop(len(self.images), None)

    @property
    def closed(self) -> bool:
        return len(self.images) == self.close_at

    def full_screen(self, on: bool) -> None:
        self.modes.append(on)


class Paint:
    """A style that adds a constant and keeps what it was given."""

    def __init__(self, name: str = "a", add: int = 50, slow: float = 0.0) -> None:
        self.name, self.add, self.slow = name, add, slow
        self.keep_color: KeepColor | None = None
        self.seen: list[tuple[Array, float]] = []

    def __call__(self, image: Array, strength: float = 1.0) -> Array:
        time.sleep(self.slow)
        self.seen.append((image, strength))
        return cv2.add(image, np.full_like(image, round(self.add * strength)))  # type: ignore[return-value]


PLAIN = {"figures": False}


def live(
    styles: Sequence[Paint], cam: Camera, window: Window | None = None, **options: Any
) -> WebcamResult:
    outputs = options.pop("outputs", ())
    say = options.pop("say", lambda _: None)
    with cam:
        return run_webcam(styles, cam, window, WebcamConfig(**PLAIN | options), outputs, say)


def test_every_frame_is_repainted_where_there_is_time() -> None:
    window, style = Window(), Paint()
    result = live([style], patient(Source(8)), window)
    assert (result.frames, result.captured) == (8, 8)
    blues = [int(image[0, -1, 2]) for image in window.images]
    assert blues == [k + 50 for k in range(1, 9)]  # RGB now
    assert window.images[0][0, 0].tolist() == [250, 50, 51]


def test_a_slow_network_skips_frames_and_gets_the_newest() -> None:
    class Gated(Source):
        due = 1  # the frame that is given next, or was given last

        def read(self) -> tuple[bool, Array | None]:
            while self.given == self.due < self.count:
                time.sleep(0.001)
            return super().read()

    class Slow(Paint):
        """Lets the camera give five frames while it repaints one."""

        def __call__(self, image: Array, strength: float = 1.0) -> Array:
            behind.append(source.given - int(image[0, -1, 2]))
            source.due = min(source.due + 5, source.count)
            while source.given < source.due:
                time.sleep(0.001)
            return super().__call__(image, strength)

    source = Gated(60)
    behind: list[int] = []
    window = Window()
    result = live([Slow(slow=0.01)], camera(source), window)
    assert source.given == 60
    assert result.frames <= 60 / 5 + 2
    assert max(behind) <= 1
    assert result.age >= 0.01
    numbers = [int(image[0, -1, 2]) - 50 for image in window.images]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 60


def test_keys() -> None:
    styles = [Paint("a", 10), Paint("b", 100)]
    keys = {1: "n", 2: "n", 3: "p", 4: "-", 5: "-", 6: "+", 7: "s", 8: "s", 9: "m", 10: "m"}
    keys |= {11: "f", 12: "f", 13: "i", 14: "i", 15: "h", 16: "h", 17: "x", 20: "q"}
    window = Window(dict(keys))
    result = live(styles, patient(Source(500)), window)
    assert result.frames == 20
    adds = [int(image[0, -1, 0]) for image in window.images]
    assert adds[:4] == [10, 100, 10, 100]
    assert adds[4:7] == [90, 80, 90]
    split = window.images[7]
    assert (split[0, 40, 0], split[0, 24, 0]) == (90, 0)
    mirrored = window.images[9]
    assert mirrored[0, -1, 0] > 200 > mirrored[0, 0, 0]
    assert window.modes == [True, False]
    # Figures and help are written on the picture, and go again.
    written = [int((image[:, 30:, 0] != image[0, -1, 0]).sum()) for image in window.images]
    assert written[13] > 0
    assert written[14] == 0
    assert written[15] > written[13]
    assert written[16] == written[17] == 0


def test_figures_show_style_and_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[list[str]] = []

    def write(image: Array, lines: Sequence[str]) -> Array:
        written.append(list(lines))
        return image

    monkeypatch.setattr(webcam_module, "draw_text", write)
    live([Paint("Wave")], patient(Source(30, 0.01)), Window({3: "-", 5: "h"}), figures=True)
    assert "Wave  100%" in written[0][0]
    assert "Wave  90%" in written[4][0]
    assert float(written[-1][0].split(" fps")[0]) > 0
    assert any(line.startswith("q  quit") for line in written[-1])
    assert all(f"{key}  " in "\n".join(written[-1]) for key in webcam_module.KEYS)


def test_colours_are_kept_by_key_option_or_style() -> None:
    class Swap(Paint):
        def __call__(self, image: Array, strength: float = 1.0) -> Array:
            return super().__call__(np.ascontiguousarray(image[..., ::-1]), strength)

    def kept(style: Swap, window: Window) -> list[bool]:
        found = []
        for (swapped, _), shown in zip(style.seen, window.images, strict=True):
            image = np.ascontiguousarray(swapped[..., ::-1])
            stylized = np.asarray(cv2.add(swapped, np.full_like(image, 50)), np.uint8)
            plain = np.array_equal(shown, stylized)
            assert plain != np.array_equal(shown, keep_color(stylized, image, "luminance"))
            found.append(not plain)
        return found

    window, style = Window({1: "c", 3: "c"}), Swap()
    live([style], patient(Source(6)), window)
    assert kept(style, window) == [False, True, True, False, False, False]
    for option in (True, False):
        window, style = Window({2: "c"}), Swap()
        style.keep_color = None if option else "luminance"
        options = {"keep_color": "luminance"} if option else {}
        live([style], patient(Source(4)), window, **options)
        assert kept(style, window) == [True, True, False, False]


def test_snapshots_and_recordings(tmp_path: Path) -> None:
    said: list[str] = []
    window = Window({2: "space", 3: "space", 4: "r", 14: "r", 16: "q"})
    style, source = Paint(), patient(Source(900, 0.02))
    result = live([style], source, window, snapshots=tmp_path, say=said.append)
    pictures_, clips_ = ([p for p in result.files if p.suffix == s] for s in (".png", ".mp4"))
    assert len(pictures_) == 2
    assert len(clips_) == 1
    np.testing.assert_array_equal(load_image(pictures_[0]), window.images[1])
    frames, times = decoded(clips_[0])
    assert len(frames) == 10
    plain = cv2.add(style.seen[4][0], np.full_like(window.images[4], 50))
    assert np.abs(frames[0].astype(int) - plain).mean() < 3
    assert (window.images[4] != plain).any()  # it says that it is recording
    assert times[0] == 0
    assert times == sorted(set(times))
    assert times[-1] > 0.15  # of 20 ms and more each
    assert [line.split()[0] for line in said] == ["snapshot", "snapshot", "recording", "recorded"]


def test_what_cannot_be_saved_is_said_and_the_session_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "text.txt"
    folder.write_text("This is no folder.")
    said: list[str] = []
    window = Window({2: "space", 4: "r", 6: "n", 9: "q"})
    result = live(
        [Paint("a", 10), Paint("b", 100)],
        patient(Source(500)),
        window,
        snapshots=folder,
        say=said.append,
    )
    assert (result.frames, result.files) == (9, ())
    assert len(said) == 2
    assert all(line.startswith(f"cannot write {folder}/nst-") for line in said)
    assert window.images[-1][0, -1, 0] == 100  # later keys still work


def test_a_folder_that_cannot_be_searched_has_unused_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users other than root meet such folders."""

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    for name in ("stat", "lstat"):
        monkeypatch.setattr(os, name, denied)
    path = webcam_module._unused_name(tmp_path, ".png")
    monkeypatch.undo()
    assert path.parent == tmp_path


class Noise(Source):
    """Frames that take much room in a file."""

    def read(self) -> tuple[bool, Array | None]:
        there, image = super().read()
        rng = np.random.default_rng(self.given)
        return there, None if image is None else rng.integers(0, 256, image.shape, np.uint8)


@contextmanager
def full_disk(most_bytes: int) -> Iterator[None]:
    """Let no file grow beyond a size."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files' sizes there")
@pytest.mark.parametrize(("suffix", "shown"), [(".mp4", True), (".mkv", True), (".mp4", False)])
def test_a_disk_that_fills_up_ends_the_recording(suffix: str, shown: bool, tmp_path: Path) -> None:
    """What was recorded can be played; a session with a window goes on."""
    path = tmp_path / f"a{suffix}"
    said: list[str] = []
    options: dict[str, Any] = {"record": path, "say": said.append}
    with full_disk(200_000):
        # A second of the file, which is all or nothing, must fit well: 25 frames, not 50.
        source = patient(Noise(170, 0.04))
        if shown:
            result = live([Paint(add=0)], source, Window(), **options)
            assert result.captured == 170
            assert result.files == (path,)
            assert said.pop(1).startswith(f"the recording ends: cannot write {path}: ")
        else:
            with pytest.raises(NstError, match=f"cannot write {path}: .*free some space"):
                live([Paint(add=0)], source, **options)
    assert [line.split(":")[0] for line in said] == [f"recording {path}", f"recorded {path}"]
    most = int(said[1].split()[-2])
    with VideoReader(path) as reader:
        assert most / 4 < len(list(reader)) <= most < 165
    assert list(tmp_path.iterdir()) == [path]


def test_a_recording_that_cannot_begin_ends_the_session(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("This is no folder.")
    window = Window()
    for name, words in (("text.txt/a.mp4", "cannot write"), ("a.xyz", "names a video format")):
        with pytest.raises(NstError, match=words):
            live([Paint()], camera(Source(500, 0.002)), window, record=tmp_path / name)
    assert window.images == []


def test_headless_into_a_file_and_other_outputs(tmp_path: Path) -> None:
    class Output:
        def __init__(self) -> None:
            self.images: list[Array] = []

        def send(self, image: Array) -> None:
            self.images.append(image)

    output = Output()
    record = tmp_path / "a.mkv"
    result = live([Paint()], patient(Source(10)), record=record, outputs=[output])
    assert result.files == (record,)
    assert len(decoded(record)[0]) == len(output.images) == 10


def test_the_close_button_and_a_time_limit() -> None:
    assert live([Paint()], patient(Source(500)), Window(close_at=4)).frames == 4
    result = live([Paint()], camera(Source(10_000, 0.002)), Window(), seconds=0.3)
    assert result.seconds >= 0.3
    assert result.captured < 10_000


def test_ctrl_c_ends_it_and_keeps_the_recording(tmp_path: Path) -> None:
    class Impatient(Paint):
        def __call__(self, image: Array, strength: float = 1.0) -> Array:
            if len(self.seen) == 5:
                raise KeyboardInterrupt
            return super().__call__(image, strength)

    result = live([Impatient()], patient(Source(500, 0.005)), record=tmp_path / "a.mp4")
    assert result.frames == 5
    assert len(decoded(tmp_path / "a.mp4")[0]) == 5


def test_a_camera_that_comes_back() -> None:
    first, second = Source(5), Source(50)
    result = live([Paint()], patient(first, Source(0), second, reconnect=60), Window({12: "q"}))
    assert result.frames >= 11  # and an image of the last one, which says that it is away
    assert first.released
    assert second.released
    with pytest.raises(VideoError, match="did not come back"):
        live([Paint()], camera(Source(1), reconnect=0.1))


def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(VideoError, match="camera 0 cannot be opened: is it plugged in"):
        camera(Source(0))
    with pytest.raises(VideoError, match="does not exist"):
        Camera("nowhere.mp4")
    with pytest.raises(VideoError, match=r"rtsp://127\.0\.0\.1:9/a cannot be opened"):
        Camera("rtsp://127.0.0.1:9/a")


def test_a_camera_is_asked_for_a_size_and_given_back() -> None:
    source = Source(1000, 0.002)
    before = threading.active_count()
    with camera(source, size=(720, 1280)) as cam:
        assert cam.newest(1) is not None
        assert source.asked == {cv2.CAP_PROP_FRAME_WIDTH: 1280, cv2.CAP_PROP_FRAME_HEIGHT: 720}
    assert source.released
    assert threading.active_count() == before


def test_a_file_is_played_at_its_own_pace(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", pictures(15))
    window = Window()
    result = live([Paint(add=0)], Camera(str(path)), window)
    assert result.seconds > 0.4
    assert result.captured == 15
    assert np.abs(window.images[0].astype(int) - decoded(path)[0][0]).mean() < 12


@pytest.mark.parametrize("cost", [1e-8, 1e-7, 3e-7, 1e-6])
def test_a_frame_rate_is_held_by_size(cost: float) -> None:
    """Time goes with the area: it ends at the largest size that is fast enough, and stays there."""
    pacer = Pacer(30, 640)
    expected = min(640, (0.9 / 30 / (0.75 * cost)) ** 0.5)
    rng = np.random.default_rng(0)
    sides = [pacer(cost * pacer.side**2 * 0.75 * rng.uniform(0.95, 1.05)) for _ in range(200)]
    assert abs(sides[-1] - expected) <= 0.14 * expected
    assert cost * sides[-1] ** 2 * 0.75 <= 1 / 30
    assert len(set(sides[100:])) == 1
    assert len(list(itertools.groupby(sides))) <= 5


def test_a_frame_rate_grows_back() -> None:
    pacer = Pacer(30, 640)
    for _ in range(50):
        pacer(0.2 * (pacer.side / 640) ** 2)
    small = pacer.side
    for _ in range(100):
        pacer(0.01 * (pacer.side / 640) ** 2)
    assert small < 300
    assert pacer.side == 640


def test_the_size_follows_the_frame_rate() -> None:
    class Costly(Paint):
        def __call__(self, image: Array, strength: float = 1.0) -> Array:
            time.sleep(2e-6 * image.shape[0] * image.shape[1])
            return super().__call__(image, strength)

    said: list[str] = []
    window = Window()
    live([Costly()], patient(Source(40, 0.0, (240, 320))), window, fps=30, say=said.append)
    assert max(window.images[0].shape) == 320
    assert max(window.images[-1].shape) < 200
    assert said[0].endswith("to hold 30 fps")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here")
def test_memory_threads_and_handles_stay_flat() -> None:
    """Ten thousand frames, each of which is waited for."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def handles() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    class Watch(Window):
        def show(self, image: Array) -> None:
            self.images = [image]
            if next(ticks) % 500 == 0:
                sizes.append(resident())

    sizes: list[int] = []
    ticks = itertools.count(1)
    before = threading.active_count(), handles()
    style = Paint()
    style.seen = _Nothing()
    result = live([style], patient(Source(10_000)), Watch())
    assert result.frames == 10_000
    assert sizes[-1] < 1.05 * sizes[2]
    assert (threading.active_count(), handles()) <= before


class _Nothing(list[Any]):
    def append(self, _: Any) -> None:
        """Keep nothing."""


def test_virtual_cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    class Device:
        device = "/dev/video7"
        sent: list[Array] = []  # noqa: RUF012

        def __init__(self, **options: Any) -> None:
            self.options = options

        def send(self, image: Array) -> None:
            self.sent.append(image)

        def close(self) -> None:
            self.sent.append(np.zeros(0, np.uint8))

    class Module:
        Camera = Device

    monkeypatch.setitem(sys.modules, "pyvirtualcam", Module())  # type: ignore[arg-type]
    sink = VirtualCamera((48, 64), 30)
    sink.send(np.zeros((48, 64, 3), np.uint8))
    sink.send(np.zeros((96, 128, 3), np.uint8))
    sink.close()
    assert [image.shape for image in Device.sent] == [(48, 64, 3), (48, 64, 3), (0,)]

    def refuse(**_: Any) -> None:
        raise RuntimeError("'v4l2loopback' backend: no device")

    monkeypatch.setattr(Module, "Camera", staticmethod(refuse))
    with pytest.raises(NstError, match="v4l2loopback"):
        VirtualCamera((48, 64), 30)
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)  # type: ignore[arg-type]
    with pytest.raises(MissingExtraError, match=r"nst\[camera\]"):
        VirtualCamera((48, 64), 30)


def test_no_display_is_reported_and_never_aborts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_module.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(NstError, match="there is no display"):
        check_display()
    for display in (":987", "localhost:987.0", "nonsense"):
        monkeypatch.setenv("DISPLAY", display)
        with pytest.raises(NstError, match="does not answer"):
            check_display()


@pytest.mark.skipif(sys.platform != "linux", reason="no abstract sockets there")
def test_a_display_that_hangs_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes connections and never answers."""
    run = subprocess.run

    def impatient(*arguments: Any, timeout: float, **options: Any) -> Any:
        assert timeout <= 20
        return run(*arguments, timeout=1, **options)

    monkeypatch.setattr(window_module.subprocess, "run", impatient)
    with socket.socket(socket.AF_UNIX) as server:
        number = 40_000 + os.getpid() % 10_000
        server.bind(f"\0/tmp/.X11-unix/X{number}")
        server.listen()
        monkeypatch.setenv("DISPLAY", f":{number}")
        with pytest.raises(NstError, match=f"the display :{number} does not answer"):
            check_display()


def test_cameras_opened_at_once_leave_the_log_level(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = threading.Event(), threading.Event()

    def capture(source: int) -> None:
        (first, second)[source].set()
        if source == 0:
            second.wait(0.3)
        else:
            time.sleep(0.3)

    monkeypatch.setattr(cv2, "VideoCapture", capture)
    before = cv2.utils.logging.getLogLevel()
    threads = [threading.Thread(target=camera_module._open, args=(k,)) for k in range(2)]
    try:
        for thread in threads:
            thread.start()
            first.wait()
        for thread in threads:
            thread.join()
        assert cv2.utils.logging.getLogLevel() == before
    finally:
        cv2.utils.logging.setLogLevel(before)


def test_keys_by_their_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """X11 has further codes; arrows and similar keys are no letters."""
    window = OpenCVWindow.__new__(OpenCVWindow)
    codes = {-1: None, ord("n"): "n", ord("N"): "n", ord(" "): "space", 27: "q", 0xFF1B: "q"}
    codes |= {ord("="): "+", 0xFFAB: "+", 0xFFAD: "-", 0x100000 + ord("c"): "c"}
    codes |= dict.fromkeys((0xFF51, 0xFF52, 0xFF53, 0xFF50, 0xFF63))
    for code, name in codes.items():
        monkeypatch.setattr(cv2, "waitKeyEx", lambda _, code=code: code)
        assert window.key() == name


def test_a_recording_never_goes_over_its_source(tmp_path: Path, model_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", pictures(5))
    data = path.read_bytes()
    options = ("--style", model_path, "--source", path, "--no-window", "--record", path)
    status, said = nst("webcam", *options)
    assert status == 2
    assert "--record would overwrite" in said
    assert path.read_bytes() == data


def test_a_camera_that_is_away_is_reported() -> None:
    class Informed(Window):
        closed = property(lambda _: bool(said))

    said: list[str] = []
    live([Paint()], camera(Source(3), reconnect=60), Informed(), say=said.append)
    assert said == ["the camera is away: waiting for it"]


def test_sources(tmp_path: Path) -> None:
    assert source_of("0") == 0
    assert source_of("²") == "²"
    assert source_of("rtsp://a/b") == "rtsp://a/b"
    assert source_of(str(tmp_path)) == str(tmp_path)


def nst(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, " ".join(result.output.split())


def test_the_command_without_a_window(tmp_path: Path, model_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", pictures(10))
    options = ("--style", model_path, "--source", path)
    record = tmp_path / "b.mp4"
    status, said = nst("webcam", *options, "--no-window", "--record", record)
    assert status == 0, said
    assert "of 10 frames" in said
    assert len(decoded(record)[0]) >= 1


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--no-window",), 2, "add --record FILE or --virtual-camera"),
        (("--no-window", "--record", "a.mp4", "--source", "77"), 1, "camera 77 cannot be opened"),
        (("--no-window", "--record", "a.mp4", "--source", "no.mp4"), 1, "no.mp4 does not exist"),
        (("--no-window", "--record", "a.mp4", "--fps", "0"), 2, "fps is 0"),
        (("--no-window", "--record", "a.mp4", "--fps", "9", "--size", "99"), 2, "both given"),
        (("--no-window", "--record", "a.mp4", "--strength", "2"), 2, "strength is 2"),
        (("--no-window", "--record", "a.xyz", "--source", "a.mp4"), 2, "names a video format"),
        (("--source", "a.mp4"), 1, "there is no display"),
    ],
)
def test_bad_input(
    arguments: tuple[str, ...],
    status: int,
    words: str,
    tmp_path: Path,
    model_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(window_module.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    make_clip(tmp_path / "a.mp4", pictures(5))
    before = sorted(path.name for path in tmp_path.iterdir())
    got, said = nst("webcam", "--style", model_path, *arguments)
    assert (got, said.count("error: ")) == (status, 1), said
    assert words in said
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.fixture
def screen() -> Iterator[str]:
    """A display of our own."""
    if not (shutil.which("Xvfb") and shutil.which("xdotool")):
        pytest.skip("Xvfb or xdotool is not installed")
    read, write = os.pipe()
    # Without -noreset it starts anew, and refuses connections, when its last client has gone.
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "800x600x24", "-noreset"]
    server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as line:
        number = line.readline().strip()
    yield f":{number}"
    server.terminate()
    server.wait()


# The message that a window's close button sends: WM_DELETE_WINDOW, as a ClientMessage (33).
CLOSE = """
import ctypes, sys
x = ctypes.CDLL("libX11.so.6")
x.XOpenDisplay.restype = x.XInternAtom.restype = ctypes.c_void_p
display, window = ctypes.c_void_p(x.XOpenDisplay(None)), int(sys.argv[1])
kind, close = (x.XInternAtom(display, name, 0) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW"))
event = (ctypes.c_long * 24)(33, 0, 1, display.value, window, kind, 32, close)
x.XSendEvent(display, ctypes.c_ulong(window), 0, ctypes.c_long(0), event)
x.XSync(display, 0)
"""


@pytest.mark.parametrize("ending", ["q", "close"])
def test_a_real_window(ending: str, screen: str, tmp_path: Path, model_path: Path) -> None:
    """Keys reach it, the screen shows the picture, and its close button ends the command."""
    environment = {**os.environ, "DISPLAY": screen, "QT_QPA_PLATFORM": "xcb"}
    images = pictures(200, (240, 320))  # at one a second they outlast the test
    source = make_clip(tmp_path / "a.mp4", images, range(0, 200_000, 1000))
    command = [sys.executable, "-m", "nst", "webcam", "--style", model_path]
    options = ["--source", source, "--snapshots", tmp_path, "--strength", "0"]

    def xdotool(*words: str) -> str:
        done = subprocess.run(
            ["xdotool", *words], env=environment, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    def snapshots() -> list[Path]:
        return sorted(tmp_path.glob("nst-*.png"))

    def press(key: str) -> None:
        xdotool("key", "--window", window, key)
        time.sleep(0.05)

    def press_until(done: Callable[[], bool], key: str) -> None:
        until = time.monotonic() + 60
        while not done():
            assert time.monotonic() < until, f"{key} does nothing"
            xdotool("windowfocus", window)
            press(key)
            time.sleep(0.2)

    running = start([*command, *options], env=environment, stderr=subprocess.PIPE)
    assert running.stderr is not None
    try:
        window = ""
        until = time.monotonic() + 60
        while not window and time.monotonic() < until and running.poll() is None:
            time.sleep(0.2)
            window = xdotool("search", "--name", "^nst ").split("\n")[0]
        assert window, running.stderr.read() if running.poll() is not None else "no window"
        press_until(lambda: bool(snapshots()), "space")
        for key in ("h", "i", "m", "s", "c", "minus", "plus", "n", "p", "f", "f"):
            press(key)
        assert running.poll() is None
        if ending == "q":
            press_until(lambda: running.poll() is not None, "q")
        else:
            subprocess.run([sys.executable, "-c", CLOSE, window], env=environment, check=True)
        _, said = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 0, said
    assert "frames in" in said
    assert "snapshot" in said
    shot = load_image(snapshots()[0])
    assert min(np.abs(shot.astype(int) - image).mean() for image in images) < 12


def test_bad_configs() -> None:
    with pytest.raises(UsageError, match="no style"):
        live([], camera(Source(1)))
    with pytest.raises(UsageError, match="seconds is 0"):
        WebcamConfig(seconds=0)
