"""VGG-19 against functional calls, known facts of its weights, and every source of them."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from nst.config import VGG_LAYERS
from nst.errors import ModelError, NstError, UsageError
from nst.io.images import Array
from nst.perceptual.tensors import to_tensor
from nst.perceptual.vgg import VGG19Features, _read_codebook


@pytest.fixture(scope="module")
def codebook() -> dict[str, Tensor]:
    return _read_codebook(16)


@pytest.fixture(scope="module")
def vgg() -> VGG19Features:
    return VGG19Features(VGG_LAYERS)


def functional(image: Tensor, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Compute VGG-19 step by step as in the paper, on Caffe's BGR input."""
    x = image.flip(1) - torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    found = {}
    for block, depth in ((1, 2), (2, 2), (3, 4), (4, 4), (5, 4)):
        if block > 1:
            x = F.max_pool2d(x, 2)
        for i in range(1, depth + 1):
            name = f"{block}_{i}"
            x = F.relu(
                F.conv2d(x, weights[f"conv{name}.weight"], weights[f"conv{name}.bias"], 1, 1)
            )
            found[f"relu{name}"] = x
    return found


def test_all_activations_match_a_functional(
    vgg: VGG19Features, codebook: dict[str, Tensor], photograph: Array
) -> None:
    image = to_tensor(photograph)
    features, expected = vgg(image), functional(image, codebook)
    assert set(features) == set(VGG_LAYERS)
    for name, value in expected.items():
        torch.testing.assert_close(features[name], value, rtol=1e-4, atol=1e-2)


def test_gradients_match_a_functional(
    vgg: VGG19Features, codebook: dict[str, Tensor], photograph: Array
) -> None:
    image = to_tensor(photograph)[..., :48, :64].requires_grad_()
    names = ("relu1_2", "relu3_1", "relu4_4")

    def gradient(features: dict[str, Tensor]) -> Tensor:
        total = sum(features[name].square().mean() for name in names)
        return torch.autograd.grad(total, image)[0]

    expected = gradient(functional(image, codebook))
    torch.testing.assert_close(gradient(vgg(image, names)), expected, rtol=1e-3, atol=1e-2)
    with torch.autocast("cpu", torch.bfloat16):
        features = vgg(image, names)
        low = gradient({name: value.float() for name, value in features.items()})
    assert {value.dtype for value in features.values()} == {torch.bfloat16}
    assert F.cosine_similarity(low.flatten(), expected.flatten(), dim=0) > 0.99


def test_shapes_are_vgg19s(vgg: VGG19Features) -> None:
    channels = {1: 64, 2: 128, 3: 256, 4: 512, 5: 512}
    for name, value in vgg(torch.zeros(2, 3, 64, 96)).items():
        block = int(name[4])
        assert value.shape == (2, channels[block], 64 >> (block - 1), 96 >> (block - 1))


def test_no_layers_below_the_deepest_one_needed() -> None:
    shallow = VGG19Features(["relu1_2", "relu2_1"])
    assert sum(p.numel() for p in shallow.parameters()) == sum(
        i * o * 9 + o for i, o in ((3, 64), (64, 64), (64, 128))
    )
    assert not any(p.requires_grad for p in shallow.parameters())
    with pytest.raises(UsageError):
        shallow(torch.zeros(1, 3, 32, 32), ["relu3_1"])


def test_conv1_1_has_color_opponent_filters(codebook: dict[str, Tensor]) -> None:
    """Some first filters respond to a colour difference and not to grey, others the reverse."""
    gain = codebook["conv1_1.weight"].sum((2, 3))  # response to constant B, G, R
    grey = gain.sum(1).abs()
    color = (gain - gain.mean(1, keepdim=True)).norm(dim=1)
    assert (color > 5 * grey).sum() >= 5
    orientated = codebook["conv1_1.weight"].abs().sum((1, 2, 3)) > 5 * gain.norm(dim=1)
    assert orientated.sum() >= 5


def test_a_photographs_relu5_1_is_sparse(vgg: VGG19Features, photograph: Array) -> None:
    deep = vgg(to_tensor(photograph), ["relu5_1"])["relu5_1"]
    assert 0.02 < (deep > 0).float().mean() < 0.35
    noise = vgg(torch.rand(1, 3, 96, 128) * 255, ["relu5_1"])["relu5_1"]
    assert deep.max() > noise.max()


def test_a_codebook_holds_at_most_256_values(codebook: dict[str, Tensor]) -> None:
    for name, weight in codebook.items():
        if name.endswith("weight"):
            assert weight.unique().numel() <= 256
            assert weight.shape[2:] == (3, 3)
            assert torch.isfinite(weight).all()


def torchvision_naming(codebook: dict[str, Tensor]) -> dict[str, Tensor]:
    places = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)  # its convolutions
    names = [name.removesuffix(".weight") for name in codebook if name.endswith("weight")]
    return {
        f"features.{place}.{part}": codebook[f"{name}.{part}"].contiguous()
        for place, name in zip(places, names, strict=True)
        for part in ("weight", "bias")
    }


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_in_torchvisions_naming(
    tmp_path: Path, codebook: dict[str, Tensor], photograph: Array, suffix: str
) -> None:
    state = torchvision_naming(codebook)
    path = tmp_path / f"vgg{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    image = to_tensor(photograph)
    layers = ["relu1_1", "relu3_1"]
    expected = VGG19Features(layers)(image)
    got = VGG19Features(layers, f"{path}:caffe")(image)
    for name in layers:
        torch.testing.assert_close(got[name], expected[name])


def test_torchvisions_weights_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(NstError, match="the weights caffe"):
        VGG19Features(["relu1_1"], "torchvision")


def test_torchvisions_weights_as_downloaded(
    monkeypatch: pytest.MonkeyPatch, codebook: dict[str, Tensor], photograph: Array
) -> None:
    """Test what happens after the download."""
    state = torchvision_naming(codebook)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: state)
    image = to_tensor(photograph)
    scale = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    first = F.conv2d(
        (image / 255 - mean) / scale,
        codebook["conv1_1.weight"],
        codebook["conv1_1.bias"],
        padding=1,
    )
    got = VGG19Features(["relu1_1"], "torchvision")(image)["relu1_1"]
    torch.testing.assert_close(got, F.relu(first), rtol=1e-4, atol=1e-4)


def test_bad_sources(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="relu9_9"):
        VGG19Features(["relu9_9"])
    with pytest.raises(UsageError, match="FILE:caffe"):
        VGG19Features(["relu1_1"], "somewhere.pth")
    with pytest.raises(ModelError, match="does not exist"):
        VGG19Features(["relu1_1"], f"{tmp_path}/none.pth:caffe")
    for name, data in (("a.pth", b"text"), ("a.safetensors", b"text")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ModelError, match=name):
            VGG19Features(["relu1_1"], f"{tmp_path / name}:caffe")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "b.pth")
    with pytest.raises(ModelError, match="no VGG-19"):
        VGG19Features(["relu1_1"], f"{tmp_path / 'b.pth'}:caffe")
