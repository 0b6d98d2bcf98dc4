"""`Stylizer`: the contract of the exported file, and files that break it."""

from __future__ import annotations

import contextlib
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from nst.errors import ModelError, NstError, UsageError
from nst.infer.runtime import providers, runner
from nst.infer.runtime.stylizer import Stylizer
from nst.io.images import Array
from nst.models.transformer import TransformerNet, preset_config
from nst.train.export.export import export_onnx


@pytest.fixture(scope="module")
def stylizer(model_path: Path) -> Stylizer:
    return Stylizer(model_path, provider="cpu")


def test_repaints(stylizer: Stylizer, photograph: Array) -> None:
    before = photograph.copy()
    stylized = stylizer(photograph)
    assert stylized.shape == photograph.shape
    assert stylized.dtype == np.uint8
    assert np.abs(stylized.astype(int) - photograph).mean() > 5
    np.testing.assert_array_equal(photograph, before)
    assert stylizer.provider == "cpu"
    assert stylizer.name == "Tiny"


@settings(max_examples=25)
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
    for strength in (0.0, 1.0):
        with pytest.raises(NstError, match="closed"):
            stylizer(photograph, strength)


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


def save_model(path: Path, nodes: list[onnx.NodeProto], **tensors: tuple[int, list[Any]]) -> Path:
    """A model whose first tensor is the input and whose last is the output: type and shape."""
    names = list(tensors)
    infos = [helper.make_tensor_value_info(name, *tensors[name]) for name in names]
    graph = helper.make_graph(nodes, "g", infos[:-1], infos[-1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


FLOAT, HALF, BYTE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8
FIRST: list[Any] = ["n", 3, "h", "w"]
LAST: list[Any] = ["n", "h", "w", 3]


def inverting(kind: int, white: float, black: float) -> list[onnx.NodeProto]:
    """Nodes that invert pixels in a range of [black, white]."""
    constants = {"white": white, "black": black, "sum": white + black}
    return [
        *(
            helper.make_node(
                "Constant", [], [name], value=helper.make_tensor(name, kind, [], [value])
            )
            for name, value in constants.items()
        ),
        helper.make_node("Clip", ["x", "black", "white"], ["inside"]),
        helper.make_node("Sub", ["sum", "inside"], ["y"]),
    ]


@pytest.mark.parametrize(
    ("kind", "shape", "white", "black", "pixels"),
    [
        (FLOAT, FIRST, 255.0, 0.0, "byte"),
        (FLOAT, LAST, 255.0, 0.0, "byte"),
        (HALF, FIRST, 255.0, 0.0, "byte"),
        (FLOAT, FIRST, 1.0, 0.0, "unit"),
        (FLOAT, FIRST, 1.0, -1.0, "signed"),
        (FLOAT, [None] * 4, 255.0, 0.0, "byte"),
        (FLOAT, [1, 3, 48, 64], 255.0, 0.0, "byte"),
        (FLOAT, [2, 3, "h", "w"], 1.0, 0.0, "unit"),
    ],
)
def test_models_of_other_makers(
    tmp_path: Path, kind: int, shape: list[Any], white: float, black: float, pixels: str
) -> None:
    nodes = inverting(kind, white, black)
    path = save_model(tmp_path / "other.onnx", nodes, x=(kind, shape), y=(kind, shape))
    y, x = np.mgrid[:48, :64]
    image = np.stack([4 * x, 5 * y, 2 * (x + y)], axis=2).astype(np.uint8)
    with Stylizer(path, provider="cpu") as stylizer:
        assert not stylizer.signature.native
        assert stylizer.signature.pixels == pixels
        assert stylizer.precision == "unknown"
        assert stylizer.name == "other"
        got = stylizer(image)
        np.testing.assert_array_equal(got, 255 - image)
        batch = stylizer(np.stack([image, image[::-1], image[:, ::-1]]))
        np.testing.assert_array_equal(batch[2], 255 - image[:, ::-1])


def test_another_makers_model_that_rounds_sizes_up(tmp_path: Path) -> None:
    pads = helper.make_tensor("p", TensorProto.INT64, [8], [0, 0, 0, 0, 0, 0, 3, 2])
    nodes = [
        helper.make_node("Constant", [], ["pads"], value=pads),
        helper.make_node("Pad", ["x", "pads"], ["y"]),
    ]
    shape = ["n", 3, "hh", "ww"]
    path = save_model(tmp_path / "grows.onnx", nodes, x=(FLOAT, FIRST), y=(FLOAT, shape))
    image = np.arange(40 * 50 * 3, dtype=np.uint8).reshape(40, 50, 3)
    with Stylizer(path, provider="cpu") as stylizer:
        np.testing.assert_array_equal(stylizer(image), image)


@pytest.mark.parametrize("size", [(240, 230), (256, 256), (200, 500)])
def test_a_fixed_size_is_scaled_to_and_back(tmp_path: Path, size: tuple[int, int]) -> None:
    shape = [1, 3, 256, 256]
    nodes = inverting(FLOAT, 255.0, 0.0)
    path = save_model(tmp_path / "fixed.onnx", nodes, x=(FLOAT, shape), y=(FLOAT, shape))
    height, width = size
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 250 // width, y * 250 // height, (x + y) // 4], axis=2).astype(np.uint8)
    with Stylizer(path, provider="cpu") as stylizer:
        assert np.abs(stylizer(image).astype(int) - (255 - image)).mean() < 1.5
        assert "another maker" in stylizer.notes[0]


def test_one_fixed_side_is_refused(tmp_path: Path) -> None:
    shape = [1, 3, 256, "w"]
    nodes = inverting(FLOAT, 255.0, 0.0)
    path = save_model(tmp_path / "half.onnx", nodes, x=(FLOAT, shape), y=(FLOAT, shape))
    with pytest.raises(ModelError, match="fixes one side"):
        Stylizer(path, provider="cpu")


def test_what_a_thread_prints_while_a_session_opens_is_not_lost(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """CUDA's libraries are loaded once per process, and only what that prints is dropped."""
    loads = []

    def preload() -> None:
        loads.append(threading.get_ident())
        onnxruntime.print("noise of ONNX Runtime")
        other = threading.Thread(target=print, args=("a line of another thread",))
        other.start()
        other.join()

    monkeypatch.setattr(onnxruntime, "preload_dlls", preload, raising=False)
    monkeypatch.setattr(providers, "cuda_devices", lambda: 1)
    monkeypatch.setattr(providers, "installed_providers", lambda: ("cuda", "cpu"))
    providers._preload_cuda.cache_clear()
    before = sys.stdout
    with ThreadPoolExecutor(6) as pool:
        for stylizer in pool.map(lambda _: Stylizer(model_path), range(12)):
            stylizer.close()
    assert sys.stdout is before
    assert capsys.readouterr().out == "a line of another thread\n"
    assert len(loads) == 1
    assert not hasattr(onnxruntime, "print")


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (BYTE, ["n", "h", 3]),
        (FLOAT, ["n", 1, "h", "w"]),
        (TensorProto.INT64, FIRST),
        (FLOAT, [5]),
    ],
)
def test_a_model_that_maps_no_image(tmp_path: Path, kind: int, shape: list[Any]) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    path = save_model(tmp_path / "other.onnx", nodes, x=(kind, shape), y=(kind, shape))
    with pytest.raises(ModelError, match="maps no single RGB image"):
        Stylizer(path, provider="cpu")


def test_a_model_of_two_inputs(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "z"], ["y"])]
    tensors = dict.fromkeys("xzy", (FLOAT, FIRST))
    path = save_model(tmp_path / "two.onnx", nodes, **tensors)
    with pytest.raises(ModelError, match="maps no single RGB image"):
        Stylizer(path, provider="cpu")


def test_cuda_without_a_gpu(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "cuda_devices", lambda: 0)
    with pytest.raises(NstError, match="use the provider cpu"):
        Stylizer(model_path, provider="cuda")
    with Stylizer(model_path) as stylizer:
        assert stylizer.provider == "cpu"
        assert stylizer.notes == ()


@pytest.mark.skipif(providers.cuda_devices() > 0, reason="a CUDA device is present")
def test_a_provider_that_does_not_load_gives_way_and_says_so(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, photograph: Array
) -> None:
    monkeypatch.setattr(providers, "cuda_devices", lambda: 1)
    monkeypatch.setattr(providers, "installed_providers", lambda: ("cuda", "cpu"))
    with Stylizer(model_path) as stylizer:
        assert stylizer.provider == "cpu"
        assert stylizer(photograph).shape == photograph.shape
        (note,) = stylizer.notes
        assert "cuda does not load" in note
    with pytest.raises(NstError, match="does not load"):
        Stylizer(model_path, provider="cuda")


def test_a_provider_that_fails_on_the_model_gives_way(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opens, and cannot compute: found out by the probe, not in the middle of work."""
    opened = providers._open

    def on_the_cpu(data: bytes, _name: str, threads: int, *_: object) -> Any:
        return opened(data, "cpu", threads)

    def probe(*_: object) -> None:
        raise RuntimeError("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : no such kernel")

    monkeypatch.setattr(providers, "_open", on_the_cpu)
    monkeypatch.setattr(providers, "installed_providers", lambda: ("openvino", "cpu"))
    with Stylizer(model_path) as stylizer:
        assert stylizer.provider == "openvino"
    monkeypatch.setattr(Stylizer, "_probe", probe)
    with Stylizer(model_path) as stylizer:
        assert stylizer.provider == "cpu"
        assert "no such kernel" in stylizer.notes[0]


def test_what_a_gpu_refuses_is_left_out(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options that not every GPU and network takes: by what opens, then by what computes."""
    make, seen = onnxruntime.InferenceSession, list[dict[str, str]]()

    def on_a_gpu(data: bytes, options: Any, providers: Any, **_: Any) -> Any:
        name, given = providers[0]
        assert name == "CUDAExecutionProvider"
        seen.append(dict(given))
        if broken and "enable_cuda_graph" in given:
            raise RuntimeError("not all nodes are on the GPU")
        session = make(data, options, ["CPUExecutionProvider"])
        monkeypatch.setattr(session, "get_providers", lambda: ["CUDAExecutionProvider"])
        return session

    def probe(*_: object) -> None:
        if "enable_cuda_graph" in seen[-1]:
            raise RuntimeError("no such kernel")

    monkeypatch.setattr(providers, "cuda_devices", lambda: 1)
    monkeypatch.setattr(providers, "installed_providers", lambda: ("cuda", "cpu"))
    monkeypatch.setattr(onnxruntime, "InferenceSession", on_a_gpu)
    kind = providers.KINDS["cuda"]
    broken = True
    opened, _, notes = providers.open_session(model_path.read_bytes(), "x")
    assert opened.get_providers() == ["CUDAExecutionProvider"]
    assert notes == ()
    assert seen == [kind.options | kind.optional, kind.options]
    seen.clear()
    broken = False
    monkeypatch.setattr(Stylizer, "_probe", probe)
    with Stylizer(model_path) as stylizer:
        assert stylizer.provider == "cuda"
    assert seen == [kind.options | kind.optional, kind.options]


def test_unknown_and_missing_providers(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="tpu"):
        Stylizer(model_path, provider="tpu")  # type: ignore[arg-type]
    monkeypatch.setattr(providers, "installed_providers", lambda: ("cpu",))
    with pytest.raises(NstError, match="pip install onnxruntime-openvino"):
        Stylizer(model_path, provider="openvino")


def test_threads_share_a_stylizer(stylizer: Stylizer, photograph: Array) -> None:
    images = [np.roll(photograph, 7 * i, 1) for i in range(12)]
    expected = [stylizer(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        for got, want in zip(pool.map(stylizer, images), expected, strict=True):
            np.testing.assert_array_equal(got, want)


def test_closing_lets_the_others_finish(model_path: Path, photograph: Array) -> None:
    stylizer = Stylizer(model_path, provider="cpu")
    big = np.tile(photograph, (4, 4, 1))
    expected = stylizer(big)
    begun = threading.Event()

    def work() -> Array:
        begun.set()
        return stylizer(big)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        begun.wait()
        with contextlib.suppress(NstError):  # it may have come too late
            np.testing.assert_array_equal(future.result(), expected)
        stylizer.close()
    with pytest.raises(NstError, match="closed"):
        stylizer(big)


@pytest.mark.parametrize("preset", ["fast", "quality"])
def test_bound_buffers_give_what_arrays_give(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photograph: Array
) -> None:
    """As on a GPU, with the buffers of a CPU: kept while the size stays."""
    torch.manual_seed(0)
    export_onnx(TransformerNet(preset_config(preset)), tmp_path / "x.onnx", {})
    inner = onnxruntime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    signature = Stylizer(tmp_path / "x.onnx", provider="cpu").signature
    plain, bound = runner.Runner(inner), runner.BoundRunner(inner, "cpu")
    make, made = onnxruntime.OrtValue.ortvalue_from_shape_and_type, []

    def count(*args: Any, **kwargs: Any) -> Any:
        made.append(args)
        return make(*args, **kwargs)

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type", count)
    buffers = 4 if signature.statistics else 2
    one = np.full((1, signature.statistics), 2, np.float32) if signature.statistics else None
    for image, held, sizes in (
        (photograph, None, 1),
        (photograph[::-1], one, 1),
        (photograph[::-1], None, 1),  # what was held is forgotten
        (photograph[:40], one, 2),
    ):
        batch = np.ascontiguousarray(image[None])
        expected, got = plain(signature, batch, held), bound(signature, batch, held)
        np.testing.assert_array_equal(got[0], expected[0])
        np.testing.assert_array_equal(got[1], expected[1])
        assert len(made) == buffers * sizes


class Recorder:
    """A session that seems to be on a GPU: of a call that it recorded, it repeats the tensors."""

    def __init__(self, inner: onnxruntime.InferenceSession, broken: bool = False) -> None:
        self._inner, self._broken = inner, broken
        self._recorded: dict[str, tuple[int, Any]] = {}
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {"CUDAExecutionProvider": {"enable_cuda_graph": "1"}}

    def run_with_iobinding(self, binding: Any, options: onnxruntime.RunOptions) -> None:
        graph = options.get_run_config_entry("gpu_graph_id")
        self.asked.append(graph)
        if graph != "-1":
            if self._broken:
                raise RuntimeError("cannot be recorded")
            thread, binding = self._recorded.setdefault(graph, (threading.get_ident(), binding))
            assert thread == threading.get_ident()
        self._inner.run_with_iobinding(binding)


def test_calls_of_one_size_become_a_graph(model_path: Path, photograph: Array) -> None:
    stylizer = Stylizer(model_path, provider="cpu")
    inner = onnxruntime.InferenceSession(model_path, providers=["CPUExecutionProvider"])
    recorder = Recorder(inner)
    bound = runner.BoundRunner(recorder, "cpu")  # type: ignore[arg-type]

    def repaint(image: Array) -> None:
        got, _ = bound(stylizer.signature, np.ascontiguousarray(image[None]))
        np.testing.assert_array_equal(got[0], stylizer(image))

    for turn in range(5):
        repaint(photograph[:, turn:40])  # a new width each
    assert recorder.asked == ["-1"] * 5
    for image in (photograph, photograph[::-1], photograph[:, ::-1], photograph, photograph[::-1]):
        repaint(image)
    assert recorder.asked[5:] == ["-1", "-1", "8", "8", "8"]
    with ThreadPoolExecutor(1) as pool:
        pool.submit(repaint, photograph).result()
    assert recorder.asked[10:] == ["-1"]
    for turn in range(8 * runner.CALLS):
        repaint(photograph[: 60 - turn // runner.CALLS])
    assert recorder.asked[11:] == [
        *(g for graph in range(7, 0, -1) for g in ("-1", "-1", str(graph))),
        *["-1"] * runner.CALLS,  # not without end
    ]


def test_what_cannot_be_recorded_is_computed(model_path: Path, photograph: Array) -> None:
    stylizer = Stylizer(model_path, provider="cpu")
    inner = onnxruntime.InferenceSession(model_path, providers=["CPUExecutionProvider"])
    recorder = Recorder(inner, broken=True)
    bound = runner.BoundRunner(recorder, "cpu")  # type: ignore[arg-type]
    for _ in range(5):
        got, _ = bound(stylizer.signature, photograph[None])
        np.testing.assert_array_equal(got[0], stylizer(photograph))
    assert recorder.asked == ["-1", "-1", "8", "-1", "-1", "-1"]
