"""`nst score`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nst.cli.console import Debug, command, say
from nst.cli.fields import with_options
from nst.cli.options import DeviceOption, JsonOption, StyleOption, check_rivals, numbers
from nst.config import ObjectiveConfig, check_number
from nst.errors import UsageError, needs_extra
from nst.formatting import thousands
from nst.infer.cli.opening import open_model, open_photographs, say_notes
from nst.infer.cli.options import ContentOption, ProviderOption, ThreadsOption
from nst.io.files import check_writable
from nst.options import option_fields

if TYPE_CHECKING:
    from nst.train.evaluation.score import Score, ScoreProgress

SHOWN = (0, 5, 10, 25, 50, 100, 200, 500, 1000)  # iterations of the curve that are printed
MOST_ITERATIONS = 1000
_OBJECTIVE = "Objective (default: as in the training)"


@command
@with_options(
    ObjectiveConfig,
    leave_out=("keep_color", "content_layers", "style_layers"),
    panel=_OBJECTIVE,
)
def score_command(
    model: Annotated[Path, typer.Argument(help="Model to score, an .onnx file.")],
    style: StyleOption,
    given: Mapping[str, Any],
    content: ContentOption = None,
    iterations: Annotated[
        int, typer.Option(help="Iterations of the optimiser, the length of its curve.")
    ] = 100,
    plot: Annotated[
        Path | None, typer.Option(help="PNG file to write: a plot of the curve and the model.")
    ] = None,
    as_json: JsonOption = False,
    device: DeviceOption = "auto",
    provider: ProviderOption = "auto",
    threads: ThreadsOption = 0,
    style_weights: Annotated[
        str,
        typer.Option(help="Shares of the style images, as 0.7,0.3.", rich_help_panel=_OBJECTIVE),
    ] = "",
    debug: Debug = False,
) -> None:
    """Score a model: how many iterations of Gatys's optimiser is it worth?

    Compare its losses on photographs with the optimiser's curve on the same photographs, under the
    objective that it was trained for. Curves are cached, so a second call is quick.
    """
    check_rivals(given)
    check_number("iterations", iterations, least=1, most=MOST_ITERATIONS)
    if plot is not None:
        if plot.suffix.lower() != ".png":
            raise UsageError(f"--plot {plot} is not a PNG file: name one, as score.png")
        check_writable(plot)
    with needs_extra("nst score"):
        from nst.perceptual.losses import build_objective
        from nst.perceptual.style_image import prepare_style
        from nst.system.devices import pick_device
        from nst.train.evaluation.score import score, trained_objective

    place = pick_device(device)
    photographs, skipped = open_photographs(content)
    with open_model(model, provider, threads) as (stylizer, bar):
        config, weights = trained_objective(stylizer.metadata)
        changed = {
            o.field: given[o.name] for o in option_fields(ObjectiveConfig) if o.name in given
        }
        if "style_strength" in changed:
            changed["style_weight"] = None
        config = replace(config, **changed)
        prepared = [prepare_style(path, config.style_size) for path in style]
        say_notes([note for image in prepared for note in image.notes])
        styles = [image.image for image in prepared]
        weights = numbers("--style-weights", style_weights) or weights
        if len(weights) != len(styles) and not style_weights:
            weights = ()
        objective = build_objective(styles, weights, config, place)
        if "config" not in stylizer.metadata:
            say(f"note: {model} does not name its objective: the defaults are used")
        _check_style(model, stylizer.metadata, style)
        task = bar.add_task("scoring", total=1.0)

        def report(progress: ScoreProgress) -> None:
            bar.update(task, completed=progress.done)

        result = score(
            stylizer,
            photographs,
            styles,
            objective,
            style_weights=weights,
            iterations=iterations,
            callback=report,
        )
    if plot is not None:
        with needs_extra("nst score --plot"):
            from nst.train.evaluation.score_plot import plot_score

        plot_score(result, stylizer.name, plot)
        say(f"plot     {plot}")
    values = {"model": str(model), "style": [str(s) for s in style], **result.to_dict()}
    print(json.dumps(values, indent=2) if as_json else _table(result, stylizer.name))
    if skipped:
        raise typer.Exit(1)


def _check_style(model: Path, metadata: dict[str, str], style: list[Path]) -> None:
    """Warn if the model was trained on other style images."""
    known = metadata.get("style_sha256", "").split()
    for path in style:
        if known and hashlib.sha256(path.read_bytes()).hexdigest() not in known:
            say(f"warning: {path} is not the style image that {model} was trained on")
    if known and len(known) != len(style):
        say(f"warning: {model} was trained on {len(known)} style images, {len(style)} given")


def _table(result: Score, name: str) -> str:
    count = len(result.photographs)
    lines = [f"{'':28}{'content':>10}{'style':>10}{'total':>10}"]
    shown = {k: losses for k, losses in result.curve().items() if k in SHOWN}
    rows = [(f"optimiser, {k} iterations", losses) for k, losses in shown.items() if k]
    rows = [("photographs as they are", result.before), *rows, (name[:27], result.losses)]
    for label, losses in rows:
        values = losses.content_loss, losses.style_loss, losses.total_loss
        lines.append(f"{label:28}" + "".join(f"{thousands(value):>10}" for value in values))
    photographs = f"{count} photographs" if count > 1 else "one photograph"
    look, before = result.look, result.look_before
    lines.append(f"{result.words()}, on {photographs} at 256×256")
    if result.beyond:
        last = max(p.curve.iterations[-1] for p in result.photographs)
        lines.append(f"better than all {last} iterations on {result.beyond} of them")
    lines.append(
        f"look: colours {look.color_distance:.1f} levels from the painting's "
        f"(photographs: {before.color_distance:.1f}), edges kept {look.edges_kept:.2f}, "
        f"grain {look.grain:.1f} levels ({before.grain:.1f})"
    )
    return "\n".join(lines)
