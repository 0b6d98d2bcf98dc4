"""`Stylizer`: the contract of the exported file, and files that break it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from nst.errors import ModelError, NstError, UsageError
from nst.images import Array
from nst.infer import session
from nst.infer.session import Stylizer


@pytest.fixture(scope="module")
def stylizer(model_path: Path) -> Stylizer:
    return Stylizer(model_path, device="cpu")


def test_repaints(stylizer: Stylizer, photograph: Array) -> None:
    before = photograph.copy()
    stylized = stylizer(photograph)
    assert stylized.shape == photograph.shape
    assert stylized.dtype == np.uint8
    assert np.abs(stylized.astype(int) - photograph).mean() > 5
    np.testing.assert_array_equal(photograph, before)
    assert stylizer.provider == "CPUExecutionProvider"
    assert stylizer.name == "Tiny"


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70))
def test_any_size_even_below_the_files_least(stylizer: Stylizer, height: int, width: int) -> None:
    image = np.full((height, width, 3), 100, np.uint8)
    assert stylizer(image).shape == image.shape


def test_a_batch_is_its_images(stylizer: Stylizer, photograph: Array) -> None:
    batch = np.stack([photograph, photograph[::-1], 255 - photograph])
    stylized = stylizer(batch)
    for image, expected in zip(batch, stylized, strict=True):
        assert np.abs(stylizer(image).astype(int) - expected).max() <= 1


def test_strength_blends(stylizer: Stylizer, photograph: Array) -> None:
    full = stylizer(photograph).astype(float)
    np.testing.assert_array_equal(stylizer(photograph, 0), photograph)
    for strength in (0.25, 0.5, 0.9):
        expected = strength * full + (1 - strength) * photograph
        np.testing.assert_allclose(stylizer(photograph, strength), expected, atol=0.51)


def test_views_and_read_only_arrays(stylizer: Stylizer, photograph: Array) -> None:
    flipped = photograph[:, ::-1]
    np.testing.assert_array_equal(stylizer(flipped), stylizer(flipped.copy()))
    frozen = photograph.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(stylizer(frozen, 0.5), stylizer(photograph, 0.5))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((40, 40), np.uint8),
        np.zeros((40, 40, 4), np.uint8),
        np.zeros((40, 40, 3), np.float32),
    ],
)
def test_other_arrays_are_refused(stylizer: Stylizer, image: Array) -> None:
    with pytest.raises(UsageError, match="give uint8"):
        stylizer(image)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_bad_strength(stylizer: Stylizer, photograph: Array, strength: float) -> None:
    with pytest.raises(UsageError, match="strength"):
        stylizer(photograph, strength)


def test_closes(model_path: Path, photograph: Array) -> None:
    with Stylizer(model_path) as stylizer:
        stylizer(photograph)
    with pytest.raises(NstError, match="closed"):
        stylizer(photograph)


def test_bad_files(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name, why in (
        ("none.onnx", "does not exist"),
        ("", "folder"),
        ("text.onnx", "not an ONNX model"),
        ("empty.onnx", "not an ONNX model"),
    ):
        with pytest.raises(ModelError, match=why):
            Stylizer(tmp_path / name)


@pytest.mark.parametrize(
    ("kind", "names", "rank"),
    [
        (TensorProto.FLOAT, ("image", "stylized"), 4),
        (TensorProto.UINT8, ("input", "output"), 4),
        (TensorProto.UINT8, ("image", "stylized"), 3),
    ],
)
def test_another_makers_model(tmp_path: Path, kind: int, names: tuple[str, str], rank: int) -> None:
    x, y = (helper.make_tensor_value_info(n, kind, [None] * (rank - 1) + [3]) for n in names)
    graph = helper.make_graph([helper.make_node("Identity", [names[0]], [names[1]])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ModelError, match="not one of nst"):
        Stylizer(tmp_path / "other.onnx")


def test_cuda_without_a_gpu(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "cuda_devices", lambda: 0)
    with pytest.raises(NstError, match="--device cpu"):
        Stylizer(model_path, device="cuda")
    with Stylizer(model_path) as stylizer:
        assert stylizer.provider == "CPUExecutionProvider"


@pytest.mark.skipif(session.cuda_devices() > 0, reason="a CUDA device is present")
def test_a_cuda_provider_that_does_not_load_falls_back(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, photograph: Array
) -> None:
    monkeypatch.setattr(session, "cuda_devices", lambda: 1)
    with Stylizer(model_path) as stylizer:
        assert stylizer.provider == "CPUExecutionProvider"
        assert stylizer(photograph).shape == photograph.shape
    with pytest.raises(NstError, match="does not load"):
        Stylizer(model_path, device="cuda")


def test_unknown_device(model_path: Path) -> None:
    with pytest.raises(UsageError, match="tpu"):
        Stylizer(model_path, device="tpu")  # type: ignore[arg-type]
