"""Downloads COCO's photographs once, checks them and unpacks them into the cache folder.

Not by pooch: its HTTPDownloader (1.9) begins an interrupted download of 0.8 GB anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from filelock import FileLock, Timeout

from nst.errors import NstError
from nst.io.cache import cache_folder

Stage = Literal["waiting", "downloading", "checking", "unpacking"]
CHUNK = 1 << 18  # bytes
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})  # HTTP errors that may pass


@dataclass(frozen=True)
class Archive:
    """A zip file on a server.

    Attributes:
        url: address of the file.
        size: its bytes.
        sha256: its SHA-256 in hexadecimal.
        name: name of the folder in it, and of the folder in the cache.
    """

    url: str
    size: int
    sha256: str
    name: str


VAL2017 = Archive(
    url="http://images.cocodataset.org/zips/val2017.zip",
    size=815_585_330,
    sha256="4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
    name="val2017",
)


@dataclass(frozen=True)
class DownloadProgress:
    """Progress of a download.

    Attributes:
        stage: waiting (for another process that downloads the same), downloading, checking or
            unpacking.
        done, total: bytes of this stage.
        bytes_per_second: pace since the stage began.
        seconds_left: estimated rest of this stage; infinite before the first bytes.
    """

    stage: Stage
    done: int
    total: int
    bytes_per_second: float
    seconds_left: float


def coco_folder(
    callback: Callable[[DownloadProgress], None] | None = None,
    archive: Archive = VAL2017,
    *,
    timeout: float = 30,
    pauses: Sequence[float] = (1, 2, 4, 8),
) -> Path:
    """Return the folder of COCO's val2017, 5,000 photographs; the first call downloads 0.8 GB.

    A call resumes an interrupted download. A `val2017.zip` that was put into the folder `coco` of
    the cache by hand is used, and removed after unpacking like a downloaded one. Processes that
    call this at the same time wait for the first.

    Args:
        callback: called at the start of a stage and about ten times a second.
        archive: the archive to download.
        timeout: seconds without data after which a connection counts as dropped.
        pauses: seconds before each retry; after as many retries in a row without a new byte, the
            download fails.

    Raises:
        NstError: there is no connection, the file is not the expected one, or the cache has no
            space or can't be written.
    """
    home = cache_folder() / "coco"
    folder, file = home / archive.name, home / f"{archive.name}.zip"
    meter = _Meter(callback)
    try:
        if not folder.is_dir():
            home.mkdir(parents=True, exist_ok=True)
            with _locked(home / f"{archive.name}.lock", meter, archive):
                if not folder.is_dir():  # another process may have made it
                    if not file.exists():
                        _download(archive, file, meter, timeout, pauses)
                    elif _sha256(file, meter) != archive.sha256:
                        raise NstError(
                            f"{file} is not the file of {archive.url} (its SHA-256 differs): "
                            "remove it or copy it again, or name a folder of photographs"
                        )
                    _unpack(file, folder, meter)
        with contextlib.suppress(OSError):
            file.unlink()
    except OSError as error:
        raise NstError(
            f"cannot write {home}: {error.strerror or error}; "
            "free some space, or set NST_CACHE to another folder"
        ) from error
    return folder


def _locked(
    path: Path, meter: _Meter, archive: Archive
) -> contextlib.AbstractContextManager[object]:
    """Lock a file until the end of a `with` statement; report that it waits, if it must."""
    lock = FileLock(path)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        meter.begin("waiting", 0, archive.size)
        return lock.acquire()


def _download(
    archive: Archive, file: Path, meter: _Meter, timeout: float, pauses: Sequence[float]
) -> None:
    """Download to a partial file that survives interruptions; rename it to `file` once checked."""
    part = file.with_name(f"{file.name}.part")
    found = ""
    for _ in range(2):
        _check_space(file.parent, 2 * archive.size - _size(part))  # packed and unpacked
        _complete(archive, part, meter, timeout, pauses)
        found = _sha256(part, meter)
        if found == archive.sha256:
            part.replace(file)
            return
        part.unlink()
    raise _no_download(archive, f"its SHA-256 is {found[:12]}…, not {archive.sha256[:12]}…")


def _complete(
    archive: Archive, part: Path, meter: _Meter, timeout: float, pauses: Sequence[float]
) -> None:
    """Download the rest of `part`, retrying as long as retries bring new bytes."""
    first = most = _size(part)
    if first > archive.size:
        part.unlink()
        first = most = 0
    fruitless = 0
    meter.begin("downloading", first, archive.size)
    while _size(part) < archive.size:
        try:
            _receive(archive, part, meter, timeout)
        except _DroppedError as error:
            fruitless = 0 if _size(part) > most else fruitless + 1
            most = max(most, _size(part))
            # If not even the first connection succeeds, there is no network to wait for.
            if fruitless > len(pauses) or (error.unconnected and most == first):
                raise _no_download(archive, str(error)) from error
            time.sleep(pauses[max(0, fruitless - 1)] if pauses else 0)


def _receive(archive: Archive, part: Path, meter: _Meter, timeout: float) -> None:
    """Receive from one connection: append to `part`, or rewrite it if the server has no ranges."""
    have = _size(part)
    request = Request(archive.url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response: HTTPResponse = urlopen(request, timeout=timeout)
    except HTTPError as error:
        error.close()
        if error.code == 416 and have:
            part.unlink()
            raise _DroppedError("the server refuses to resume the download") from error
        if error.code in RETRIED:
            raise _DroppedError(f"HTTP {error.code} {error.reason}") from error
        raise _no_download(archive, f"HTTP {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise _DroppedError(_why(error), isinstance(error, URLError)) from error
    with response:
        have = _check_response(archive, response, part, have)
        with part.open("ab" if have else "wb", buffering=0) as file:
            while have < archive.size:
                try:
                    chunk = response.read1(min(CHUNK, archive.size - have))
                except (OSError, HTTPException) as error:
                    raise _DroppedError(_why(error)) from error
                if not chunk:
                    raise _DroppedError("the connection ended early")
                file.write(chunk)
                have += len(chunk)
                meter.update(have)


def _check_response(archive: Archive, response: HTTPResponse, part: Path, have: int) -> int:
    """Return where in the file the response begins; reject a proxy's page before it is written."""
    if response.status == 206:
        match = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match and int(match[1]) == have and match[2] in ("*", str(archive.size)):
            return have
        part.unlink(missing_ok=True)
        raise _DroppedError("the server sends another range than requested")
    length = response.headers.get("Content-Length", str(archive.size))
    kind = response.headers.get_content_type()
    if kind == "text/html" or length != str(archive.size):
        raise _no_download(archive, f"{kind} of {length} bytes came, not {archive.size} bytes")
    return 0


def _unpack(file: Path, folder: Path, meter: _Meter) -> None:
    """Unpack `folder` from the zip `file`, whole or not at all."""
    prefix = f".{folder.name}-"
    for leftover in folder.parent.glob(f"{prefix}*"):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        with (
            zipfile.ZipFile(file) as archive,
            tempfile.TemporaryDirectory(
                prefix=prefix, dir=folder.parent, ignore_cleanup_errors=True
            ) as beside,
        ):
            total, done = sum(info.file_size for info in archive.infolist()), 0
            _check_space(folder.parent, total)
            meter.begin("unpacking", 0, total)
            for info in archive.infolist():
                archive.extract(info, beside)  # it drops drives, roots and `..`, so never outside
                done += info.file_size
                meter.update(done)
            Path(beside, folder.name).rename(folder)
    except (zipfile.BadZipFile, zlib.error, FileNotFoundError) as error:
        raise NstError(
            f"{file} is not a zip file with a folder {folder.name} ({error}): remove it"
        ) from error


class _DroppedError(Exception):
    """A connection failed; another one may resume from there."""

    def __init__(self, why: str, unconnected: bool = False) -> None:
        super().__init__(why)
        self.unconnected = unconnected


class _Meter:
    """Reports progress to the callback, at most ten times a second."""

    def __init__(self, callback: Callable[[DownloadProgress], None] | None) -> None:
        self._callback = callback

    def begin(self, stage: Stage, done: int, total: int) -> None:
        self._stage: Stage = stage
        self._first, self._total = done, total
        self._start = time.monotonic()
        self._reported = -1.0
        self.update(done)

    def update(self, done: int) -> None:
        now = time.monotonic()
        if self._callback is None or (now - self._reported < 0.1 and done < self._total):
            return
        self._reported = now
        elapsed = now - self._start
        pace = (done - self._first) / elapsed if elapsed else 0.0
        left = (self._total - done) / pace if pace > 0 else float("inf")
        self._callback(DownloadProgress(self._stage, done, self._total, max(0.0, pace), left))


def _sha256(path: Path, meter: _Meter) -> str:
    total = _size(path)
    meter.begin("checking", 0, total)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            meter.update(file.tell())
    return digest.hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _check_space(folder: Path, need: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < need:
        raise NstError(
            f"{folder} has {free / 1e9:.2f} GB free, but COCO needs {need / 1e9:.2f}: "
            "free some space, or set NST_CACHE to another folder"
        )


def _why(error: Exception) -> str:
    reason = error.reason if isinstance(error, URLError) else error
    return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__


def _no_download(archive: Archive, why: str) -> NstError:
    by_hand = cache_folder() / "coco" / f"{archive.name}.zip"
    return NstError(
        f"cannot download {archive.url}: {why}; try again (the download resumes), "
        f"name a folder of photographs, or put the file at {by_hand}"
    )
