"""The exported file against PyTorch, and a check that fails when it should."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from nst.errors import ExportError, ModelError, NstError
from nst.io.images import Array
from nst.models.config import PRESETS
from nst.models.transformer import TransformerConfig, TransformerNet
from nst.train.export import export
from nst.train.export.export import ExportedNet, export_onnx
from nst.train.run.checkpoint import load_checkpoint, save_checkpoint


def network(config: TransformerConfig | None = None) -> TransformerNet:
    torch.manual_seed(0)
    net = TransformerNet(config or TransformerConfig(width=8, blocks=2))
    for parameter in net.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=0.5, std=0.3)
    torch.nn.init.normal_(net.output.weight, std=0.1)
    return net.eval()


@pytest.mark.parametrize("shape", [(1, 256, 256), (1, 480, 640), (1, 333, 517), (3, 64, 70)])
@pytest.mark.parametrize(
    "config",
    [
        PRESETS["quality"],
        TransformerConfig(width=16, architecture="subpixel", norm="none"),
        TransformerConfig(width=16, architecture="subpixel", norm="subsampled_rms"),
    ],
)
def test_parity_on_photographs(
    tmp_path: Path, config: TransformerConfig, shape: tuple[int, int, int], photograph: Array
) -> None:
    net = network(config)
    export_onnx(net, tmp_path / "a.onnx", {})
    batch, height, width = shape
    big = np.tile(photograph, (6, 6, 1))[:height, :width]
    images = np.stack([np.roll(big, 17 * i, 0) for i in range(batch)])
    # ONNX Runtime alone, as anybody would run the file without our code.
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    (got,) = session.run(["stylized"], {"image": images})
    with torch.no_grad():
        expected = ExportedNet(net)(torch.from_numpy(images)).numpy()
    assert got.shape == images.shape
    assert got.dtype == np.uint8
    assert got.std() > 10
    off = np.abs(got.astype(int) - expected)
    assert (off <= 1).mean() >= 0.999
    assert off.max() <= 3


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    net = network()
    export_onnx(net, tmp_path / "a.onnx", {"title": "Wave", "artist": "Hokusai"})
    model = onnx.load(tmp_path / "a.onnx")
    onnx.checker.check_model(model, full_check=True)
    props = {p.key: p.value for p in model.metadata_props}
    assert props["title"] == "Wave"
    assert TransformerConfig.from_dict(json.loads(props["network"])) == net.config
    assert [o.version for o in model.opset_import] == [int(props["opset"])]
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        assert [d.dim_param for d in dims[:3]] == ["batch", "height", "width"]
        assert dims[3].dim_value == 3
    assert list(tmp_path.iterdir()) == [tmp_path / "a.onnx"]


def test_export_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    net = network().to(memory_format=torch.channels_last)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    export_onnx(net, tmp_path / "a.onnx", {})
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


def test_weights_that_are_not_finite_are_not_exported(tmp_path: Path) -> None:
    net = network()
    with torch.no_grad():
        net.encoder[0][0].weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(ExportError, match="not finite"):
        export_onnx(net, tmp_path / "a.onnx", {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["weights", "size"])
def test_a_wrong_graph_fails_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def wrong(net: TransformerNet) -> onnx.ModelProto:
        model = transformer_graph(net)
        if kind == "weights":
            largest = max(model.graph.initializer, key=lambda w: len(w.raw_data))
            values = onnx.numpy_helper.to_array(largest)[::-1].copy()  # filters in wrong order
            largest.CopyFrom(onnx.numpy_helper.from_array(values, largest.name))
        else:
            for node in model.graph.node:
                if node.op_type == "Shape":
                    node.attribute[0].i = 2
                    node.attribute[1].i = 4
        return model

    transformer_graph = export.transformer_graph
    monkeypatch.setattr(export, "transformer_graph", wrong)
    with pytest.raises(NstError):
        export_onnx(network(), tmp_path / "a.onnx", {})
    assert list(tmp_path.iterdir()) == []


def test_unknown_modules_have_no_onnx_form(tmp_path: Path) -> None:
    net = network()
    net.residuals.append(torch.nn.GELU())
    with pytest.raises(ExportError, match="GELU"):
        export_onnx(net, tmp_path / "a.onnx", {})


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    net = network().to(memory_format=torch.channels_last)
    styles = [np.full((40, 50 + i, 3), i, np.uint8) for i in range(12)]
    save_checkpoint(tmp_path / "a.safetensors", net, {"title": "Wave"}, styles)
    again = load_checkpoint(tmp_path / "a.safetensors")
    assert again.metadata == {"title": "Wave"}
    assert again.network.config == net.config
    for name, value in net.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], value)
    for expected, got in zip(styles, again.styles, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_bad_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        load_checkpoint(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(ModelError, match="no checkpoint that"):
        load_checkpoint(tmp_path / "text.safetensors")
    net = network()
    with torch.no_grad():
        net.encoder[0][0].weight[0, 0, 0, 0] = torch.inf
    save_checkpoint(tmp_path / "inf.safetensors", net, {})
    with pytest.raises(ModelError, match="not finite"):
        load_checkpoint(tmp_path / "inf.safetensors")
