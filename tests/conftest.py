"""Images and models that tests share; everything is made here, nothing is downloaded."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side; read as torch loads

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from nst.io.images import Array, save_image

ROOT = Path(__file__).parent.parent
# No test fails because a machine is slow.
settings.register_profile(
    "nst", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("nst")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["NST_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def photograph() -> Array:
    """A photograph that training never sees, 96 × 128."""
    from nst.io.images import resize_image
    from nst.io.sample_images import held_out

    return resize_image(held_out()[0], (96, 128))


@pytest.fixture(scope="session")
def style_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small style image: slanted stripes of three colours."""
    y, x = np.mgrid[:80, :100]
    colors = np.array([[70, 90, 130], [210, 200, 180], [180, 110, 80]], np.uint8)
    path = tmp_path_factory.mktemp("style") / "stripes.png"
    save_image(path, colors[(x + 2 * y) // 9 % 3])
    return path


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained network, exported."""
    import torch

    from nst.models.transformer import TransformerConfig, TransformerNet
    from nst.train.export.export import export_onnx

    torch.manual_seed(1)
    network = TransformerNet(TransformerConfig(width=4, blocks=1))
    torch.nn.init.normal_(network.output.weight, std=0.2)
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    export_onnx(network, path, {"title": "Tiny", "style_sha256": "0" * 64})
    return path


@pytest.fixture(scope="session")
def bad_images(tmp_path_factory: pytest.TempPathFactory, photograph: Array) -> dict[str, Path]:
    """Files that are no usable image, by what is wrong with them."""
    folder = tmp_path_factory.mktemp("bad")
    paths = {
        "missing": folder / "missing.jpg",
        "folder": folder / "folder.jpg",
        "text": folder / "text.jpg",
        "empty": folder / "empty.png",
        "truncated": folder / "truncated.jpg",
    }
    paths["folder"].mkdir()
    paths["text"].write_text("this is not an image")
    paths["empty"].write_bytes(b"")
    save_image(paths["truncated"], photograph)
    data = paths["truncated"].read_bytes()
    paths["truncated"].write_bytes(data[: len(data) // 2])
    return paths
