"""`nst bench`; it is not in infer, because the untrained presets are built with torch."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from nst.cli.console import Debug, command, progress_bar, say
from nst.config import PROVIDERS, Provider
from nst.errors import ExportError, MissingExtraError, ModelError, UsageError, needs_extra
from nst.infer.cli.options import ThreadsOption
from nst.models.config import PRESETS, preset_config
from nst.train.config import PRECISIONS, check_precisions

if TYPE_CHECKING:
    from nst.infer.diagnostics.bench import BenchConfig, BenchProgress, Candidate, Measurement
    from nst.infer.diagnostics.machine import Machine

SIZES = ("640x480", "1280x720", "1920x1080")


@command
def bench_command(
    models: Annotated[
        list[Path] | None,
        typer.Argument(metavar="MODEL...", help="ONNX files. Default: every preset, untrained."),
    ] = None,
    provider: Annotated[
        list[str] | None,
        typer.Option(help="Provider that computes; see nst info. Repeatable. Default: auto."),
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(help=f"Image size, width x height. Repeatable. Default: {', '.join(SIZES)}."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="Least time to measure each model at each size, seconds.")
    ] = 2.0,
    batch: Annotated[int, typer.Option(help="Number of images per call.")] = 1,
    threads: ThreadsOption = 0,
    reference: Annotated[
        str, typer.Option(help="Model that speed-ups refer to: a preset, an ONNX file, or none.")
    ] = "quality",
    precision: Annotated[str, typer.Option(help="Precision of a preset as reference.")] = "fp32",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
    debug: Debug = False,
) -> None:
    """Measure how fast models repaint: milliseconds, frames per second, memory, speed-up.

    The models take turns, each in a process of its own, so that a busy machine slows all alike.
    The result is a Markdown table on stdout; progress goes to stderr.
    """
    from nst.infer.diagnostics.bench import BenchConfig, bench
    from nst.infer.diagnostics.machine import read_machine

    config = BenchConfig(
        sizes=tuple(_size(text) for text in size or SIZES),
        seconds=seconds,
        batch=batch,
        threads=threads,
    )
    providers = tuple(dict.fromkeys(_provider(name) for name in provider or ("auto",)))
    check_precisions((precision,))
    models = models or []
    _check_models(models, reference)
    machine = read_machine()  # before measuring, which adds to the load
    with tempfile.TemporaryDirectory(prefix="nst-bench-") as folder:
        candidates = _candidates(models, providers, reference, precision, Path(folder))
        with progress_bar("now") as bar:
            task = bar.add_task("measuring", total=1.0, now="")

            def report(progress: BenchProgress) -> None:
                at = "" if progress.size is None else f" at {_wh(progress.size)}"
                now = f"{progress.model} on {progress.provider}{at}"
                bar.update(task, completed=progress.done, now=now)

            rows = tuple(_counted(bench(candidates, config, report)))
    lasting = {str(path) for path in (*models, reference)}
    rows = tuple(row if row.path in lasting else replace(row, path="") for row in rows)
    for note in dict.fromkeys(note for row in rows for note in row.notes):
        say(f"note: {note}")
    print(_json(machine, config, rows) if as_json else table(machine, config, rows))
    if any(row.error for row in rows):
        raise typer.Exit(1)


def build_preset(preset: str, precision: str, path: Path) -> None:
    """Export a preset with random weights, which do not change its speed.

    Raises:
        MissingExtraError: the extra `train` isn't installed.
        ExportError: the untrained network does not pass the checks of the export.
    """
    with needs_extra("an untrained preset"):
        from nst.models.transformer import TransformerNet
        from nst.train.export.export import export_onnx
    network = TransformerNet(preset_config(preset))
    export_onnx(network, path, {"title": "untrained", "preset": preset}, precision)


def table(machine: Machine, config: BenchConfig, rows: Sequence[Measurement]) -> str:
    """Format a line about the conditions, and a Markdown table of the results."""
    threads = f"{config.threads} threads" if config.threads else "one thread per core"
    load = "" if machine.load is None else f", load average {machine.load:.1f} before"
    line = (
        f"{machine.line}; {threads}, batches of {config.batch}{load}. Milliseconds for one image: "
        f"median and 95th percentile of n calls in {config.rounds} rounds, after up to "
        f"{config.warmup} calls of warm-up."
    )
    names = ("model", "preset", "precision", "provider")
    columns: dict[str, list[str]] = {
        **{name: [_cell(getattr(row, name)) for row in rows] for name in names},
        "size": [_wh(row.size) for row in rows],
        "ms": [_figure(row.milliseconds) for row in rows],
        "p95": [_figure(row.p95) for row in rows],
        "fps": [_figure(row.fps) for row in rows],
        "n": [str(row.n) if row.n else "–" for row in rows],
        "GMAC": [_figure(row.gmac) for row in rows],
        "MiB": [_figure(row.memory) for row in rows],
    }
    if any(row.gpu_memory is not None for row in rows):
        columns["GPU MiB"] = [_figure(row.gpu_memory) for row in rows]
    if any(row.reference for row in rows):
        columns["speed-up"] = [_figure(row.speedup) for row in rows]
    numbers = list(columns)[5:]
    if any(row.error for row in rows):
        columns["failed"] = [_cell(row.error) for row in rows]
    lines = [list(columns), ["---:" if name in numbers else "---" for name in columns]]
    lines += [list(cells) for cells in zip(*columns.values(), strict=True)]
    return "\n".join([line, "", *("| " + " | ".join(cells) + " |" for cells in lines)])


def _json(machine: Machine, config: BenchConfig, rows: Sequence[Measurement]) -> str:
    values = {
        "machine": machine.to_dict(),
        "config": {name: value for name, value in asdict(config).items() if name != "sizes"},
        "results": [row.to_dict() for row in rows],
    }
    return json.dumps(values, indent=2, allow_nan=False)


def _candidates(
    models: Sequence[Path],
    providers: Sequence[Provider],
    reference: str,
    precision: str,
    folder: Path,
) -> list[Candidate]:
    """List what to measure, the reference first; presets are built in `folder`."""
    from nst.infer.diagnostics.bench import Candidate

    base = (reference, precision)
    wanted = [] if models else [(preset, kind) for preset in PRESETS for kind in PRECISIONS]
    files = [(model, False) for model in models if model != Path(reference)]
    if reference in PRESETS:
        wanted = [base, *(pair for pair in wanted if pair != base)]
    elif reference != "none":
        files = [(Path(reference), True), *files]
    built: list[tuple[Path, bool]] = []
    for pair in wanted:
        path = folder / f"{'-'.join(pair)}.onnx"
        try:
            build_preset(*pair, path)
        except (MissingExtraError, ExportError) as error:
            if isinstance(error, MissingExtraError) and not models:
                raise
            say(f"note: going on without the preset {' '.join(pair)}: {error}")
        else:
            built.append((path, pair == base))
    if not built and not files:
        raise ExportError("no preset could be built: name a model to measure")
    return [
        Candidate(path, provider, reference=is_reference)
        for path, is_reference in (*built, *files)
        for provider in providers
    ]


def _counted(rows: Sequence[Measurement]) -> Iterator[Measurement]:
    """Add multiply-accumulates to the rows, counted on the graph, if onnx is installed."""
    try:
        import onnx
        from google.protobuf.message import DecodeError  # a dependency of onnx

        from nst.train.export.macs import count_macs
    except ModuleNotFoundError:
        yield from rows
        return
    for row in rows:
        if not row.error:
            # On failure, the number that the file states is kept.
            with contextlib.suppress(ExportError, DecodeError):
                model = onnx.load(row.path, load_external_data=False)
                row = replace(row, gmac=count_macs(model, row.size) / 1e9)
        yield row


def _check_models(models: Sequence[Path], reference: str) -> None:
    """Raise `ModelError` for a file that is not a model, before the others are measured."""
    from nst.infer.runtime.stylizer import Stylizer

    if reference not in (*PRESETS, "none"):
        if not Path(reference).exists():
            raise ModelError(
                f"the reference {reference} does not exist: "
                f"give a preset ({', '.join(PRESETS)}), an ONNX file, or none"
            )
        models = [*models, Path(reference)]
    for model in models:
        Stylizer(model, provider="cpu", threads=1).close()


def _provider(name: str) -> Provider:
    if name not in PROVIDERS:
        raise UsageError(f"provider is {name!r}: choose one of {', '.join(PROVIDERS)}")
    return cast(Provider, name)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})[x×](\d{1,5})", text.strip().lower())
    if match is None:
        raise UsageError(f"size is {text!r}: give width x height, such as 640x480")
    return int(match[2]), int(match[1])


def _wh(size: tuple[int, int]) -> str:
    return f"{size[1]}×{size[0]}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|") or "–"


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"
