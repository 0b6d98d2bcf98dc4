"""Shows a live session in an OpenCV window, or as a camera of other programs."""

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
from nst.io.files import Closing
from nst.io.images import Array

_NAMES = {ord(" "): "space", 27: "q", ord("="): "+", ord("_"): "-"}
_NAMES |= {0xFF1B: "q", 0xFFAB: "+", 0xFFAD: "-"}  # X11: Esc, and the keypad's + and -
_NO_ANSWER = "the display {} does not answer: run without a window, or correct DISPLAY"
_TRIAL_SECONDS = 15  # in which a display must open a window; importing OpenCV takes a few
# Qt complains that it has no fonts for the buttons that we do not show. Set before threads run.
os.environ.setdefault("QT_LOGGING_RULES", "*.warning=false")


class OpenCVWindow(Closing):
    """Shows frames and returns the keys that are pressed.

    Raises:
        NstError: there is no display, or OpenCV was built without windows.
    """

    def __init__(self, title: str) -> None:
        check_display()
        self._title = title
        try:
            flags = cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL
            cv2.namedWindow(title, flags)
        except cv2.error as error:
            raise NstError(
                "this OpenCV was built without windows: install opencv-python in place of "
                "opencv-python-headless, or run without a window"
            ) from error
        self._size: tuple[int, int] | None = None
        self._shown = False

    def show(self, image: Array) -> None:
        """Show a frame, HWC uint8 RGB; the first one sets the window's size."""
        if self._size is None:
            self._size = image.shape[:2]
            cv2.resizeWindow(self._title, image.shape[1], image.shape[0])
        cv2.imshow(self._title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self._shown = True

    def key(self) -> str | None:
        """Return the key that was pressed, if any; call it often, it keeps the window alive."""
        code = cv2.waitKeyEx(1)
        if code < 0:
            return None
        code &= 0xFFFF
        # Arrows and similar keys have codes above those of letters.
        return _NAMES.get(code, chr(code).lower() if code < 0x100 else None)

    @property
    def closed(self) -> bool:
        """Whether the close button was pressed."""
        if not self._shown:
            return False
        try:
            return bool(cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1)
        except cv2.error:  # Qt's last window is gone
            return True

    def full_screen(self, on: bool) -> None:
        """Fill the screen, or go back to a window."""
        mode = cv2.WINDOW_FULLSCREEN if on else cv2.WINDOW_NORMAL
        cv2.setWindowProperty(self._title, cv2.WND_PROP_FULLSCREEN, mode)

    def close(self) -> None:
        """Remove the window."""
        if not self.closed:
            cv2.destroyWindow(self._title)
            cv2.waitKeyEx(1)


def check_display() -> None:
    """Check that a window can be opened: otherwise OpenCV ends the process, beyond any handler.

    Raises:
        NstError: there is no display, or it does not answer.
    """
    if not sys.platform.startswith("linux"):
        return
    display = os.environ.get("DISPLAY", "")
    if display and not _answers(display):
        raise NstError(_NO_ANSWER.format(display))
    if not display:  # on Wayland OpenCV uses XWayland, which sets DISPLAY
        raise NstError(
            "there is no display: run without a window, into a recording or a virtual camera"
        )
    # A display may still refuse us, which must end another process, not this one.
    trial = [sys.executable, "-c", "import cv2; cv2.namedWindow('nst')"]
    try:
        done = subprocess.run(trial, capture_output=True, check=False, timeout=_TRIAL_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise NstError(_NO_ANSWER.format(display)) from error
    if done.returncode < 0:
        raise NstError(f"the display {display} lets no window be opened: run without a window")


def _answers(display: str) -> bool:
    """Return whether an X server takes connections."""
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


class VirtualCamera(Closing):
    """Sends frames to a camera that other programs can use, by pyvirtualcam (the extra `camera`).

    Raises:
        MissingExtraError: pyvirtualcam is not installed. NstError: its driver is not.
    """

    def __init__(self, size: tuple[int, int], fps: float) -> None:
        with needs_extra("a virtual camera", "camera"):
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
        """Send a frame, HWC uint8 RGB; scale one of another size."""
        self._camera.send(resized(image, self._size))

    def close(self) -> None:
        """Close the virtual camera."""
        self._camera.close()


def source_of(text: str) -> int | str:
    """Return a number such as `0` as a camera's; anything else is a file or a URL."""
    number = text.isascii() and text.isdigit() and len(text) < 6
    return int(text) if number and not Path(text).exists() else text
