"""The benchmark: its figures, and what happens when a process dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from nst.errors import NstError, UsageError
from nst.infer.diagnostics import bench as module
from nst.infer.diagnostics.bench import (
    BenchConfig,
    BenchProgress,
    Candidate,
    Measurement,
    Worker,
    bench,
)
from nst.infer.runtime.providers import installed_providers

QUICK = BenchConfig(sizes=((32, 40),), seconds=0.02, rounds=2, warmup=1, threads=1)


@pytest.fixture(scope="module")
def fixed_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that can only repaint 64×64, though it does not say so; it states its MACs."""
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.UINT8, ["n", "h", "w", 3])
        for name in ("image", "stylized")
    )
    mask = helper.make_tensor("mask", TensorProto.BOOL, [1, 64, 64, 1], [True] * 64 * 64)
    node = helper.make_node("Where", ["mask", "image", "image"], ["stylized"])
    graph = helper.make_graph([node], "g", [x], [y], [mask])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {"macs_per_pixel": "2000", "preset": "p", "precision": "int8"})
    path = tmp_path_factory.mktemp("fixed") / "fixed.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[Worker]:
    """Every worker that the test starts."""
    started: list[Worker] = []

    class Recorded(Worker):
        def __init__(self) -> None:
            super().__init__()
            started.append(self)

    monkeypatch.setattr(module, "Worker", Recorded)
    return started


def gone(worker: Worker) -> bool:
    try:
        os.kill(worker.pid, 0)
    except ProcessLookupError:
        return True
    return False


def check_figures(row: Measurement) -> None:
    assert not row.error
    assert row.milliseconds is not None
    assert row.p95 is not None
    assert row.fps is not None
    assert 0 < row.milliseconds <= row.p95
    assert row.fps == pytest.approx(1000 / row.milliseconds)
    assert row.memory is None or row.memory > 0
    assert row.provider == "cpu"
    assert row.gpu_memory is None


def test_rows(model_path: Path, fixed_path: Path, tmp_path: Path, workers: list[Worker]) -> None:
    missing = next(name for name in ("coreml", "directml") if name not in installed_providers())
    candidates = [
        Candidate(model_path, "cpu", reference=True),
        Candidate(fixed_path, "cpu"),
        Candidate(model_path, missing),  # type: ignore[arg-type]
        Candidate(tmp_path / "none.onnx", "cpu"),
    ]
    config = replace(QUICK, sizes=((96, 96), (64, 64)))
    rows = bench(candidates, config)
    assert len(workers) == 4
    assert all(map(gone, workers))

    assert [row.size for row in rows] == [(64, 64)] * 4 + [(96, 96)] * 4
    small, large = rows[:4], rows[4:]
    for tiny, fixed, not_installed, no_file in (small, large):
        check_figures(tiny)
        assert (tiny.model, tiny.path, tiny.gmac) == ("Tiny", str(model_path), tiny.gmac)
        assert tiny.n >= config.rounds
        assert tiny.reference
        assert tiny.speedup == 1
        assert (fixed.model, fixed.preset, fixed.precision) == ("fixed", "p", "int8")
        assert "not installed" in not_installed.error
        assert not_installed.provider == missing
        assert "does not exist" in no_file.error
        for row in (not_installed, no_file):
            assert row.milliseconds is row.p95 is row.fps is row.speedup is row.memory is None
            assert row.n == 0
    check_figures(small[1])
    assert small[1].gmac == pytest.approx(2000 * 64 * 64 / 1e9)
    assert small[1].speedup == pytest.approx(small[0].milliseconds / small[1].milliseconds)  # type: ignore[operator]
    assert "96×96" in large[1].error
    assert large[1].speedup is None
    if sys.platform == "linux":  # small sizes come first, so peaks only grow
        assert small[0].memory is not None
        assert large[0].memory is not None
        assert 0 < small[0].memory <= large[0].memory

    values = json.loads(json.dumps([row.to_dict() for row in rows]))
    assert (values[0]["width"], values[0]["height"]) == (64, 64)
    assert set(values[0]) - {"width", "height"} == set(asdict(rows[0])) - {"size"}


def test_figures_are_those_of_the_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker with times of its own, on a GPU whose memory grows as it is asked."""
    asked: list[dict[str, Any]] = []
    used = iter([100.0, 350.0, 350.0, 950.0])  # around the opening, around the warm-up

    class Scripted:
        def __enter__(self) -> Scripted:
            return self

        def __exit__(self, *error: object) -> None: ...

        def ask(self, **request: Any) -> dict[str, Any]:
            asked.append(request)
            if request["do"] == "open":
                return {"name": "a", "provider": "cuda", "metadata": {"macs_per_pixel": "500"}}
            times = [0.04, 0.01, 0.02][: request["repetitions"]]
            return {"seconds": times, "memory": 3 * 2**20}

    monkeypatch.setattr(module, "Worker", Scripted)
    monkeypatch.setattr(module, "gpu_memory_used", lambda: next(used))
    config = BenchConfig(sizes=((100, 200),), seconds=0.2, rounds=4, warmup=2, batch=2)
    (row,) = bench([Candidate("a.onnx", "auto")], config)
    # The last warm-up call took 0.01 s and a round has 0.05 s: five calls, of which it gives three.
    assert [request.get("repetitions") for request in asked] == [None, 2, 5, 5, 5, 5]
    times = np.array([0.04, 0.01, 0.02] * 4) * 1000 / 2
    assert row.n == 12
    assert row.milliseconds == pytest.approx(10) == pytest.approx(np.median(times))
    assert row.p95 == pytest.approx(20)
    assert row.fps == pytest.approx(100)
    assert (row.memory, row.gpu_memory, row.provider) == (3, 850, "cuda")
    assert row.gmac == pytest.approx(0.01)


def test_candidates_take_turns(model_path: Path, fixed_path: Path) -> None:
    heard: list[BenchProgress] = []
    config = replace(QUICK, sizes=((64, 64),), rounds=3)
    bench([Candidate(model_path, "cpu"), Candidate(fixed_path, "cpu")], config, heard.append)
    tiny, fixed = model_path.stem, fixed_path.stem
    assert [at.model for at in heard] == [tiny, fixed] * (1 + 1 + 3)  # open, warm up, rounds
    assert [at.size for at in heard] == [None] * 2 + [(64, 64)] * 8
    done = [at.done for at in heard]
    assert done[0] == 0
    assert done == sorted(set(done))
    assert done[-1] < 1


def test_a_batch_counts_by_its_images(model_path: Path) -> None:
    (row,) = bench([Candidate(model_path)], replace(QUICK, batch=3))
    check_figures(row)
    assert row.batch == 3
    assert row.speedup is None


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("when", ["opening", "measuring"])
def test_a_worker_that_is_killed(model_path: Path, workers: list[Worker], when: str) -> None:
    def kill(progress: BenchProgress) -> None:
        if (progress.size is None) == (when == "opening") and not gone(workers[0]):
            os.kill(workers[0].pid, signal.SIGKILL)

    dead, alive = bench([Candidate(model_path, "cpu")] * 2, QUICK, kill)
    assert "SIGKILL" in dead.error
    assert dead.milliseconds is None
    check_figures(alive)
    assert all(map(gone, workers))


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_leaves_no_process(
    model_path: Path, workers: list[Worker], error: type[BaseException]
) -> None:
    def stop(progress: BenchProgress) -> None:
        if progress.size is not None:
            raise error

    with pytest.raises(error):
        bench([Candidate(model_path, "cpu")] * 2, QUICK, stop)
    assert len(workers) == 2
    assert all(map(gone, workers))


def test_a_worker_without_a_model_and_a_dead_one() -> None:
    with Worker() as worker:
        answer = worker.ask(do="run", size=(32, 32), batch=1, repetitions=1, seconds=1)
        assert answer["error"]
        with pytest.raises(NstError, match="KeyError"):  # the last line of its traceback
            worker.ask(nothing="asked")
        with pytest.raises(NstError, match="ended"):
            worker.ask(do="open")
    assert gone(worker)


def test_the_worker_counts_and_heeds_its_time(model_path: Path) -> None:
    with Worker() as worker:
        opened = worker.ask(do="open", model=str(model_path), provider="cpu", threads=1)
        assert opened["name"] == "Tiny"
        assert opened["metadata"]["title"] == "Tiny"
        for repetitions, seconds, n in ((4, 1e9, 4), (4, 1e-9, 2), (1, 1e-9, 1)):
            answer = worker.ask(
                do="run", size=(32, 40), batch=2, repetitions=repetitions, seconds=seconds
            )
            assert len(answer["seconds"]) == n
            assert min(answer["seconds"]) > 0


def test_what_libraries_print_stays_out_of_the_answers() -> None:
    code = (
        "import os\nfrom nst.infer.diagnostics import bench_worker\n"
        "class Loud:\n"
        "    name = provider = precision = 'loud'\n    metadata, notes = {}, ()\n"
        "    def __init__(self, *args, **options): os.write(1, b'native noise\\n')\n"
        "    def __call__(self, images): print('noise')\n"
        "bench_worker.Stylizer = Loud\nbench_worker.main()"
    )
    requests = [
        {"do": "open", "model": "a", "provider": "cpu", "threads": 1},
        {"do": "run", "size": [32, 32], "batch": 1, "repetitions": 2, "seconds": 9},
    ]
    done = subprocess.run(
        [sys.executable, "-c", code],
        input="".join(f"{json.dumps(request)}\n" for request in requests),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    opened, ran = map(json.loads, done.stdout.splitlines())
    assert opened["provider"] == "loud"
    assert len(ran["seconds"]) == 2
    assert done.stderr.count("noise") == 3


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"sizes": ()}, "size"),
        ({"sizes": ((480, 31),)}, "width"),
        ({"sizes": ((0, 480),)}, "height"),
        ({"seconds": 0}, "seconds"),
        ({"seconds": np.nan}, "seconds"),
        ({"rounds": 0}, "rounds"),
        ({"warmup": 0}, "warm-up"),
        ({"batch": 0}, "batch"),
        ({"threads": -1}, "threads"),
    ],
)
def test_bad_options(options: dict[str, object], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        BenchConfig(**options)  # type: ignore[arg-type]
