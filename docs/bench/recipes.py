"""Compare our recipe of training with that of most other trainers: loss against time.

    python docs/bench/recipes.py STYLE.jpg CONTENT PHOTOGRAPHS [--seconds 290] [--marks 60 120]
        [--ours quality:content:60 quality:builtin:60 balanced:builtin:60] [--out DIR]

The peers' recipe is that of PyTorch's example fast_neural_style: the network of Johnson et al.,
Adam with a constant rate of 1e-3, batches of 4 crops of 256², here in bfloat16, launched kernel by
kernel. First 300 of its steps are timed with batches that lie on the GPU already. Then as many
steps as fit into `--seconds` are replayed as a CUDA graph, which computes the same in less time.

All train under one objective: Gram matrices, weight 5, style image at 384 pixels. Prints a Markdown
table of mean losses, in thousands, of the middle squares of the first 16 photographs. `--out` keeps
the networks as checkpoints in half precision.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from nst.config import ObjectiveConfig
from nst.infer.diagnostics.machine import read_machine
from nst.io.images import Array
from nst.io.sample_images import load_photographs
from nst.models.config import PRESETS
from nst.models.transformer import TransformerNet
from nst.perceptual.losses import PerceptualLoss, build_objective
from nst.perceptual.style_image import prepare_style
from nst.system.devices import pick_device
from nst.train.config import TrainConfig
from nst.train.content.dataset import THREADS, batches, open_content
from nst.train.engine.base_network import base_network
from nst.train.engine.loop import Loop
from nst.train.evaluation.score import image_losses, mean_losses, squares
from nst.train.export.export import torch_stylizer
from nst.train.run.checkpoint import save_checkpoint

BATCH, SIDE, RATE = 4, 256, 1e-3
TIMED, WARM_UP = 300, 5  # steps of the peers' recipe
OBJECTIVE = ObjectiveConfig(style_loss="gram", style_weight=5.0, style_size=384)


class Peers:
    """The peers' training: its network sees and gives levels of 0 to 255 without scaling."""

    def __init__(self, objective: PerceptualLoss, device: torch.device, stream: Iterator[Array]):
        torch.manual_seed(0)
        self.objective, self.device, self.stream = objective, device, stream
        self.network = TransformerNet(PRESETS["quality"]).to(device)
        self.network = self.network.to(memory_format=torch.channels_last).train()
        cuda = device.type == "cuda"
        self.adam = torch.optim.Adam(self.network.parameters(), RATE, capturable=cuda)
        self.batch = self._next()
        self.graph: torch.cuda.CUDAGraph | None = None

    def _next(self) -> Tensor:
        batch = torch.from_numpy(next(self.stream)).to(self.device)
        return batch.permute(0, 3, 1, 2).float()  # channels_last

    def step(self) -> None:
        kind = self.device.type
        with torch.autocast(kind, torch.bfloat16, cache_enabled=False):
            painted = (self.network(self.batch) - 127.5) / 127.5
            losses = self.objective(painted, self.objective.content_features(self.batch))
        self.adam.zero_grad(set_to_none=True)
        losses.total_loss.mean().backward()
        self.adam.step()

    def milliseconds(self) -> float:
        """Time the steps, launched kernel by kernel, on a stream beside, as a recording wants."""
        ready = [self._next() for _ in range(32)]
        wait(self.device)
        cuda = self.device.type == "cuda"
        with torch.cuda.stream(torch.cuda.Stream()) if cuda else nullcontext():
            for number in range(WARM_UP + TIMED):
                if number == WARM_UP:
                    wait(self.device)
                    start = time.perf_counter()
                self.batch.copy_(ready[number % len(ready)])
                self.step()
            wait(self.device)
        return 1000 * (time.perf_counter() - start) / TIMED

    def train(self, steps: int) -> None:
        """Train for some steps more, by a recording of one on a GPU."""
        if self.device.type == "cuda" and self.graph is None:
            self.adam.zero_grad(set_to_none=True)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.step()
        for number in range(steps):
            self.batch.copy_(self._next())
            if self.graph is None:
                self.step()
            else:
                self.graph.replay()
            if number % 64 == 0:
                wait(self.device)

    def scaled(self) -> TransformerNet:
        """Return the network in our scale of outputs."""
        network = copy.deepcopy(self.network)
        assert isinstance(network.output.bias, Tensor)
        with torch.no_grad():
            network.output.weight.div_(127.5)
            network.output.bias.sub_(127.5).div_(127.5)
        return network


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def judge(network: TransformerNet, objective: PerceptualLoss, photographs: list[Array]) -> str:
    """Return three cells: content, style and total loss in thousands."""
    repaint = torch_stylizer(copy.deepcopy(network).cpu())
    found = mean_losses([image_losses(objective, p, repaint(p)) for p in photographs])
    values = found.content_loss, found.style_loss, found.total_loss
    return " | ".join(f"{value / 1000:.1f}" for value in values)


def keep(network: TransformerNet, folder: Path | None, name: str, style: Array) -> None:
    """Save the network as a checkpoint; without a folder do nothing."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        small = copy.deepcopy(network).cpu().half()
        save_checkpoint(folder / f"{name}.safetensors", small, {"title": name}, (style,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("style", type=Path)
    parser.add_argument("content", type=Path)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--seconds", type=float, default=290)
    parser.add_argument("--marks", type=float, nargs="*", default=[60, 120])
    parser.add_argument(
        "--ours",
        nargs="*",
        default=["quality:content:60", "quality:builtin:60", "balanced:builtin:60"],
        help="PRESET:content|builtin:SECONDS",
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    device = pick_device(args.device)
    photographs = squares(load_photographs([args.photographs])[0])[:16]
    style = prepare_style(args.style, OBJECTIVE.style_size).image
    objective = build_objective([style], (), OBJECTIVE, device)
    objective = objective.to(memory_format=torch.channels_last)
    print(read_machine().line)
    print("| recipe | content | seconds | steps | content loss | style loss | total |")
    print("|---|---|---:|---:|---:|---:|---:|", flush=True)

    if args.seconds:
        content = open_content(args.content, 0, SIDE)
        with closing(batches(content, lambda _: (BATCH, SIDE), THREADS)) as stream:
            peers = Peers(objective, device, stream)
            milliseconds = peers.milliseconds()
            done = WARM_UP + TIMED
            for seconds in sorted({*args.marks, args.seconds}):
                steps = round(1000 * seconds / milliseconds)
                peers.train(max(0, steps - done))
                done = max(steps, done)
                cells = judge(peers.scaled(), objective, photographs)
                what = f"peers' (a step takes {milliseconds:.1f} ms)"
                print(f"| {what} | folder | {seconds:g} | {done} | {cells} |", flush=True)
        keep(peers.scaled(), args.out, f"{args.style.stem}-peers", style)

    for asked in args.ours:
        preset, where, seconds = asked.split(":")
        folder = args.content if where == "content" else None
        config = TrainConfig(
            style=(args.style,),
            seconds=float(seconds),
            preset=preset,
            objective=OBJECTIVE,
            content=folder,
        )
        torch.manual_seed(config.seed)
        network = base_network(preset) or TransformerNet(PRESETS[preset])
        network = network.to(device).to(memory_format=torch.channels_last).train()
        opened = open_content(folder, 0, config.size + 2 * network.context)
        loop = Loop(network, objective, config, opened)
        loop.run()
        cells = judge(network, objective, photographs)
        source = "folder" if folder else "built-in"
        row = f"{preset} | {source} | {loop.budget.elapsed:.1f} | {loop.step}"
        print(f"| {row} | {cells} |", flush=True)
        keep(network, args.out, f"{args.style.stem}-{preset}-{where}", style)


if __name__ == "__main__":
    main()
