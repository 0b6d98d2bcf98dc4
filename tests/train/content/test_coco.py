"""The download of COCO against a server on this machine that misbehaves in every known way."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nst.errors import NstError
from nst.io.images import encode_image
from nst.train.content import dataset as data
from nst.train.content.coco import VAL2017, Archive, DownloadProgress, coco_folder
from nst.train.content.dataset import FolderContent, open_content


class Server(ThreadingHTTPServer):
    """Serves `payload`, with one misbehaviour a request as long as `faults` last."""

    daemon_threads = True

    def __init__(self, payload: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.payload = payload
        self.faults: list[str] = []
        self.ranges: list[str | None] = []  # of the requests so far
        self.stalled = threading.Event()
        self.stop_stalling = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients hang up by intent


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range")
        server.ranges.append(asked)
        fault = server.faults.pop(0) if server.faults else ""
        payload = server.payload
        if fault.isdigit():
            self.send_error(int(fault))
            return
        if fault == "page":
            payload, asked = b"<html>Please log in.</html>", None
        if fault == "corrupt":
            payload = payload[:-200] + bytes([payload[-200] ^ 1]) + payload[-199:]
        start = int(re.findall(r"\d+", asked)[0]) if asked and "no ranges" not in fault else 0
        end = min(start + 1000, len(payload)) if fault == "short range" else len(payload)
        self.send_response(206 if start else 200)
        if start:
            claimed = 1 if fault == "other range" else start
            self.send_header("Content-Range", f"bytes {claimed}-{end - 1}/{len(payload)}")
        if fault != "no length":
            self.send_header("Content-Length", str(end - start))
        self.send_header("Content-Type", "text/html" if fault == "page" else "application/zip")
        self.end_headers()
        middle = (start + end) // 2
        if fault.endswith(("truncate", "reset", "stall")):
            self.wfile.write(payload[start:middle])
            if fault == "stall":
                server.stalled.set()
                server.stop_stalling.wait(60)
            if fault == "reset":
                time.sleep(0.1)  # what was sent should arrive first
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.rfile.close()
                self.wfile.close()
                self.connection.close()
            return
        self.wfile.write(payload[start:end])


@pytest.fixture(scope="module")
def packed() -> bytes:
    """A zip file like COCO's, of about 100 kB."""
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.mkdir("val2017")
        for i in range(6):
            image = rng.integers(0, 256, (90, 80, 3), np.uint8)
            file.writestr(f"val2017/{i:012}.jpg", encode_image(image, ".jpg"))
    return buffer.getvalue()


@pytest.fixture
def server(packed: bytes) -> Iterator[Server]:
    with Server(packed) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.stop_stalling.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NST_CACHE", str(tmp_path))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "coco"


def archive_of(server: Server) -> Archive:
    payload = server.payload
    url = f"http://127.0.0.1:{server.server_port}/zips/val2017.zip"
    return Archive(url, len(payload), hashlib.sha256(payload).hexdigest(), "val2017")


def fetch(server: Server, **options: Any) -> Path:
    return coco_folder(archive=archive_of(server), **({"pauses": (0, 0), "timeout": 20} | options))


def assert_complete(folder: Path, home: Path) -> None:
    assert folder == home / "val2017"
    assert sorted(p.name for p in folder.iterdir()) == [f"{i:012}.jpg" for i in range(6)]
    assert {p.name for p in home.iterdir()} <= {"val2017", "val2017.lock"}


def test_the_real_archive_is_described() -> None:
    assert re.fullmatch("[0-9a-f]{64}", VAL2017.sha256)
    assert VAL2017.size == 815_585_330


def test_a_download_is_unpacked_once_and_told_of(server: Server, home: Path) -> None:
    told: list[DownloadProgress] = []
    assert_complete(fetch(server, callback=told.append), home)
    assert list(dict.fromkeys(p.stage for p in told)) == ["downloading", "checking", "unpacking"]
    for stage in ("downloading", "checking", "unpacking"):
        done = [p.done for p in told if p.stage == stage]
        last = [p for p in told if p.stage == stage][-1]
        assert done == sorted(done)
        assert last.done == last.total > 0
        assert last.seconds_left == 0
        assert last.bytes_per_second > 0
    assert_complete(fetch(server), home)
    assert len(server.ranges) == 1


@pytest.mark.parametrize(
    "faults",
    [
        ["truncate"],
        ["truncate", "truncate", "503", "truncate"],
        ["reset"],
        ["429", "503"],
        ["no length"],
        ["truncate", "no length"],
        ["truncate", "short range", "short range"],
    ],
)
def test_a_dropped_connection_is_taken_up_again(
    server: Server, home: Path, faults: list[str]
) -> None:
    server.faults = faults.copy()
    assert_complete(fetch(server), home)
    assert len(server.ranges) > len(faults) - (faults[-1] == "no length")
    if faults[0] == "truncate":
        assert server.ranges[1] == f"bytes={len(server.payload) // 2}-"


def test_a_stalled_connection_is_dropped(server: Server, home: Path) -> None:
    server.faults = ["stall"] * 3
    assert_complete(fetch(server, timeout=0.3, pauses=(0,) * 9), home)
    assert any(server.ranges)


@pytest.mark.parametrize("refusal", ["no ranges", "416", "other range"])
def test_a_server_without_ranges_sends_all_anew(server: Server, home: Path, refusal: str) -> None:
    server.faults = ["truncate", refusal]
    assert_complete(fetch(server), home)
    assert len(server.ranges) == (2 if refusal == "no ranges" else 3)


def test_a_server_that_never_gets_further_is_given_up(server: Server, home: Path) -> None:
    server.faults = ["no ranges, truncate"] * 20
    with pytest.raises(NstError, match=r"cannot download http://127.*: the connection ended early"):
        fetch(server)
    assert len(server.ranges) == 4
    assert not (home / "val2017").exists()


def test_a_wrong_checksum_discards_the_file_and_tries_once_anew(server: Server, home: Path) -> None:
    server.faults = ["corrupt"]
    assert_complete(fetch(server), home)
    assert server.ranges == [None, None]


def test_a_checksum_wrong_twice_is_an_error(server: Server, home: Path) -> None:
    archive = replace(archive_of(server), sha256="0" * 64)
    with pytest.raises(NstError, match=r"SHA-256 is \w{12}…, not 000000000000…; try"):
        coco_folder(archive=archive)
    assert len(server.ranges) == 2
    assert [p.name for p in home.iterdir()] == ["val2017.lock"]


def one_line(error: pytest.ExceptionInfo[NstError], server: Server, home: Path) -> str:
    line = str(error.value)
    assert "\n" not in line
    for word in (archive_of(server).url, "name a folder", str(home / "val2017.zip")):
        assert word in line
    return line


@pytest.mark.parametrize(("fault", "why"), [("404", "HTTP 404"), ("page", "text/html of 27")])
def test_another_answer_is_an_error_at_once(
    server: Server, home: Path, fault: str, why: str
) -> None:
    server.faults = ["truncate", fault]
    with pytest.raises(NstError) as error:
        fetch(server)
    assert why in one_line(error, server, home)
    part = home / "val2017.zip.part"
    assert part.read_bytes() == server.payload[: len(server.payload) // 2]
    assert_complete(fetch(server), home)


@pytest.mark.usefixtures("home")
def test_no_network(server: Server) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/val2017.zip"
        with pytest.raises(NstError, match=f"cannot download {url}: Connection refused"):
            coco_folder(archive=replace(archive_of(server), url=url), pauses=[60])


def test_a_killed_download_goes_on(server: Server, home: Path) -> None:
    server.faults = ["stall"]
    archive = archive_of(server)
    code = f"from nst.train.content.coco import *; coco_folder(archive={archive!r})"
    process = subprocess.Popen([sys.executable, "-c", code])
    part = home / "val2017.zip.part"
    half = len(server.payload) // 2
    try:
        wait_for(lambda: part.exists() and part.stat().st_size == half)
    finally:
        process.kill()
        process.wait()
    leftover = home / ".val2017-killed" / "val2017"
    leftover.mkdir(parents=True)
    assert_complete(fetch(server), home)
    assert server.ranges == [None, f"bytes={half}-"]


def test_ctrl_c_keeps_what_came(server: Server, home: Path) -> None:
    server.faults = ["stall"] * 9

    def interrupt(progress: DownloadProgress) -> None:
        if progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server, callback=interrupt, timeout=0.3, pauses=(0,) * 9)
    server.faults.clear()
    server.ranges.clear()
    part = (home / "val2017.zip.part").read_bytes()
    assert part
    assert server.payload.startswith(part)
    with pytest.raises(KeyboardInterrupt):
        fetch(server, callback=lambda p: interrupt(p) if p.stage == "unpacking" else None)
    assert {p.name for p in home.iterdir()} == {"val2017.zip", "val2017.lock"}
    assert_complete(fetch(server), home)
    assert server.ranges == [f"bytes={len(part)}-"]


def test_callers_at_once_download_once(server: Server, home: Path) -> None:
    server.faults = ["stall"]
    told: list[DownloadProgress] = []
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(fetch, server)
        assert server.stalled.wait(20)
        others = [pool.submit(fetch, server, callback=told.append) for _ in range(2)]
        wait_for(lambda: [p.stage for p in told] == ["waiting", "waiting"])
        server.stop_stalling.set()
        for caller in (first, *others):
            assert_complete(caller.result(), home)
    assert len(server.ranges) == 2
    assert len(told) == 2


def test_a_zip_put_there_by_hand_is_taken(server: Server, home: Path, packed: bytes) -> None:
    home.mkdir()
    (home / "val2017.zip").write_bytes(packed)
    assert_complete(fetch(server), home)
    assert server.ranges == []


def test_a_wrong_zip_put_there_by_hand_stays(server: Server, home: Path) -> None:
    home.mkdir()
    (home / "val2017.zip").write_bytes(b"half copied")
    with pytest.raises(NstError, match=r"val2017\.zip is not the file of http.*SHA-256"):
        fetch(server)
    assert (home / "val2017.zip").read_bytes() == b"half copied"


def test_a_zip_cannot_write_outside(server: Server, home: Path, packed: bytes) -> None:
    buffer = io.BytesIO(packed)
    with zipfile.ZipFile(buffer, "a") as file:
        file.writestr("../../escaped.jpg", b"x")
        file.writestr("/tmp/../../escaped.jpg", b"x")
    server.payload = buffer.getvalue()
    assert_complete(fetch(server), home)
    assert not list(home.parent.rglob("escaped.jpg"))


@pytest.mark.parametrize("payload", [b"no zip at all", b""])
def test_another_kind_of_file(server: Server, home: Path, payload: bytes) -> None:
    if not payload:
        buffer = io.BytesIO()
        zipfile.ZipFile(buffer, "w").close()
        payload = buffer.getvalue()
    server.payload = payload
    with pytest.raises(NstError, match=r"is not a zip file with a folder val2017"):
        fetch(server)
    assert {p.name for p in home.iterdir()} == {"val2017.zip", "val2017.lock"}


def test_a_full_disk_is_seen_before(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage(home.parent)._replace(free=len(server.payload))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(NstError, match=r"coco has 0\.00 GB free, .* set NST_CACHE"):
        fetch(server)
    assert server.ranges == []


def test_a_cache_that_cannot_be_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NST_CACHE", str(tmp_path / "file"))
    with pytest.raises(NstError, match=r"cannot write .*file.coco: .* set NST_CACHE"):
        fetch(server)


def test_content_knows_coco_by_name(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = home.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(data, "coco_folder", lambda callback: fetch(server, callback=callback))
    told: list[DownloadProgress] = []
    content = open_content(Path("coco"), callback=told.append)
    assert isinstance(content, FolderContent)
    assert content.crop(0, 64).shape == (64, 64, 3)
    assert told
    for path in (Path("coco"), elsewhere / "coco"):  # a folder goes before the name
        (elsewhere / "coco").mkdir(exist_ok=True)
        with pytest.raises(NstError, match="coco holds no usable image"):
            open_content(path)


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
