"""What can go wrong in a training, and what becomes of it: kills, NaN, memory, processes."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_runs import SMALL, make_small, small_run, steps_of
from torch import Tensor

from nst.config import ObjectiveConfig, StyleStatistic
from nst.errors import NstError
from nst.infer.runtime.stylizer import Stylizer
from nst.io.images import Array, load_style
from nst.models.config import Architecture, Norm, TransformerConfig
from nst.models.transformer import TransformerNet
from nst.perceptual.losses import build_objective
from nst.train.config import TrainConfig
from nst.train.config_file import save_config
from nst.train.content.dataset import open_content
from nst.train.engine import loop as loop_module
from nst.train.engine import step as update_module
from nst.train.engine import trainer as trainer_module
from nst.train.engine.loop import Loop
from nst.train.engine.step import TERMS, TOTAL, TrainStep
from nst.train.engine.trainer import TrainProgress, TrainResult, resume_style, train_style
from nst.train.run.checkpoint import load_checkpoint

options = partial(small_run, steps=30, save_every=0.0)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


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
from nst.models import config as presets
from nst.models.config import TransformerConfig
from nst.train.config_file import load_config, make_config
from nst.train.evaluation import score as scoring
from nst.train.engine.trainer import train_style

scoring.EVALUATION_SIDE = 64
presets.PRESETS["small"] = TransformerConfig(width=4, blocks=1)
def report(progress):
    print(progress.step, flush=True)
    if progress.step == int(sys.argv[2]):
        sys.stdin.read()  # until it is killed
train_style(make_config(load_config(Path(sys.argv[1]))), report)
"""


def train_and_kill(folder: Path, config: TrainConfig, step: int) -> None:
    """Train in a process that is killed after `step` steps."""
    script, file = folder / "script.py", folder / "options.toml"
    script.write_text(SCRIPT)
    save_config(file, config)
    command = [sys.executable, str(script), str(file), str(step)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == step:
                process.kill()
                break
    assert process.returncode not in (0, 1)


def assert_the_same_to_the_end(one: Path, other: Path, last: int) -> None:
    """Two runs have the same weights, optimiser, images, log and samples."""
    states = [
        load_checkpoint(f / "checkpoints" / f"step-{last:07d}.safetensors") for f in (one, other)
    ]
    snapshots = [state.snapshot for state in states]
    assert snapshots[0] is not None
    assert snapshots[1] is not None
    assert snapshots[0].images == snapshots[1].images
    for kind in ("network", "state"):
        tensors = [getattr(snapshot, kind) for snapshot in snapshots]
        assert tensors[0].keys() == tensors[1].keys()
        for name, value in tensors[0].items():
            assert torch.equal(value, tensors[1][name]), name
    logs = [
        [(r["step"], r["total_loss"], r["validation_loss"]) for r in rows(f)] for f in (one, other)
    ]
    assert [row[0] for row in logs[0]] == [str(step) for step in range(1, last + 1)]
    assert logs[0] == logs[1]
    names = [{p.name for p in (f / "samples").iterdir()} for f in (one, other)]
    assert names[0] == names[1]


def test_a_killed_run_ends_as_if_it_had_never_stopped(tmp_path: Path, style_path: Path) -> None:
    style = tmp_path / "style.png"
    shutil.copy(style_path, style)

    def copy(progress: TrainProgress) -> None:
        """What SIGKILL would leave at this moment."""
        if progress.step in (2, 31):
            shutil.copytree(tmp_path / "whole", tmp_path / f"left-{progress.step}")
            (tmp_path / f"left-{progress.step}" / ".lock").unlink(missing_ok=True)

    small = {"batch_size": 1, "steps": 45, "samples": 2}
    whole = train_style(options(style, tmp_path / "whole", **small), copy)
    train_and_kill(tmp_path, options(style, tmp_path / "killed", **small), 27)
    with (tmp_path / "killed" / "log.csv").open("a") as file:
        file.write("28,1.0,5")  # as a row that the kill cut off
    style.unlink()  # it is in the checkpoint
    for name in ("killed", "left-2", "left-31"):
        result = resume_style(tmp_path / name)
        assert result.steps == 45
        assert_the_same_to_the_end(tmp_path / "whole", tmp_path / name, 45)
        assert all(torch.equal(a, weights(result)[k]) for k, a in weights(whole).items())
        assert result.after == whole.after


def test_ctrl_c_and_then_on(tmp_path: Path, style_path: Path) -> None:
    def stop(progress: TrainProgress) -> None:
        if progress.step == 5:
            raise KeyboardInterrupt

    config = options(style_path, tmp_path / "run", steps=7)
    assert train_style(config, stop).interrupted
    result = resume_style(tmp_path / "run")
    assert not result.interrupted
    assert result.steps == 7
    with pytest.raises(NstError, match="has ended"):
        resume_style(tmp_path / "run")


def test_what_cannot_be_resumed(tmp_path: Path, style_path: Path) -> None:
    with pytest.raises(NstError, match=r"holds no run\.toml"):
        resume_style(tmp_path)
    train_style(options(style_path, tmp_path / "run", steps=2, samples=1))
    (tmp_path / "run" / "result.json").unlink()
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.write_bytes(b"damaged")
    told: list[str] = []
    with pytest.raises(NstError, match="no checkpoint to resume from"):
        resume_style(tmp_path / "run", notice=told.append)
    assert len(told) == 2


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, style_path: Path) -> None:
    result = train_style(options(style_path, tmp_path / "run", steps=23, batch_size=1))
    expected = weights(result)
    (tmp_path / "run" / "result.json").unlink()
    newest = max((tmp_path / "run" / "checkpoints").glob("step-*"))
    newest.write_bytes(newest.read_bytes()[:1000])
    told: list[str] = []
    resumed = resume_style(tmp_path / "run", notice=told.append)
    assert len(told) == 1
    assert newest.name in told[0]
    assert all(torch.equal(a, expected[name]) for name, a in weights(resumed).items())


def test_a_resume_that_fails_takes_nothing_away(
    tmp_path: Path, style_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(progress: TrainProgress) -> None:
        if progress.step == 3:
            raise KeyboardInterrupt

    run = tmp_path / "run"
    train_style(options(style_path, run, steps=5, batch_size=1), stop)
    before = {path: path.read_bytes() for path in run.glob("checkpoints/*")}
    assert before

    def fail(*_: object) -> None:
        raise NstError("no teacher")

    monkeypatch.setattr(trainer_module, "make_teacher", fail)
    with pytest.raises(NstError, match="no teacher"):
        resume_style(run)
    assert {path: path.read_bytes() for path in run.glob("checkpoints/*")} == before
    monkeypatch.undo()
    make_small(monkeypatch)
    assert resume_style(run).steps == 5


def test_a_run_at_work_is_left_alone(tmp_path: Path, style_path: Path) -> None:
    seen: list[str] = []

    def intrude(progress: TrainProgress) -> None:
        if progress.step == 3:
            with pytest.raises(NstError, match="another process trains in"):
                resume_style(tmp_path / "run")
            seen.append("refused")

    train_style(options(style_path, tmp_path / "run", steps=4), intrude)
    assert seen == ["refused"]


def test_changed_content_is_told(tmp_path: Path, style_path: Path, photograph: Array) -> None:
    from nst.io.images import save_image

    save_image(tmp_path / "photos" / "a.png", photograph)
    train_style(options(style_path, tmp_path / "run", steps=2, content=tmp_path / "photos"))
    (tmp_path / "run" / "result.json").unlink()
    save_image(tmp_path / "photos" / "b.png", photograph)
    told: list[str] = []
    resume_style(tmp_path / "run", notice=told.append)
    assert any("content has changed" in line for line in told)


def poison(monkeypatch: pytest.MonkeyPatch, bad: Callable[[int], bool]) -> None:
    """Make the gradients of some steps (counted from 1, by calls) not finite."""
    in_parts, calls = TrainStep._in_parts, []

    def poisoned(self: TrainStep, batch: Array, count: int, first: int) -> None:
        calls.append(1)
        in_parts(self, batch, count, first)
        if bad(len(calls)):
            self.gradients[0].fill_(torch.nan)

    monkeypatch.setattr(TrainStep, "_in_parts", poisoned)


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
    config = options(style_path, tmp_path / "run", steps=30, batch_size=1)
    result = train_style(config, seen.append, notice=told.append)
    assert len(told) == 1
    assert "step 20" in told[0]
    assert rows(tmp_path / "run")[25]["note"] == "restored step 20"
    steps = {p.step: p for p in seen}
    usual = config.learning_rate * loop_module.schedule(26 / 30)
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
    assert "resume" in told[-1]
    state = load_checkpoint(tmp_path / "run" / "checkpoints" / "step-0000020.safetensors")
    assert state.snapshot is not None
    assert state.snapshot.step == 20


def launch_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: steps begin before the losses of those before them are known."""
    begin = Loop.__init__

    def ahead(self: Loop, *args: Any, **more: Any) -> None:
        begin(self, *args, **more)
        self._ahead = loop_module.AHEAD

    monkeypatch.setattr(Loop, "__init__", ahead)


def test_steps_launched_ahead_are_the_same_steps(
    tmp_path: Path, style_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"steps": 24, "batch_size": 1, "samples": 2}
    one = train_style(options(style_path, tmp_path / "one", **config))
    launch_ahead(monkeypatch)
    seen: list[TrainProgress] = []
    other = train_style(options(style_path, tmp_path / "other", **config), seen.append)
    assert [p.step for p in seen] == list(range(1, 25))
    assert all(torch.equal(value, weights(other)[k]) for k, value in weights(one).items())
    terms = ("step", "images", "content_loss", "style_loss", "total_loss", "learning_rate")
    logs = [[[row[term] for term in terms] for row in rows(r.folder)] for r in (one, other)]
    assert logs[0] == logs[1]


def test_bad_steps_launched_ahead_are_left_behind(
    tmp_path: Path, style_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch_ahead(monkeypatch)
    # A network that has gone bad stays so, until it is replaced.
    restored: list[str] = []
    poison(monkeypatch, lambda call: call >= 24 and not restored)
    seen: list[TrainProgress] = []
    config = options(style_path, tmp_path / "run", steps=32, batch_size=1)
    result = train_style(config, seen.append, notice=restored.append)
    assert len(restored) == 1
    notes = {int(row["step"]): row["note"] for row in rows(tmp_path / "run")}
    assert notes[26].startswith("restored step 2")
    # Steps 27 and 28 had begun by then; they count, but nobody hears of them.
    assert [p.step for p in seen] == [*range(1, 24), *range(29, 33)]
    assert result.steps == 32


def test_steps_launched_ahead_that_are_never_finite_again_end_the_run(
    tmp_path: Path, style_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore costs five steps then; restored states are no new good states."""
    launch_ahead(monkeypatch)
    calls: list[int] = []
    poison(monkeypatch, lambda call: calls.append(call) or call > 24)
    told: list[str] = []
    config = options(style_path, tmp_path / "run", steps=400, batch_size=1)
    with pytest.raises(NstError, match="ceased to be finite"):
        train_style(config, notice=told.append)
    assert sum("half the learning rate" in line for line in told) == loop_module.RESTORES
    assert len(calls) < 24 + (loop_module.RESTORES + 2) * (loop_module.BAD_STEPS + 2)


@pytest.mark.parametrize("ahead", [False, True])
def test_weights_that_an_update_broke_are_no_good_state(
    tmp_path: Path, style_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: bool
) -> None:
    """The loss of a step is that of the weights before its update."""
    if ahead:
        launch_ahead(monkeypatch)
    launch, broken = Loop._launch, []

    def breaking(self: Loop, batch: Array, done: float, waited: float) -> None:
        launch(self, batch, done, waited)
        if self.step == 20 + 2 * ahead and not broken:
            broken.append(self.step)
            with torch.no_grad():
                self.network.output.weight.fill_(torch.inf)

    monkeypatch.setattr(Loop, "_launch", breaking)
    told: list[str] = []
    config = options(style_path, tmp_path / "run", steps=40, batch_size=1)
    result = train_style(config, notice=told.append)
    assert broken
    assert ["of step 0" in line for line in told] == [True]
    assert result.steps == 40
    assert result.after.total_loss < result.before.total_loss


def test_a_network_gone_bad_after_its_best_is_not_the_one_exported(
    tmp_path: Path, style_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = Loop._launch

    def spoiling(self: Loop, batch: Array, done: float, waited: float) -> None:
        launch(self, batch, done, waited)
        if self.step == 11:
            with torch.no_grad():
                self.network.output.weight.mul_(torch.nan if self.config.seed else 30)

    monkeypatch.setattr(Loop, "_launch", spoiling)
    for seed in (0, 1):
        told: list[str] = []
        config = options(style_path, tmp_path / str(seed), steps=12, seed=seed, samples=6)
        result = train_style(config, notice=told.append)
        assert any("better than the last" in line for line in told)
        assert result.after.total_loss < result.before.total_loss


def assert_alike(*checkpoints: Path) -> None:
    """Networks that do the same to an image but for rounding.

    Their weights may differ where they change nothing: a bias before an instance normalisation has
    no gradient but rounding, of which Adam makes steps.
    """
    torch.manual_seed(0)
    image = torch.rand(1, 3, 64, 64) * 255
    with torch.inference_mode():
        one, other = (load_checkpoint(path).network(image) for path in checkpoints)
    torch.testing.assert_close(one, other, rtol=0, atol=0.2)


class Memory:
    """A network's forward pass that fails as a GPU does when more than `most` images come."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int, error: Exception) -> None:
        from nst.models.transformer import TransformerNet

        self.seen: list[int] = []
        forward = TransformerNet.forward

        def limited(
            network: TransformerNet, image: Tensor, export_padding: int = 0, **rest: Any
        ) -> Tensor:
            self.seen.append(len(image))
            if network.training and len(image) > most:
                raise error
            return forward(network, image, export_padding, **rest)

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
    plain = train_style(options(style_path, tmp_path / "plain", batch_size=6, steps=2))
    memory = Memory(monkeypatch, 2, error)
    told: list[str] = []
    seen: list[TrainProgress] = []
    config = options(style_path, tmp_path / "run", batch_size=6, steps=2)
    result = train_style(config, seen.append, notice=told.append)
    assert memory.seen[:6] == [6, 3, 2, 2, 2, 2]
    assert len(told) == 2
    assert "2 images at once" in told[1]
    assert [p.images for p in seen] == [6, 12]  # the batch is as large as before
    assert "out of memory" in rows(tmp_path / "run")[0]["note"]
    assert_alike(result.checkpoint, plain.checkpoint)


def test_one_image_that_does_not_fit_is_told(
    tmp_path: Path, style_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Memory(monkeypatch, 0, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(NstError, match="lower the size of the crops"):
        train_style(options(style_path, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def torchrun(count: int, script: Path, *arguments: object) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--local-addr=127.0.0.1"]  # not every machine can resolve its own name
    command += [f"--nproc-per-node={count}", str(script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


DISTRIBUTED = """
import json, os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from nst.models import config as presets
from nst.models.config import TransformerConfig
from nst.train.evaluation import score as scoring
from nst.train.config_file import load_config, make_config
from nst.train.engine.trainer import train_style

scoring.EVALUATION_SIDE = 64
presets.PRESETS["small"] = TransformerConfig(width=4, blocks=1)
result = train_style(make_config(load_config(Path(sys.argv[1]))))
told = {"steps": result.steps, "loss": result.after.total_loss}
Path(sys.argv[1]).with_name(f"rank-{os.environ['RANK']}.json").write_text(json.dumps(told))
"""


def test_two_processes_train_what_one_trains(tmp_path: Path, style_path: Path) -> None:
    more = {"batch_size": 6, "steps": 6, "samples": 2, "learning_rate": 1e-3}
    one = train_style(options(style_path, tmp_path / "1", **more))
    script, file = tmp_path / "script.py", tmp_path / "options.toml"
    script.write_text(DISTRIBUTED)
    save_config(file, options(style_path, tmp_path / "2", **more))
    torchrun(2, script, file)
    assert_alike(one.checkpoint, tmp_path / "2" / one.checkpoint.name)
    assert [row["images"] for row in rows(tmp_path / "2")] == [str(6 * k) for k in range(1, 7)]
    # All processes tell the same, and one alone writes.
    told = [(tmp_path / f"rank-{rank}.json").read_text() for rank in (0, 1)]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("architecture", "asked", "expected"),
    [("johnson", None, 6e-4), ("subpixel", None, 2.4e-3), ("subpixel", 1e-4, 1e-4)],
)
def test_the_learning_rate_suits_the_design_unless_it_is_given(
    architecture: Architecture,
    asked: float | None,
    expected: float,
    tmp_path: Path,
    style_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    norm: Norm = "subsampled_rms" if architecture == "subpixel" else "instance"
    make_small(monkeypatch, TransformerConfig(8, 1, norm, architecture, half_channels=4))
    train_style(options(style_path, tmp_path / "run", steps=4, learning_rate=asked))
    peak = max(float(row["learning_rate"]) for row in rows(tmp_path / "run"))
    assert 0.7 * expected < peak <= expected


def test_a_crop_is_repainted_amid_what_surrounds_it_in_its_photograph(
    style_path: Path, photograph: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The losses are those of the inside, cut out of the repainted whole."""
    config = TransformerConfig(4, 1, "none", "subpixel", half_channels=4)
    objective = build_objective(
        [load_style(style_path)],
        (),
        ObjectiveConfig(style_loss="gram", style_size=64),
        torch.device("cpu"),
    )
    network, context = TransformerNet(config), 2 + 4 * 4
    crop = np.ascontiguousarray(photograph[:80, : 64 + 2 * context - 20])
    crop = np.pad(crop, ((0, 20), (0, 20), (0, 0)), mode="reflect")[None]
    content = torch.from_numpy(crop.copy()).permute(0, 3, 1, 2).float()
    inside = slice(context, -context)
    with torch.no_grad():
        # Blocks of 4×4 begin where the inside does.
        painted = network(F.pad(content, [2] * 4))[..., 2:-2, 2:-2][..., inside, inside]
        expected = objective(painted, objective.content_features(content[..., inside, inside]))
    monkeypatch.setattr(update_module, "fast_bf16", lambda _: False)  # as the expected values
    update = TrainStep(network, objective, context=network.context)
    content_loss, style_loss, *_, total, _ = update(crop, 1, 0, 0.0)[0].tolist()
    assert content_loss == pytest.approx(float(expected.content_loss), rel=1e-4)
    assert style_loss == pytest.approx(float(expected.style_loss), rel=1e-4)
    assert total == pytest.approx(float(expected.total_loss), rel=1e-4)
    # The loop asks for crops with a context.
    seen: list[tuple[int, ...]] = []
    take = TrainStep.__call__

    def watch(update: TrainStep, batch: Array, *rest: Any, **more: Any) -> tuple[Tensor, Tensor]:
        seen.append(batch.shape)
        return take(update, batch, *rest, **more)

    monkeypatch.setattr(TrainStep, "__call__", watch)
    made = TrainConfig(style=(style_path,), steps=1, batch_size=1, size=64)
    content_source = open_content(None, 0, 64 + 2 * context)
    Loop(network, objective, made, content_source).run()
    assert seen == [(1, 64 + 2 * context, 64 + 2 * context, 3)]


@pytest.mark.parametrize("statistic", ["swd", "gram"])
def test_both_style_losses_fall(statistic: StyleStatistic, style_path: Path) -> None:
    objective = ObjectiveConfig(style_loss=statistic, style_size=64)
    config = small_run(style_path, None, steps=60, objective=objective)
    torch.manual_seed(0)
    network = TransformerNet(SMALL)
    judge = build_objective([load_style(style_path)], (), objective, torch.device("cpu"))
    losses = [step.style_loss for step in steps_of(judge, network, config)]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[5:15])


def test_some_losses_are_part_of_some_steps(style_path: Path) -> None:
    """One step in two has the temporal loss, one in four the checkerboard loss; all report both."""
    torch.manual_seed(0)
    config = ObjectiveConfig(style_loss="gram", style_size=64)
    objective = build_objective([load_style(style_path)], (), config, torch.device("cpu"))
    network = TransformerNet(SMALL)
    batch = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)

    def step(number: int, temporal: float, checkerboard: float) -> tuple[list[float], Tensor]:
        torch.manual_seed(number)  # the losses draw at random
        update = TrainStep(network, objective, temporal_weight=temporal)
        update.checkerboard_weight = checkerboard
        update.last_terms.copy_(torch.tensor([30.0, 40.0]))
        values, _ = update(batch, 2, 0, 0.0, number=number)
        return values.tolist(), torch.cat([g.flatten() for g in update.gradients]).clone()

    base, plain = step(0, 0, 0)
    names = {name: TERMS.index(name) for name in ("temporal", "checkerboard", "total")}
    assert [base[i] for i in names.values()] == [0, 0, base[TOTAL]]
    both, both_gradient = step(0, 500, 700)
    for number in (1, 2, 3, 5):
        values, gradient = step(number, 500, 700)
        only, alone = step(number, 500 * (number % 2 == 0), 0)
        torch.testing.assert_close(gradient, alone, rtol=1e-4, atol=1e-2)
        if number % 2:
            torch.testing.assert_close(gradient, plain, rtol=1e-4, atol=1e-2)
            assert values[names["temporal"]] == 30
        else:
            assert values[names["temporal"]] == pytest.approx(only[names["temporal"]], rel=1e-4)
        assert values[names["checkerboard"]] == 40
        terms = values[names["temporal"]] + values[names["checkerboard"]]
        assert values[TOTAL] == pytest.approx(base[TOTAL] + terms, rel=1e-4)
    temporal, checkerboard = (both[names[name]] for name in ("temporal", "checkerboard"))
    assert min(temporal, checkerboard) > 0
    assert both[TOTAL] == pytest.approx(base[TOTAL] + temporal + checkerboard, rel=1e-4)
    _, doubled = step(0, 1000, 1400)
    expected = 2 * (both_gradient - plain)
    assert (doubled - plain - expected).norm() < 0.05 * expected.norm()  # perhaps in bf16


def test_a_loss_that_is_not_finite_is_not_reported_again(style_path: Path) -> None:
    config = ObjectiveConfig(style_loss="gram", style_size=64)
    objective = build_objective([load_style(style_path)], (), config, torch.device("cpu"))
    update = TrainStep(TransformerNet(SMALL), objective, temporal_weight=1e38)
    batch = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    assert not np.isfinite(update(batch, 2, 0, 0.0, number=0)[0].tolist()).any()
    assert np.isfinite(update(batch, 2, 0, 0.0, number=1)[0].tolist()).all()


class Replay:
    """Stands in for a recording, which takes a GPU."""

    made: ClassVar[list[int]] = []
    fails = False

    def __init__(self, _: TrainStep, batch: Array) -> None:
        if self.fails:
            raise RuntimeError("no capture\nand why")
        self.made.append(len(batch))

    def replay(self, _: Array) -> Tensor:
        return torch.full((8,), 7.0)


@pytest.mark.parametrize("fails", [False, True])
def test_a_step_is_recorded_after_a_warm_up(
    fails: bool, style_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update_module, "_Recording", Replay)
    monkeypatch.setattr(Replay, "made", [])
    monkeypatch.setattr(Replay, "fails", fails)
    objective = build_objective(
        [load_style(style_path)], (), ObjectiveConfig(style_size=64), torch.device("cpu")
    )
    network, notes = TransformerNet(TransformerConfig(4, 1)), []
    update = TrainStep(network, objective, notice=notes.append)
    update._recordable = True
    batch = np.zeros((2, 64, 64, 3), np.uint8)

    def replayed(batch: Array) -> bool:
        return update(batch, len(batch), 0, 1e-4)[0].tolist() == [7.0] * 8

    assert [replayed(batch) for _ in range(5)] == [False] * 3 + [not fails] * 2
    assert [note.endswith("(no capture)") for note in notes] == [True] * fails
    assert Replay.made == [2] * (not fails)
    # Another size: it is recorded anew.
    assert [replayed(batch[:1]) for _ in range(5)] == [False] * 3 + [not fails] * 2
    assert not replayed(batch)
    update.checkerboard_weight = 1.0  # another step: it is recorded anew
    assert [replayed(batch) for _ in range(5)] == [False] * 3 + [not fails] * 2
    assert Replay.made == [2, 1, 2] * (not fails)
    update.parts = 2
    assert not replayed(batch)


def test_bf16_is_used_where_the_processor_computes_in_it(
    style_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = torch.device("cpu")
    objective = build_objective([load_style(style_path)], (), ObjectiveConfig(style_size=64), cpu)
    batches = np.random.default_rng(0).integers(0, 256, (3, 2, 64, 64, 3), np.uint8)
    losses, kinds = [], []
    for features in (set[str](), {"avx2", "amx_bf16"}):
        monkeypatch.setattr(update_module, "read_cpu", lambda found=features: ("some CPU", found))
        assert update_module.fast_bf16(cpu) is bool(features)
        torch.manual_seed(0)
        network = TransformerNet(TransformerConfig(4, 1))
        network.output.register_forward_hook(lambda *seen: kinds.append(seen[2].dtype))
        update = TrainStep(network, objective)
        losses.append([update(batch, 2, 0, 1e-3)[0][TOTAL].item() for batch in batches])
    assert kinds == [torch.float32] * 3 + [torch.bfloat16] * 3
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
