"""What can go wrong in a training, and what becomes of it: kills, NaN, memory, processes."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nst.config import ObjectiveConfig
from nst.errors import NstError
from nst.images import Array
from nst.infer.session import Stylizer
from nst.models import config as presets
from nst.models.config import TransformerConfig
from nst.train import loop as loop_module
from nst.train.checkpoint import load_checkpoint
from nst.train.config import TrainConfig
from nst.train.loop import Loop
from nst.train.trainer import TrainProgress, TrainResult, resume_style, train_style

SMALL = TransformerConfig(width=4, blocks=1)


@pytest.fixture(autouse=True)
def _small_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(presets.PRESETS, "small", SMALL)


def options(style: Path, out: Path, /, **more: object) -> TrainConfig:
    chosen: dict[str, object] = {
        "style": (style,),
        "out": out,
        "preset": "small",
        "size": 64,
        "batch_size": 2,
        "steps": 30,
        "device": "cpu",
        "objective": ObjectiveConfig(style_size=64),
        "learning_rate": 2e-3,
        "samples": 3,
        "save_every": 0.0,
        "score": False,
    }
    return TrainConfig(**{**chosen, **more})  # type: ignore[arg-type]


def weights(result: TrainResult) -> dict[str, Tensor]:
    return load_checkpoint(result.checkpoint).network.state_dict()


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# A process of its own, so that SIGKILL ends nothing but the training.
SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from nst.config import ObjectiveConfig
from nst.models import config as presets
from nst.models.config import TransformerConfig
from nst.train.config import TrainConfig
from nst.train.trainer import resume_style, train_style

presets.PRESETS["small"] = TransformerConfig(width=4, blocks=1)
action, style, folder = sys.argv[1:]

def report(progress):
    print(progress.step, flush=True)

if action == "train":
    train_style(TrainConfig(
        style=(Path(style),), out=Path(folder), preset="small", size=64, batch_size=2, steps=70,
        device="cpu", objective=ObjectiveConfig(style_size=64), learning_rate=2e-3, samples=7,
        save_every=0.0, score=False,
    ), report)
else:
    resume_style(Path(folder), report)
"""


def start(tmp_path: Path, *arguments: object) -> subprocess.Popen[str]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_until(process: subprocess.Popen[str], step: int | None) -> None:
    """Kill a training when it has made `step` steps; let it end for None."""
    assert process.stdout is not None
    for line in process.stdout:
        if step is not None and int(line) >= step:
            process.kill()
            process.wait()
            return
    assert process.wait() == 0, process.stderr.read() if process.stderr else ""


def test_a_killed_run_ends_as_if_it_had_never_stopped(tmp_path: Path, style_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_until(start(tmp_path, "train", style_path, whole), None)
    run_until(start(tmp_path, "train", style_path, killed), 27)  # a checkpoint is at 20
    with (killed / "log.csv").open("a") as file:
        file.write("28,1.0,5")  # as a row that the kill cut off
    run_until(start(tmp_path, "resume", style_path, killed), 55)
    style_path_moved = tmp_path / "gone.png"  # the style image itself is not needed any more
    run_until(start(tmp_path, "resume", style_path_moved, killed), None)

    one, other = (load_checkpoint(f / f"{style_path.stem}.safetensors") for f in (whole, killed))
    for name, value in one.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name]), name
    assert one.metadata["losses"] == other.metadata["losses"]
    last = "checkpoints/step-0000070.safetensors"
    ends = [load_checkpoint(folder / last).snapshot for folder in (whole, killed)]
    assert ends[0] is not None
    assert ends[1] is not None
    assert ends[0].images == ends[1].images
    for name, value in ends[0].state.items():
        assert torch.equal(value, ends[1].state[name]), name
    series = [
        [(r["step"], r["total_loss"], r["held_out_loss"]) for r in rows(f)] for f in (whole, killed)
    ]
    assert [row[0] for row in series[0]] == [str(step) for step in range(1, 71)]
    assert series[0] == series[1]
    assert {p.name for p in (whole / "samples").iterdir()} == {
        p.name for p in (killed / "samples").iterdir()
    }


def test_killed_before_the_first_checkpoint(tmp_path: Path, style_path: Path) -> None:
    run_until(start(tmp_path, "train", style_path, tmp_path / "run"), 2)
    run_until(start(tmp_path, "resume", style_path, tmp_path / "run"), None)
    assert (tmp_path / "run" / f"{style_path.stem}.onnx").exists()


def test_ctrl_c_and_then_on(tmp_path: Path, style_path: Path) -> None:
    def stop(progress: TrainProgress) -> None:
        if progress.step == 25:
            raise KeyboardInterrupt

    config = options(style_path, tmp_path / "run", steps=45)
    assert train_style(config, stop).interrupted
    result = resume_style(tmp_path / "run")
    assert not result.interrupted
    assert result.steps == 45
    whole = train_style(options(style_path, tmp_path / "whole", steps=45))
    assert all(torch.equal(a, weights(whole)[name]) for name, a in weights(result).items())
    with pytest.raises(NstError, match="came to its end"):
        resume_style(tmp_path / "run")


def test_what_cannot_be_resumed(tmp_path: Path, style_path: Path) -> None:
    with pytest.raises(NstError, match=r"holds no run\.toml"):
        resume_style(tmp_path)
    train_style(options(style_path, tmp_path / "run", steps=2))
    (tmp_path / "run" / "result.json").unlink()
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.write_bytes(b"damaged")
    told: list[str] = []
    with pytest.raises(NstError, match="no checkpoint to go on from"):
        resume_style(tmp_path / "run", notice=told.append)
    assert len(told) == 2


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, style_path: Path) -> None:
    result = train_style(options(style_path, tmp_path / "run", steps=50))
    expected = weights(result)
    (tmp_path / "run" / "result.json").unlink()
    newest = max((tmp_path / "run" / "checkpoints").glob("step-*"))
    newest.write_bytes(newest.read_bytes()[:1000])
    told: list[str] = []
    resumed = resume_style(tmp_path / "run", notice=told.append)
    assert len(told) == 1
    assert newest.name in told[0]
    assert all(torch.equal(a, expected[name]) for name, a in weights(resumed).items())


def test_a_run_at_work_is_left_alone(tmp_path: Path, style_path: Path) -> None:
    seen: list[str] = []

    def intrude(progress: TrainProgress) -> None:
        if progress.step == 3:
            with pytest.raises(NstError, match="at work in another process"):
                resume_style(tmp_path / "run")
            seen.append("refused")

    train_style(options(style_path, tmp_path / "run", steps=4), intrude)
    assert seen == ["refused"]


def test_changed_content_is_told(tmp_path: Path, style_path: Path, photograph: Array) -> None:
    from nst.images import save_image

    save_image(tmp_path / "photos" / "a.png", photograph)
    train_style(options(style_path, tmp_path / "run", steps=2, content=tmp_path / "photos"))
    (tmp_path / "run" / "result.json").unlink()
    save_image(tmp_path / "photos" / "b.png", photograph)
    told: list[str] = []
    resume_style(tmp_path / "run", notice=told.append)
    assert any("content has changed" in line for line in told)


def poison(monkeypatch: pytest.MonkeyPatch, bad: Callable[[int], bool]) -> None:
    """Make the gradients of some steps (counted from 1, by calls) not finite."""
    accumulate, calls = Loop._accumulate, []

    def poisoned(self: Loop, batch: Array, count: int) -> Tensor:
        calls.append(1)
        sums = accumulate(self, batch, count)
        if bad(len(calls)):
            self.parameters[0].grad = torch.full_like(self.parameters[0], torch.nan)
        return sums

    monkeypatch.setattr(Loop, "_accumulate", poisoned)


def test_one_step_that_is_not_finite_is_skipped(
    tmp_path: Path, style_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, lambda call: call == 3)
    seen: list[TrainProgress] = []
    result = train_style(options(style_path, tmp_path / "run", steps=6), seen.append)
    assert [p.step for p in seen] == [1, 2, 4, 5, 6]
    assert all(torch.isfinite(value).all() for value in weights(result).values())
    log = rows(tmp_path / "run")
    assert [row["note"] for row in log] == ["", "", "not finite: skipped", "", "", ""]
    assert log[2]["total_loss"] == "nan"


def test_several_in_a_row_go_back_to_the_last_good_state(
    tmp_path: Path, style_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, lambda call: 24 <= call <= 26)
    told: list[str] = []
    seen: list[TrainProgress] = []
    config = options(style_path, tmp_path / "run", steps=40)
    result = train_style(config, seen.append, notice=told.append)
    assert len(told) == 1
    assert "step 20" in told[0]
    assert rows(tmp_path / "run")[25]["note"] == "restored step 20"
    steps = {p.step: p for p in seen}
    usual = config.learning_rate * loop_module.schedule(26 / 40)
    assert steps[27].learning_rate == pytest.approx(usual / 2)
    with Stylizer(result.model) as stylizer:
        assert np.isfinite(stylizer(np.zeros((40, 40, 3), np.uint8))).all()


def test_steps_that_are_never_finite_again_end_the_run_and_lose_nothing(
    tmp_path: Path, style_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, lambda call: call > 24)
    told: list[str] = []
    with pytest.raises(NstError, match="ceased to be finite"):
        train_style(options(style_path, tmp_path / "run", steps=100), notice=told.append)
    assert not list((tmp_path / "run").glob("*.onnx"))
    assert "--resume" in told[-1]
    state = load_checkpoint(tmp_path / "run" / "checkpoints" / "step-0000020.safetensors")
    assert state.snapshot is not None
    assert state.snapshot.step == 20


def test_a_network_gone_bad_after_its_best_is_not_the_one_exported(
    tmp_path: Path, style_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_step = Loop._make_step

    def spoiling(self: Loop, batch: Array, done: float, waited: float) -> Any:
        step = make_step(self, batch, done, waited)
        if self.step == 28:
            with torch.no_grad():
                self.parameters[0].mul_(torch.nan if self.config.seed else 30)
        return step

    monkeypatch.setattr(Loop, "_make_step", spoiling)
    for seed in (0, 1):
        told: list[str] = []
        config = options(style_path, tmp_path / str(seed), steps=30, seed=seed, samples=10)
        result = train_style(config, notice=told.append)
        assert any("better than the last" in line for line in told)
        assert result.after.total_loss < result.before.total_loss


class Memory:
    """A network's forward pass that fails as a GPU does when more than `most` images come."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int, error: Exception) -> None:
        from nst.models.transformer import TransformerNet

        self.seen: list[int] = []
        forward = TransformerNet.forward

        def limited(network: TransformerNet, image: Tensor) -> Tensor:
            self.seen.append(len(image))
            if network.training and len(image) > most:
                raise error
            return forward(network, image)

        monkeypatch.setattr(TransformerNet, "forward", limited)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_halves_what_is_done_at_once(
    tmp_path: Path, style_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    plain = train_style(options(style_path, tmp_path / "plain", batch_size=6, steps=4))
    memory = Memory(monkeypatch, 2, error)
    told: list[str] = []
    seen: list[TrainProgress] = []
    config = options(style_path, tmp_path / "run", batch_size=6, steps=4)
    result = train_style(config, seen.append, notice=told.append)
    assert memory.seen[:6] == [6, 3, 2, 2, 2, 2]
    assert len(told) == 2
    assert "2 images at once" in told[1]
    assert [p.images for p in seen] == [6, 12, 18, 24]  # the batch is as large as before
    assert "out of memory" in rows(tmp_path / "run")[0]["note"]
    for name, value in weights(result).items():
        torch.testing.assert_close(value, weights(plain)[name], rtol=1e-3, atol=1e-4)


def test_one_image_that_does_not_fit_is_told(
    tmp_path: Path, style_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Memory(monkeypatch, 0, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(NstError, match="lower --size"):
        train_style(options(style_path, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def torchrun(count: int, script: Path, *arguments: object) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={count}", str(script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


DISTRIBUTED = """
import json, os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from nst.config import ObjectiveConfig
from nst.models import config as presets
from nst.models.config import TransformerConfig
from nst.train.config import TrainConfig
from nst.train.trainer import train_style

presets.PRESETS["small"] = TransformerConfig(width=4, blocks=1)
style, out = sys.argv[1:]
result = train_style(TrainConfig(
    style=(Path(style),), out=Path(out), preset="small", size=64, batch_size=6, steps=8,
    device="cpu", objective=ObjectiveConfig(style_size=64), learning_rate=1e-3, samples=2,
    save_every=0.0, score=False,
))
told = {"steps": result.steps, "loss": result.after.total_loss}
Path(out, f"rank-{os.environ.get('RANK', 'alone')}.json").write_text(json.dumps(told))
"""


def test_two_processes_train_what_one_trains(tmp_path: Path, style_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(DISTRIBUTED)
    for count in (1, 2):
        torchrun(count, script, style_path, tmp_path / str(count))
    one, two = (
        load_checkpoint(tmp_path / str(count) / f"{style_path.stem}.safetensors").network
        for count in (1, 2)
    )
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, two.state_dict()[name], rtol=1e-3, atol=1e-4)
    assert len(rows(tmp_path / "2")) == 8
    assert [row["images"] for row in rows(tmp_path / "2")] == [str(6 * k) for k in range(1, 9)]
    # All processes tell the same, and one alone writes.
    told = [(tmp_path / "2" / f"rank-{rank}.json").read_text() for rank in (0, 1)]
    assert told[0] == told[1]
