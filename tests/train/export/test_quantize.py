"""int8 and fp16 graphs: what is in them, and how far they are from fp32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper
from torch import nn

from nst.errors import ExportError, UsageError
from nst.infer.runtime.stylizer import Stylizer
from nst.io.images import Array, resize_image
from nst.models.config import Architecture, Norm
from nst.models.norm import SubsampledRMSNorm
from nst.models.transformer import TransformerConfig, TransformerNet
from nst.train.export import quantize
from nst.train.export.calibrate import best_params
from nst.train.export.export import Exported, export_precisions
from nst.train.export.folding import equalize
from nst.train.export.graph import transformer_graph
from nst.train.export.quantize import to_fp16, to_int8


def network(
    norm: Norm, photographs: Sequence[Array], architecture: Architecture = "johnson"
) -> TransformerNet:
    """Random weights; statistics of batch normalisation that fit the photographs."""
    torch.manual_seed(0)
    net = TransformerNet(
        TransformerConfig(width=16, blocks=2, norm=norm, architecture=architecture)
    )
    for module in net.modules():
        if isinstance(module, nn.InstanceNorm2d | nn.BatchNorm2d | SubsampledRMSNorm):
            nn.init.normal_(module.weight, 1, 0.2)
        if isinstance(module, nn.InstanceNorm2d | nn.BatchNorm2d):
            nn.init.normal_(module.bias, 0, 0.2)
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # plain averages
    nn.init.normal_(net.output.weight, std=0.05 if architecture == "johnson" else 1.5)
    with torch.no_grad():
        for photograph in photographs:
            net(torch.tensor(photograph).permute(2, 0, 1)[None].float())
    return net.eval()


@pytest.fixture(scope="module")
def photographs(photograph: Array) -> list[Array]:
    return [photograph, photograph[:, ::-1].copy(), 255 - photograph, photograph[::-1].copy()]


def weight_bytes(model: onnx.ModelProto) -> int:
    return sum(len(weight.raw_data) for weight in model.graph.initializer)


def optimized_kinds(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    """The nodes that ONNX Runtime really runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def test_a_network_that_folds_is_integers_from_end_to_end(
    tmp_path: Path, photographs: list[Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "_WIDE", 9)
    model = to_int8(transformer_graph(network("batch", photographs)), photographs)
    onnx.checker.check_model(model, full_check=True)
    kinds = optimized_kinds(model, tmp_path)
    assert kinds["QLinearConv"] == 10
    assert kinds["QLinearAdd"] == 2
    # No detour: neither floats nor changes of layout.
    assert not kinds.keys() & {"QuantizeLinear", "DequantizeLinear", "Cast", "Conv", "Transpose"}


@pytest.mark.parametrize(("norm", "floats"), [("instance", 9), ("batch", 0)])
def test_a_wide_last_convolution_stays_in_float(
    tmp_path: Path, photographs: list[Array], norm: Norm, floats: int
) -> None:
    model = to_int8(transformer_graph(network(norm, photographs)), photographs)
    kinds = optimized_kinds(model, tmp_path)
    assert kinds["QLinearConv"] == 9
    assert kinds["Conv"] == 1
    assert kinds["InstanceNormalization"] == floats
    # Out of integers after each convolution and into them before the next; bytes go in.
    assert kinds["DequantizeLinear"] == max(floats, 1)
    assert kinds["QuantizeLinear"] == max(floats - 1, 0)
    assert kinds["Cast"] == 1


def test_the_folded_design_is_convolutions_of_integers(
    tmp_path: Path, photographs: list[Array]
) -> None:
    model = to_int8(
        transformer_graph(network("none", photographs, "subpixel"), for_int8=True), photographs
    )
    onnx.checker.check_model(model, full_check=True)
    kinds = optimized_kinds(model, tmp_path)
    assert kinds["QLinearConv"] == 1 + 2 * 2 + 2
    assert kinds["QLinearAdd"] == 2
    assert kinds["Transpose"] == 2  # blocks of pixels into channels, and back
    assert not kinds.keys() & {
        "QuantizeLinear",
        "DequantizeLinear",
        "Cast",
        "Conv",
        "Relu",
        "Resize",
    }


def test_a_sample_leaves_the_frame_s_path_to_integers(
    tmp_path: Path, photographs: list[Array]
) -> None:
    net = network("subsampled_rms", photographs, "subpixel")
    model = to_int8(transformer_graph(equalize(net, photographs), for_int8=True), photographs)
    onnx.checker.check_model(model, full_check=True)
    kinds = optimized_kinds(model, tmp_path)
    # Those that are normalised come twice: in a few places, and in all.
    assert kinds["QLinearConv"] == 2 * 1 + 2 * (1 + 2) + 2
    assert kinds["QLinearAdd"] == 2
    # The only floats are those of which the statistics are taken.
    assert not kinds.keys() & {"Conv", "Resize", "Relu", "QuantizeLinear"}
    assert kinds["DequantizeLinear"] == 2 * 3  # each is multiplied by itself


@pytest.mark.parametrize("value", [0, 30, 128, 255])
def test_a_constant_field_in_integers(value: int, photographs: list[Array]) -> None:
    """The same in every block, and near that in floats, though no photograph is like it."""
    net = network("subsampled_rms", photographs, "subpixel")
    reference = transformer_graph(net)
    small = to_int8(transformer_graph(equalize(net, photographs), for_int8=True), photographs)
    field = np.full((192, 192, 3), value, np.uint8)
    middle, contrast = [], 0.0
    for model in (reference, small):
        with Stylizer(model.SerializeToString(), provider="cpu") as stylizer:
            middle.append(stylizer(field)[64:-64, 64:-64].astype(int))
            contrast = max(contrast, stylizer(photographs[0]).std())
    assert np.ptp(middle[0], (0, 1)).max() <= 1
    np.testing.assert_array_equal(middle[1], np.tile(middle[1][:4, :4], (16, 16, 1)))
    assert np.abs(middle[1] - middle[0]).mean() < 0.6 * contrast


@pytest.mark.parametrize(
    ("architecture", "norm"),
    [
        ("johnson", "instance"),
        ("johnson", "batch"),
        ("subpixel", "none"),
        ("subpixel", "subsampled_rms"),
    ],
)
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_close_to_fp32(
    architecture: Architecture, norm: Norm, precision: str, photographs: list[Array]
) -> None:
    net = network(norm, photographs, architecture)
    reference = transformer_graph(net)
    half = precision == "fp16"
    source = reference if half else transformer_graph(equalize(net, photographs), for_int8=True)
    small = to_fp16(reference) if half else to_int8(source, photographs)
    assert weight_bytes(small) < (0.55 if half else 0.35) * weight_bytes(reference)
    with (
        Stylizer(reference.SerializeToString(), provider="cpu") as expected,
        Stylizer(small.SerializeToString(), provider="cpu") as got,
    ):
        for image in (photographs[0], resize_image(photographs[2], (67, 121))):
            want = expected(image).astype(int)
            difference = np.abs(got(image) - want).mean()
            assert difference < (0.5 if half else 0.12 * want.std())
            assert want.std() > 10


def test_equalizing_leaves_the_network_as_it_was(photographs: list[Array]) -> None:
    """Instance normalisation undoes any scale and shift of what it is given."""
    reference = transformer_graph(network("instance", photographs))
    equalized = onnx.ModelProto()
    equalized.CopyFrom(reference)
    quantize._equalize(equalized, photographs)
    assert len(equalized.graph.initializer) > len(reference.graph.initializer)
    with (
        Stylizer(reference.SerializeToString(), provider="cpu") as before,
        Stylizer(equalized.SerializeToString(), provider="cpu") as after,
    ):
        off = np.abs(before(photographs[0]).astype(int) - after(photographs[0]))
        assert (off <= 1).mean() > 0.999


def test_equalizing_minds_epsilon_in_channels_that_hardly_vary(photographs: list[Array]) -> None:
    net = network("instance", photographs)
    with torch.no_grad():
        net.encoder[0][0].weight[::2] *= 2e-4
        net.encoder[1][0].weight[3] = 0
    reference = transformer_graph(net)
    equalized = onnx.ModelProto()
    equalized.CopyFrom(reference)
    quantize._equalize(equalized, photographs)
    with (
        Stylizer(reference.SerializeToString(), provider="cpu") as before,
        Stylizer(equalized.SerializeToString(), provider="cpu") as after,
    ):
        want = before(photographs[0]).astype(int)
        assert np.abs(want - after(photographs[0])).mean() < 0.03 * want.std()


def test_weights_beyond_fp16_are_not_exported(photographs: list[Array]) -> None:
    net = network("instance", photographs)
    with torch.no_grad():
        net.output.weight[0, 0, 0, 0] = 1e4
    with pytest.raises(ExportError, match="fp16"):
        to_fp16(transformer_graph(net))


def test_weights_keep_to_seven_bits(photographs: list[Array]) -> None:
    """Eight would overflow on CPUs without VNNI: two products are added in 16 bits."""
    model = to_int8(transformer_graph(network("batch", photographs)), photographs)
    arrays = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    weights = [a for a in arrays.values() if a.dtype == np.int8 and a.ndim == 4]
    assert len(weights) == 9
    for weight in weights:
        assert np.abs(weight).max() == 63
        assert 2 * 255 * int(np.abs(weight).max()) < 2**15


@settings(max_examples=40)
@given(st.floats(-50, 50), st.floats(0.01, 100), st.booleans(), st.integers(0, 2**32 - 1))
def test_the_range_holds_zero_and_loses_little(
    mean: float, deviation: float, relu: bool, seed: int
) -> None:
    values = np.random.default_rng(seed).normal(mean, deviation, 4000).astype(np.float32)
    if relu:
        values = np.maximum(values, 0)
    params = best_params(values)

    def there_and_back(x: np.ndarray) -> np.ndarray:
        integers = np.clip(np.rint(x / params.scale) + params.zero, 0, 255)
        return (integers - params.zero) * params.scale

    assert there_and_back(np.zeros(1)) == 0
    low, high = min(values.min(), 0), max(values.max(), 0)
    step = (high - low) / 255
    error = np.sqrt(np.square(there_and_back(values) - values).mean())
    # Rounding alone costs half a step at most, 0.29 of one where values spread over several.
    spread = deviation > 3 * step and not relu
    assert error <= step * (0.31 if spread else 0.51) + 1e-6


def test_constant_activations() -> None:
    for value in (0.0, 3.0, -3.0):
        params = best_params(np.full(100, value, np.float32))
        integers = np.clip(np.rint(value / params.scale) + params.zero, 0, 255)
        assert (integers - params.zero) * params.scale == pytest.approx(value, abs=0.02)


def test_fp16_takes_and_gives_bytes(photographs: list[Array]) -> None:
    model = to_fp16(transformer_graph(network("instance", photographs)))
    onnx.checker.check_model(model, full_check=True)
    kinds = {w.data_type for w in model.graph.initializer if len(w.dims) == 4}
    assert kinds == {TensorProto.FLOAT16}
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.UINT8


def test_files_of_all_precisions_say_what_was_measured(
    tmp_path: Path, photographs: list[Array]
) -> None:
    seen: list[tuple[Array, Array]] = []

    def total_loss(photograph: Array, image: Array) -> float:
        seen.append((photograph, image))
        return float(image.mean())

    targets = {name: tmp_path / f"{name}.onnx" for name in ("int8", "fp32", "fp16")}
    results = export_precisions(
        network("instance", photographs),
        targets,
        {"title": "Wave"},
        calibration=lambda: photographs,
        photographs=photographs[:2],
        total_loss=total_loss,
    )
    assert [r.precision for r in results] == list(targets)
    assert len(seen) == 2 * 2 * 2
    for result in results:
        with Stylizer(result.path) as stylizer:
            about = stylizer.metadata
            assert about["title"] == "Wave"
            assert stylizer.precision == result.precision
            assert float(about["macs_per_pixel"]) > 1000
            assert ("mean_difference" in about) == (result.precision != "fp32")
            if result.precision != "fp32":
                assert float(about["mean_difference"]) == pytest.approx(
                    result.mean_difference, abs=1e-3
                )
                assert about["loss_over_fp32"] == f"{result.loss_over_fp32:.4f}"
    int8, fp32, fp16 = results
    assert fp32.mean_difference is None
    assert fp16.mean_difference is not None
    assert int8.mean_difference is not None
    assert 0 < fp16.mean_difference < int8.mean_difference


def test_what_strays_from_fp32_says_so() -> None:
    path = Path("a-int8.onnx")
    assert Exported(path, "int8", 2.0, 1.02).within
    assert Exported(path, "int8", 2.0).within
    assert Exported(path, "int8").within
    assert not Exported(path, "int8", 20.0).within
    for ratio in (1.04, 0.9, float("nan")):
        assert not Exported(path, "int8", 2.0, ratio).within
    assert "+4.0%" in Exported(path, "int8", 2.0, 1.04).words()


@pytest.mark.parametrize("precisions", [{}, {"int4": Path("a.onnx")}])
def test_unknown_precisions(precisions: dict[str, Path], photographs: list[Array]) -> None:
    with pytest.raises(UsageError, match="fp32, fp16, int8"):
        export_precisions(
            network("instance", photographs), precisions, {}, calibration=lambda: photographs
        )
