"""Keeps costly results on disk, by the hash of their inputs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

from nst.errors import NstError
from nst.io.files import replacing


def cache_folder() -> Path:
    """Return the folder of cached results: `$NST_CACHE`, or nst's folder in the user's cache."""
    return Path(os.environ.get("NST_CACHE") or platformdirs.user_cache_dir("nst", appauthor=False))


def content_hash(*parts: NDArray[Any] | str) -> str:
    """Hash all inputs of a result (texts, and arrays with shape and type) to 32 hex digits."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(f"text {len(part)} {part}".encode())
        else:
            digest.update(f"array {part.shape} {part.dtype}".encode())
            digest.update(part.tobytes())
    return digest.hexdigest()[:32]


def read_cached(kind: str, key: str) -> dict[str, Any] | None:
    """Read what `write_cached` kept; None if there is nothing, or it can't be read."""
    try:
        found = json.loads((cache_folder() / kind / f"{key}.json").read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write_cached(kind: str, key: str, value: dict[str, Any]) -> None:
    """Keep a dictionary of JSON values; do nothing if the cache can't be written."""
    with contextlib.suppress(NstError), replacing(cache_folder() / kind / f"{key}.json") as beside:
        beside.write_text(json.dumps(value))


def read_cached_array(kind: str, key: str) -> NDArray[Any] | None:
    """Read what `write_cached_array` kept; None if there is nothing, or it can't be read."""
    try:
        found = np.load(cache_folder() / kind / f"{key}.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if isinstance(found, np.ndarray) else None


def write_cached_array(kind: str, key: str, value: NDArray[Any]) -> None:
    """Keep an array; do nothing if the cache can't be written."""
    with contextlib.suppress(NstError), replacing(cache_folder() / kind / f"{key}.npy") as beside:
        np.save(beside, value)
