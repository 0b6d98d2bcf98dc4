"""Compare an exported fp32 file with PyTorch on photographs.

    python docs/bench/parity.py RUN PHOTOGRAPHS

RUN is the folder of a training run, PHOTOGRAPHS a folder.

Prints a line for each shape (batch × height × width): the share of values within one level of
PyTorch's, the share of values that differ, and the largest difference.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

import nst
from nst.io.images import READ_SUFFIXES, resize_image
from nst.train.export.export import ExportedNet
from nst.train.run.checkpoint import load_checkpoint

run, folder = Path(sys.argv[1]), Path(sys.argv[2])
trained = next(run.glob("*.safetensors"))
checkpoint = load_checkpoint(trained)
exported = ExportedNet(checkpoint.network).eval()
files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in READ_SUFFIXES)
with nst.Stylizer(trained.with_suffix(".onnx"), provider="cpu") as stylizer:
    for batch, height, width in ((1, 256, 256), (1, 480, 640), (1, 333, 517), (3, 256, 256)):
        images = [resize_image(nst.load_image(f), (height, width)) for f in files[: 6 * batch]]
        off = []
        for start in range(0, len(images), batch):
            x = np.stack(images[start : start + batch])
            with torch.inference_mode():
                expected = exported(torch.from_numpy(x)).numpy()
            off.append(np.abs(stylizer(x).astype(int) - expected))
        difference = np.concatenate(off)
        print(
            f"{batch}×{height}×{width}: {len(images)} photographs, "
            f"{(difference <= 1).mean():.5%} of the values within 1, "
            f"{(difference > 0).mean():.4%} differ, worst {difference.max()}"
        )
