"""Measure how fast models run on a GPU in ONNX Runtime, if the frames are there already.

    python docs/bench/on_device.py MODEL … [--size 1920x1080] [--calls 200]
        [--device cuda] [--graph] [--fuse]

Give fp16 files. `--graph` records a call once and replays it (a CUDA graph), as `Stylizer` does.
`--fuse` fuses biases with their convolutions, for which cuDNN compiles kernels for seconds.
`nst bench --provider cuda` measures the time from host to host.

Prints a Markdown table: the median and the 95th percentile of the calls after 30, in milliseconds.
Each call is waited for.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from nst.infer.runtime.providers import KINDS

CPU = "CPUExecutionProvider"

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--size", default="1920x1080")
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--graph", action="store_true")
    parser.add_argument("--fuse", action="store_true")
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    frame = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    providers: list[Any] = [CPU]
    disabled: tuple[str, ...] = ()
    if args.device == "cuda":
        onnxruntime.preload_dlls()
        kind = KINDS["cuda"]
        switches = {"enable_cuda_graph": args.graph, "fuse_conv_bias": args.fuse}
        cuda = kind.options | {name: str(int(on)) for name, on in switches.items()}
        providers = [(kind.full_name, cuda), CPU]
        disabled = () if args.fuse else kind.disabled_optimizers
    print("| model | size | ms, median | 95th percentile | n |\n|---|---|---:|---:|---:|")
    for model in args.models:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            model, options, providers, disabled_optimizers=disabled
        )
        make = onnxruntime.OrtValue.ortvalue_from_numpy
        binding = session.io_binding()
        binding.bind_ortvalue_input("image", make(frame, args.device, 0))
        binding.bind_ortvalue_output("stylized", make(np.empty_like(frame), args.device, 0))
        for output in session.get_outputs()[1:]:  # the statistics of a subpixel network
            found = np.empty((1, output.shape[1]), np.float32)
            binding.bind_ortvalue_output(output.name, make(found, args.device, 0))
        times = []
        for _ in range(30 + args.calls):
            begun = time.perf_counter()
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            times.append(1000 * (time.perf_counter() - begun))
        times = sorted(times[30:])
        print(
            f"| {model.stem} | {width}×{height} | {statistics.median(times):.2f} | "
            f"{times[int(0.95 * len(times))]:.2f} | {args.calls} |",
            flush=True,
        )
