"""Several processes make the same video as one; errors are reported, and leave no files."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import psutil
import pytest
from clips import decoded, make_clip, packets, pictures
from filelock import FileLock
from processes import start
from typer.testing import CliRunner

from nst.cli.app import app
from nst.errors import NstError
from nst.infer.video import parallel
from nst.infer.video.parallel import repaint_in_parallel
from nst.infer.video.pipeline import VideoProgress, repaint_video
from nst.infer.video.reader import VideoReader
from nst.infer.video.schedule import VideoStyle, VideoStylizer
from nst.infer.video.writer import EncodeConfig
from nst.io.images import Array

FINE = EncodeConfig(crf=4)
ROOMY = not Path("/dev/shm").is_dir() or shutil.disk_usage("/dev/shm").total > 2**20


@pytest.fixture(autouse=True)
def _one_at_a_time(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The semaphores of a pool take 52 KB of /dev/shm: there may be no room for those of two."""
    if ROOMY:
        yield
        return
    with FileLock(tmp_path_factory.getbasetemp().parent / "workers.lock"):
        yield
        gc.collect()  # errors hold their pool


def off(one: Array, other: Array) -> float:
    return float(np.abs(one.astype(float) - other).mean())


def near(one: list[Array], other: list[Array]) -> bool:
    """Colours are kept for blocks of four pixels only, and this network paints noise."""
    pairs = zip(one, other, strict=True)
    return all(off(cv2.blur(a, (8, 8)), cv2.blur(b, (8, 8))) < 5 for a, b in pairs)


def nst(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, " ".join(result.output.split())


def alone(style: VideoStyle, source: Path, target: Path, **options: Any) -> Any:
    """By one process."""
    with VideoStylizer(style) as stylizer:
        return repaint_video(stylizer, source, target, encode=FINE, **options)


def uneven(count: int) -> list[int]:
    """Milliseconds at which a camera might have taken frames."""
    steps = np.random.default_rng(3).integers(17, 80, count - 1)
    return [0, *np.cumsum(steps).tolist()]


@pytest.mark.parametrize(
    ("suffix", "size", "workers", "times"),
    [(".mp4", (48, 64), 2, None), (".mkv", (47, 63), 3, uneven(55))],
)
def test_the_parts_make_the_whole(
    suffix: str,
    size: tuple[int, int],
    workers: int,
    times: list[int] | None,
    tmp_path: Path,
    model_path: Path,
) -> None:
    style = VideoStyle(((model_path, 0.0),), strength=0.5)
    images = pictures(55, size)
    source = make_clip(tmp_path / f"a{suffix}", images, times, sound="aac", chapters=True)
    reports: list[VideoProgress] = []
    one, other = tmp_path / f"b{suffix}", tmp_path / f"c{suffix}"
    expected = alone(style, source, one)
    result = repaint_in_parallel(
        style, source, other, workers, encode=FINE, callback=reports.append
    )
    assert (result.frames, result.shortfall, result.damaged) == (55, 0, 0)
    assert (result.interrupted, result.notes) == (False, expected.notes)
    assert result.encoder == expected.encoder

    made, shown = decoded(other)
    assert shown == decoded(one)[1] == decoded(source)[1]
    assert near(made, decoded(one)[0])
    assert not near(made[:5], made[10:15])  # so `near` tells frames apart
    assert len(packets(source, "audio")) > 80
    assert packets(other, "audio") == packets(one, "audio") == packets(source, "audio")
    with av.open(str(one)) as a, av.open(str(other)) as b:
        assert b.duration == pytest.approx(a.duration, abs=40_000)  # the last frame's own
        assert b.metadata["title"] == "A clip"
        assert len(b.chapters()) == 2
        assert b.streams.video[0].average_rate == pytest.approx(a.streams.video[0].average_rate)
        for packet in b.demux(video=0):  # what players want
            assert packet.dts is None or packet.pts >= packet.dts
    assert {path.name for path in tmp_path.iterdir()} == {source.name, one.name, other.name}

    assert max(progress.frames for progress in reports) <= 55
    shares = [progress.done for progress in reports if progress.done is not None]
    assert shares
    assert shares == sorted(shares)
    assert shares[-1] <= 1


def test_a_part_of_a_video_in_two_styles(tmp_path: Path, model_path: Path) -> None:
    """The second style fades in across the joint; the start is a hair before a key frame."""
    second = tmp_path / "second.onnx"
    second.write_bytes(model_path.read_bytes())
    style = VideoStyle(((model_path, 0.0), (second, 0.4)), fade=0.3, strength=0.3)
    source = make_clip(tmp_path / "a.mp4", pictures(50), sound="aac")
    options = {"start": 0.39, "duration": 0.9}
    alone(style, source, tmp_path / "b.mp4", **options)
    result = repaint_in_parallel(
        style, source, tmp_path / "c.mp4", 2, encode=FINE, size=None, **options
    )
    one, other = decoded(tmp_path / "b.mp4"), decoded(tmp_path / "c.mp4")
    assert result.frames == len(other[0]) == 23
    assert other[1] == one[1]
    assert near(other[0], one[0])
    heard = packets(tmp_path / "c.mp4", "audio")
    assert heard == packets(tmp_path / "b.mp4", "audio")
    assert len(heard) == pytest.approx(0.9 * 48000 / 1024, abs=1.5)


KEYS = [0.0, 0.4, 0.8, 1.2, 1.6]


@pytest.mark.parametrize(
    ("start", "duration", "workers"),
    [
        (0, None, 1),
        (0, None, 2),
        (0, None, 3),
        (0, None, 9),
        (0.39, None, 9),  # no frame from there to the key frame at 0.4
        (0.36, None, 9),
        (0.4, 0.8, 9),  # 0.4 + 0.8 is a hair more than 1.2
        (0.41, 0.1, 4),
        (1.9, None, 4),
    ],
)
def test_parts_begin_at_key_frames_and_hold_frames(
    start: float, duration: float | None, workers: int, tmp_path: Path
) -> None:
    source = make_clip(tmp_path / "a.mp4", pictures(50))
    assert 0.4 + 0.8 > 1.2
    with VideoReader(source, start=start, duration=duration) as reader:
        starts = parallel._starts(reader.key_times(), start, reader.seconds, workers)
    stop = 2.0 if duration is None else start + duration
    times = [k / 25 for k in range(50)]
    assert starts[0] == start
    assert len(starts) <= workers
    for begin, end in pairwise([*starts, stop]):
        assert any(begin - 1e-6 <= time < end - 1e-6 for time in times)
    keys = [key for key in KEYS if any(start <= t < key for t in times) and key < stop - 1e-6]
    assert all(min(abs(begin - key) for key in keys) < 1e-6 for begin in starts[1:])
    assert len(starts) == min(workers, len(keys) + 1) or workers < 9


def test_fewer_key_frames_than_workers(tmp_path: Path, model_path: Path) -> None:
    source = make_clip(tmp_path / "a.mov", pictures(30), sound="aac", options={"g": "250"})
    options = ("--style", model_path, "--strength", 0, "--crf", 4)
    status, said = nst("video", source, tmp_path / "b.mov", *options, "--workers", 3)
    assert status == 0, said
    assert "30 frames" in said
    made, shown = decoded(tmp_path / "b.mov")
    assert shown == decoded(source)[1]
    assert near(made, decoded(source)[0])
    assert packets(tmp_path / "b.mov", "audio") == packets(source, "audio")
    assert {path.name for path in tmp_path.iterdir()} == {"a.mov", "b.mov"}


@pytest.mark.parametrize(
    ("source", "target", "options", "status", "words"),
    [
        (
            "a.mp4",
            "b.gif",
            (),
            2,
            ["workers can only join .mp4", "repaint b.gif in a single process"],
        ),
        ("a.mp4", "b.avi", (), 2, ["workers can only join .mp4", "repaint b.avi in"]),
        ("a.mp4", "%04d.png", (), 2, ["workers can only join", "repaint %04d.png in"]),
        ("frames", "b.mp4", (), 2, ["workers can only join", "repaint frames in"]),
        ("frames/%d.png", "b.mp4", (), 2, ["workers can only join", "repaint frames/%d.png in"]),
        ("a.mp4", "b.webm", ("--codec", "h264"), 2, ["libx264 does not go into a .webm"]),
        ("a.mp4", "b.mp4", ("--codec", "none"), 2, ["no encoder 'none'"]),
        ("a.mp4", "b.mov", ("--codec", "prores_ks"), 2, ["cannot join what prores_ks encodes"]),
        ("a.mp4", "folder.mp4", (), 1, ["folder.mp4 is a folder"]),
        ("a.mp4", "a.mp4", (), 2, ["is the video to be repainted"]),
        ("none.mp4", "b.mp4", (), 1, ["none.mp4 does not exist"]),
        ("a.mp4", "b.mp4", ("--start", "9"), 2, ["beyond the end of a.mp4"]),
        ("a.mp4", "b.mp4", ("--workers", "0"), 2, ["workers is 0"]),
        ("a.mp4", "b.mp4", ("--workers", "999"), 2, ["workers is 999"]),
        # Known to a worker alone:
        ("a.mp4", "b.mp4", ("--preset", "warp"), 2, ["check codec, crf and preset"]),
    ],
)
def test_bad_input(
    source: str,
    target: str,
    options: tuple[str, ...],
    status: int,
    words: list[str],
    tmp_path: Path,
    model_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    make_clip(Path("a.mp4"), pictures(20))
    Path("frames").mkdir()
    cv2.imwrite("frames/1.png", pictures(1)[0])
    Path("folder.mp4").mkdir()
    before = set(Path().rglob("*"))
    arguments = (source, target, "--style", model_path, "--workers", "2", *options)
    got, said = nst("video", *arguments)
    assert (got, said.count("error: ")) == (status, 1), said
    assert all(word in said for word in words), said
    assert set(Path().rglob("*")) == before


@pytest.mark.parametrize(("cores", "threads"), [(1.0, 1), (3.5, 2), (4.0, 2), (9.0, 4)])
def test_workers_share_the_cores_that_are_usable(
    cores: float,
    threads: int,
    tmp_path: Path,
    model_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`taskset` and containers leave fewer than the machine has."""
    source = make_clip(tmp_path / "a.mp4", pictures(30))

    def work(job: Any, *_: object) -> None:
        raise NstError(f"{job.style.threads} threads")

    monkeypatch.setattr(parallel, "_work", work)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(parallel, "usable_cores", lambda: cores)
    with pytest.raises(NstError, match=f"^{threads} threads"):
        repaint_in_parallel(VideoStyle(((model_path, 0.0),)), source, tmp_path / "b.mp4", 2)


def test_an_error_in_one_worker_ends_all(
    tmp_path: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even though the first has finished frames."""
    source = make_clip(tmp_path / "a.mp4", pictures(400), options={"g": "100"})
    (tmp_path / "b.mp4").write_bytes(b"kept")
    make: Callable[[Path], tempfile.TemporaryDirectory[str]] = parallel._folder_beside

    def blocked(target: Path) -> tempfile.TemporaryDirectory[str]:
        folder = make(target)
        Path(folder.name, "001.mp4").mkdir()
        return folder

    monkeypatch.setattr(parallel, "_folder_beside", blocked)
    with pytest.raises(NstError, match=r"b\.mp4 is a folder"):
        repaint_in_parallel(VideoStyle(((model_path, 0.0),)), source, tmp_path / "b.mp4", 2)
    assert (tmp_path / "b.mp4").read_bytes() == b"kept"
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "b.mp4"}


# The command; it prints its progress, and presses Ctrl-C for all of its group, as in a terminal,
# when its workers have started (0) or painted some frames (-1 for never).
WATCHED = """
import os, signal, sys
from nst.infer.video import parallel
frames = int(sys.argv.pop(1))
run, wait = parallel.repaint_in_parallel, parallel.wait
def press(painted):
    global frames
    if 0 <= frames <= painted:
        frames = -1
        os.killpg(0, signal.SIGINT)
def waiting(*arguments):
    press(0)
    return wait(*arguments)
def reporting(*arguments, callback, **options):
    def report(progress):
        callback(progress)
        print(progress.frames, flush=True)
        press(progress.frames)
    return run(*arguments, callback=report, **options)
parallel.repaint_in_parallel, parallel.wait = reporting, waiting
from nst.__main__ import main
main()
"""


@pytest.fixture
def running(
    tmp_path: Path, model_path: Path, request: pytest.FixtureRequest
) -> Iterator[subprocess.Popen[str]]:
    """The command at work on a video of twelve seconds, in its own process group."""
    source = make_clip(tmp_path / "a.mp4", pictures(300, (144, 192)), sound="aac")
    options = ("--style", model_path, "--workers", "2", "--threads", "1")
    command = [sys.executable, "-c", WATCHED, request.param, "video", source, tmp_path / "b.mp4"]
    command += options
    process = start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    yield process
    if alive(process.pid):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def alive(group: int) -> bool:
    """Return whether a process of a group runs. In containers nothing may reap the dead ones."""
    for process in psutil.process_iter(["status"]):
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                return True
    return False


def gone(group: int) -> bool:
    """Return whether all processes of a group end soon."""
    until = time.monotonic() + 60
    while alive(group) and time.monotonic() < until:
        time.sleep(0.05)
    return not alive(group)


def interrupted(process: subprocess.Popen[str]) -> str:
    """Wait for the end of a command that Ctrl-C interrupts; return its last words."""
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "error" not in said
    assert gone(process.pid)
    return " ".join(said.split())


@pytest.mark.skipif(sys.platform == "win32", reason="no groups of processes there")
@pytest.mark.parametrize("running", [-1], indirect=True)
def test_workers_do_not_outlive_a_command_that_is_killed(running: subprocess.Popen[str]) -> None:
    assert running.stdout is not None
    assert running.stdout.readline()
    running.kill()
    running.wait()
    assert gone(running.pid)


@pytest.mark.skipif(sys.platform == "win32", reason="no groups of processes there")
@pytest.mark.parametrize("running", [30], indirect=True)
def test_ctrl_c_leaves_what_was_done(running: subprocess.Popen[str], tmp_path: Path) -> None:
    said = interrupted(running)
    target = tmp_path / "b.mp4"
    if not target.exists():  # the first worker was late
        assert said.endswith("interrupted")
        return
    found = re.search(r"stopped: .*b\.mp4 holds the first (\d+) frames$", said)
    assert found, said
    made, shown = decoded(target)
    assert len(made) == int(found[1]) < 300
    assert shown == [round(0.04 * k, 4) for k in range(len(made))]
    heard = packets(target, "audio")
    assert heard == packets(tmp_path / "a.mp4", "audio")[: len(heard)]
    assert heard[-1][0] == pytest.approx(shown[-1], abs=0.1)
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "b.mp4"}


@pytest.mark.skipif(sys.platform == "win32", reason="no groups of processes there")
@pytest.mark.parametrize("running", [0], indirect=True)
def test_ctrl_c_while_the_workers_start(running: subprocess.Popen[str], tmp_path: Path) -> None:
    assert interrupted(running).endswith("interrupted")
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4"}
