"""A window of OpenCV, and other programs' cameras: where a live session goes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2

from nst.errors import NstError, needs_extra
from nst.infer.runtime.resize import resized
from nst.io.images import Array

_NAMES = {ord(" "): "space", 27: "q", ord("="): "+", ord("_"): "-"}
_NAMES |= {0xFF1B: "q", 0xFFAB: "+", 0xFFAD: "-"}  # of X11: Esc, and the keypad's


class OpenCVWindow:
    """A window that shows frames and gives keys.

    Raises:
        NstError: there is no display, or OpenCV was built without windows.
    """

    def __init__(self, title: str) -> None:
        check_display()
        self._title = title
        try:
            # Without Qt's own buttons, and without its complaint that it has no fonts for them.
            os.environ.setdefault("QT_LOGGING_RULES", "*.warning=false")
            flags = cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL
            cv2.namedWindow(title, flags)
        except cv2.error as error:
            raise NstError(
                "this OpenCV was built without windows: install opencv-python in place of "
                "opencv-python-headless, or use --no-window"
            ) from error
        self._size: tuple[int, int] | None = None
        self._shown = False

    def show(self, image: Array) -> None:
        """A frame, HWC uint8 RGB; the first one sets the window's size."""
        if self._size is None:
            self._size = image.shape[:2]
            cv2.resizeWindow(self._title, image.shape[1], image.shape[0])
        cv2.imshow(self._title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self._shown = True

    def key(self) -> str | None:
        """The key that was pressed, if any; the window is kept alive by asking."""
        code = cv2.waitKeyEx(1)
        if code < 0:
            return None
        code &= 0xFFFF
        # Arrows and the like have codes beyond those of letters.
        return _NAMES.get(code, chr(code).lower() if code < 0x100 else None)

    @property
    def closed(self) -> bool:
        """Whether its close button was pressed."""
        if not self._shown:
            return False
        return bool(cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1)

    def full_screen(self, on: bool) -> None:
        """Fill the screen, or go back to a window."""
        mode = cv2.WINDOW_FULLSCREEN if on else cv2.WINDOW_NORMAL
        cv2.setWindowProperty(self._title, cv2.WND_PROP_FULLSCREEN, mode)

    def close(self) -> None:
        """Take it away."""
        if not self.closed:
            cv2.destroyWindow(self._title)
            cv2.waitKeyEx(1)


def check_display() -> None:
    """Raise where no window can be opened: OpenCV would end the process, beyond any handler.

    Raises:
        NstError: no display.
    """
    if not sys.platform.startswith("linux"):
        return
    display = os.environ.get("DISPLAY", "")
    if display and not _answers(display):
        raise NstError(f"the display {display} does not answer: use --no-window, or mend DISPLAY")
    if not display:  # of Wayland OpenCV knows what XWayland offers
        raise NstError("there is no display: use --no-window with --record or --virtual-camera")
    # A display may still refuse us; another process may be ended for that.
    trial = [sys.executable, "-c", "import cv2; cv2.namedWindow('nst')"]
    if subprocess.run(trial, capture_output=True, check=False, timeout=60).returncode < 0:
        raise NstError(f"the display {display} lets no window be opened: use --no-window")


def _answers(display: str) -> bool:
    """Whether an X server takes connections."""
    host, _, number = display.rpartition(":")
    number = number.partition(".")[0]
    if not number.isdigit():
        return False
    try:
        if host in ("", "unix"):
            path = f"/tmp/.X11-unix/X{number}"
            for address in (path, f"\0{path}"):
                with socket.socket(socket.AF_UNIX) as end:
                    end.settimeout(2)
                    if end.connect_ex(address) == 0:
                        return True
            return False
        with socket.create_connection((host, 6000 + int(number)), timeout=2):
            return True
    except OSError:
        return False


class VirtualCamera:
    """A camera that other programs see, by pyvirtualcam (the extra `camera`).

    Raises:
        MissingExtraError: it isn't installed. NstError: no driver for it is.
    """

    def __init__(self, size: tuple[int, int], fps: float) -> None:
        with needs_extra("--virtual-camera", "camera"):
            import pyvirtualcam
        height, width = size
        try:
            self._camera: Any = pyvirtualcam.Camera(width=width, height=height, fps=fps)
        except RuntimeError as error:
            why = " ".join(str(error).split())
            raise NstError(
                f"no virtual camera can be opened ({why}): on Linux load v4l2loopback, elsewhere "
                "install OBS"
            ) from error
        self.device: str = self._camera.device
        self._size = size

    def send(self, image: Array) -> None:
        """A frame, HWC uint8 RGB; one of another size is scaled."""
        self._camera.send(resized(image, self._size))

    def close(self) -> None:
        """Take it away."""
        self._camera.close()


def source_of(text: str) -> int | str:
    """`0` as a camera's number; anything else is a file or an address."""
    number = text.isascii() and text.isdigit() and len(text) < 6
    return int(text) if number and not Path(text).exists() else text
