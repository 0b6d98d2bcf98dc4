"""Measure how fast PyTorch runs the preset `quality` on a GPU, from host to host.

    python docs/bench/torch_speed.py

uint8 images go to the device, through the untrained network, and come back, as with a `Stylizer`.

Prints the median of 30 calls after 10 in milliseconds: eager and compiled, float32 and float16
(autocast), at three sizes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from nst.models.transformer import TransformerNet
from nst.train.export.export import ExportedNet

SIZES = ((480, 640), (720, 1280), (1080, 1920))
CALLS, WARM_UP = 30, 10


def measure(model: Callable[[Tensor], Tensor], size: tuple[int, int]) -> float:
    """Return the median time of a call in milliseconds."""
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8))
    times = []
    for _ in range(WARM_UP + CALLS):
        start = time.perf_counter()
        model(image.cuda()).cpu()
        times.append(time.perf_counter() - start)
    return float(np.median(times[WARM_UP:])) * 1e3


torch.backends.cudnn.benchmark = True
torch.backends.cudnn.allow_tf32 = True  # as ONNX Runtime does
print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, milliseconds")
for kind in (torch.float32, torch.float16):
    for compiled in (False, True):
        for size in SIZES:
            torch._dynamo.reset()
            network = TransformerNet().eval().cuda().to(memory_format=torch.channels_last)
            exported = ExportedNet(network)
            run = torch.compile(exported, mode="reduce-overhead") if compiled else exported

            def call(
                image: Tensor,
                run: Callable[[Tensor], Tensor] = run,
                half: bool = kind == torch.float16,
            ) -> Tensor:
                with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=half):
                    return run(image)

            name = f"{'compiled' if compiled else 'eager':9}{str(kind).removeprefix('torch.'):8}"
            print(f"{name} {size[1]}×{size[0]}  {measure(call, size):8.2f}", flush=True)
