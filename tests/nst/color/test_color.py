"""Colour transfer against other implementations and what each method promises."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import ot
import pytest
import scipy.sparse
import scipy.sparse.linalg
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from skimage.exposure import match_histograms
from typer.testing import CliRunner

import nst.color.idt as idt_module
import nst.color.pixels as pixels_module
from nst.cli.app import app
from nst.color.compare import (
    as_csv,
    as_json,
    compare_methods,
    kl_divergence,
    mean_rows,
    wasserstein,
)
from nst.color.pixels import ColorImage, histograms
from nst.color.transfer import (
    METHODS,
    Method,
    cholesky,
    grey,
    histogram,
    idt,
    idt_regrain,
    keep_color,
    luminance,
    mkl,
    pca,
    reinhard,
    style_in_colors_of,
)
from nst.config import KeepColor
from nst.errors import UsageError
from nst.io.images import Array, load_image, load_picture, resize_image, save_image
from nst.io.sample_images import held_out

SMALL = hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3)))
LINEAR = {"mkl": mkl, "cholesky": cholesky, "pca": pca}


def picture(seed: int, height: int = 40, width: int = 56) -> Array:
    """Smooth fields of correlated colours, and a little noise."""
    rng = np.random.default_rng(seed)
    fields = cv2.resize(
        rng.uniform(0, 1, (4, 5, 3)), (width, height), interpolation=cv2.INTER_CUBIC
    )
    mixed = fields @ rng.uniform(-1, 1, (3, 3)) + rng.normal(0, 0.02, fields.shape)
    low, high = np.sort(rng.uniform(0, 255, (2, 3)), 0)
    mixed = (mixed - mixed.min((0, 1))) / np.ptp(mixed, (0, 1))
    return np.rint(low + mixed * np.maximum(high - low, 60).clip(0, 255 - low)).astype(np.uint8)


def moments(image: ColorImage) -> tuple[NDArray[Any], NDArray[Any]]:
    flat = image.reshape(-1, 3).astype(np.float64)
    return flat.mean(0), np.cov(flat.T, bias=True)


@pytest.mark.parametrize("method", LINEAR)
@pytest.mark.parametrize("seed", range(4))
def test_linear_methods_give_mean_and_covariance(method: str, seed: int) -> None:
    image, reference = picture(seed) * 1.0, picture(seed + 10, 33, 47) * 1.0
    got = moments(LINEAR[method](image, reference))
    for value, wanted in zip(got, moments(reference), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-6, atol=1e-6)


def test_mkl_is_the_optimal_map_between_gaussians() -> None:
    image, reference = picture(0) * 1.0, picture(11) * 1.0
    (mean, covariance), (new_mean, wanted) = moments(image), moments(reference)
    matrix, offset = ot.gaussian.bures_wasserstein_mapping(mean, new_mean, covariance, wanted)
    np.testing.assert_allclose(mkl(image, reference), image @ matrix + offset, atol=1e-6)
    # It moves colours less than the others that reach the same moments.
    moved = {name: np.square(m(image, reference) - image).mean() for name, m in LINEAR.items()}
    assert moved["mkl"] == min(moved.values())


@settings(max_examples=30, deadline=None)
@given(SMALL, SMALL)
def test_histogram_is_scikit_images(image: Array, reference: Array) -> None:
    expected = match_histograms(
        image.astype(np.float64), reference.astype(np.float64), channel_axis=2
    )
    assert np.abs(histogram(image, reference) - expected).max() <= 0.5 + 1e-9
    floats = histogram(image * 1.0, reference / 2)
    np.testing.assert_allclose(
        floats, match_histograms(image * 1.0, reference / 2, channel_axis=2), atol=1e-9
    )


def sliced_distance(image: ColorImage, reference: ColorImage) -> float:
    """Sliced Wasserstein distance, by POT."""
    one, other = (i.reshape(-1, 3).astype(np.float64) for i in (image, reference))
    return float(ot.sliced_wasserstein_distance(one, other, n_projections=60, seed=3))


def test_idt_comes_nearer_at_every_iteration(root: Path) -> None:
    """In the mean over six pairs: a single one may move back by hundredths of a level."""
    images = [
        resize_image(image, (96, 120))
        for image in (*held_out(), load_image(root / "examples" / "wave.jpg"))
    ]
    courses = []
    for image, reference in itertools.permutations(images, 2):
        course = [sliced_distance(image, reference)]
        steps: list[ColorImage] = []
        idt(image, reference, iterations=8, callback=steps.append)
        course += [sliced_distance(step, reference) for step in steps]
        courses.append(course)
    mean = np.mean(courses, 0)
    assert mean.shape == (9,)
    assert (np.diff(mean) < 0).all()
    assert mean[-1] < 0.03 * mean[0]


def test_idt_knows_colours_by_number_or_by_table(monkeypatch: pytest.MonkeyPatch) -> None:
    image, reference = picture(3), picture(4)
    expected = idt(image, reference, iterations=3)
    np.testing.assert_array_equal(idt(image, reference, iterations=3), expected)
    assert (idt(image, reference, iterations=3, seed=1) != expected).any()
    monkeypatch.setattr(idt_module, "_SAMPLE", 1)
    np.testing.assert_array_equal(idt(image, reference, iterations=3), expected)
    # Every pixel by itself: sums are taken in another order.
    floats = idt(image * 1.0, reference * 1.0, iterations=3)
    np.testing.assert_allclose(floats, expected, atol=0.6)


def energy(result: ColorImage, image: ColorImage, target: ColorImage) -> tuple[float, float]:
    """What regraining minimises, and its least value by a direct solution."""
    height, width = image.shape[:2]
    down, across = (np.gradient(image, axis=axis) for axis in (0, 1))
    slope = np.sqrt((down**2 + across**2).sum(2))[1:-1, 1:-1]
    number = np.arange(height * width).reshape(height, width)
    # np.gradient and OpenCV differ at the border: look at the inside.
    inside = number[1:-1, 1:-1]
    flow, pull = 30 / (1 + 10 * slope), np.minimum(slope / 5, 1)
    rows, weights = [], []
    for one, other, a, b in (
        (inside[:, 1:], inside[:, :-1], flow[:, 1:], flow[:, :-1]),
        (inside[1:], inside[:-1], flow[1:], flow[:-1]),
    ):
        rows.append(np.stack([one.ravel(), other.ravel()], 1))
        weights.append(((a + b) / 2).ravel())
    pairs, strength = np.concatenate(rows), np.concatenate(weights)
    count = height * width
    graph = scipy.sparse.coo_matrix((strength, pairs.T), (count, count))
    graph = graph + graph.T
    laplacian = scipy.sparse.diags(np.asarray(graph.sum(1)).ravel()) - graph
    pulls = np.zeros(count)
    pulls[inside.ravel()] = pull.ravel()
    system = (laplacian + scipy.sparse.diags(pulls + 1e-9)).tocsc()

    def value(change: NDArray[Any]) -> float:
        rest = change - wanted
        return float((change * (laplacian @ change)).sum() + (pulls[:, None] * rest**2).sum())

    wanted = (target - image).reshape(count, 3)
    best = np.stack(
        [scipy.sparse.linalg.spsolve(system, pulls * wanted[:, k]) for k in range(3)], 1
    )
    return value((result - image).reshape(count, 3)), value(best)


def test_regraining_minimises_its_energy() -> None:
    image, reference = picture(5, 70, 90) * 1.0, picture(6) * 1.0
    target = idt(image, reference)
    result = idt_regrain(image, reference)
    got, least = energy(result, image, target)
    assert least <= got < 1.3 * least
    assert got < 0.3 * energy(target, image, target)[0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99))
def test_luminance_leaves_the_chrominance(seed: int) -> None:
    image, reference = picture(seed) * 1.0, picture(seed + 100) * 1.0
    result = luminance(image, reference)
    luma = np.array([0.299, 0.587, 0.114])
    for channel in (0, 2):  # Cr and Cb are multiples of these
        before, after = (i[..., channel] - i @ luma for i in (image, result))
        np.testing.assert_allclose(after, before, atol=1e-9)
    for statistic in (np.mean, np.std):
        assert statistic(result @ luma) == pytest.approx(statistic(reference @ luma), rel=1e-6)


@pytest.mark.parametrize("space", ["lalphabeta", "cielab"])
def test_reinhard_gives_mean_and_deviation_in_its_space(space: Any) -> None:
    image, reference = picture(1) / 2.0 + 60, picture(2, 31, 37) / 2.0 + 60

    def axes(pixels: ColorImage) -> NDArray[Any]:
        if space == "cielab":
            lab = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
            return lab.reshape(-1, 3)
        cones = np.array(
            [[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]]
        )
        x, y, z = np.log10(pixels.reshape(-1, 3) @ cones.T).T
        return np.stack([(x + y + z) / 3**0.5, (x + y - 2 * z) / 6**0.5, (x - y) / 2**0.5], 1)

    got, wanted = axes(reinhard(image, reference, space=space)), axes(reference)
    tolerance = 0.6 if space == "cielab" else 1e-5  # sRGB ends where CIELAB goes on
    np.testing.assert_allclose(got.mean(0), wanted.mean(0), atol=tolerance)
    np.testing.assert_allclose(got.std(0), wanted.std(0), atol=tolerance)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
def test_the_own_colours_change_nothing(method: str, kind: Any) -> None:
    image = picture(7).astype(kind)
    result = METHODS[method](image, image)
    assert result.dtype == kind
    np.testing.assert_allclose(result, image, atol=0 if kind is np.uint8 else 0.5)


def degenerate() -> dict[str, Array]:
    """Images whose colours lie on a point, a line or a plane."""
    ramp = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    flat = np.stack([ramp, ramp[::-1], np.full_like(ramp, 90)], -1)
    return {
        "black": np.zeros((6, 8, 3), np.uint8),
        "white": np.full((6, 8, 3), 255, np.uint8),
        "one colour": np.full((6, 8, 3), (30, 200, 90), np.uint8),
        "one pixel": np.full((1, 1, 3), 77, np.uint8),
        "grey": np.stack([ramp] * 3, -1),
        "plane": flat,
    }


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("first", degenerate())
@pytest.mark.parametrize("second", [*degenerate(), "picture"])
def test_degenerate_images(method: str, first: str, second: str) -> None:
    cases = {**degenerate(), "picture": picture(8)}
    image, reference = cases[first], cases[second]
    for one, other in ((image, reference), (reference, image)):
        floats = METHODS[method](one * 1.0, other * 1.0)
        assert np.isfinite(floats).all()
        assert np.abs(floats).max() < 1500
        result = METHODS[method](one, other)
        assert result.shape == one.shape
        assert result.dtype == np.uint8
        # As bright as the reference, where clipping and regraining leave it so.
        if method in ("mkl", "pca", "histogram", "idt") and np.ptp(floats) < 255:
            wide = 30 if method == "histogram" and np.ptp(one) < 9 else 2
            if np.ptp(one.reshape(-1, 3), 0).max() > 40:
                assert abs(floats.mean() - other.mean()) < max(wide, 0.2 * np.ptp(other))


@pytest.mark.parametrize("method", ["reinhard", "mkl", "cholesky", "pca", "luminance"])
def test_bands_and_types_make_no_difference(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image, reference = picture(9), picture(10)
    expected = METHODS[method](image * 1.0, reference * 1.0)
    assert np.abs(METHODS[method](image, reference) - expected.clip(0, 255)).max() <= 0.51
    monkeypatch.setattr(pixels_module, "BAND", 300)
    np.testing.assert_allclose(METHODS[method](image * 1.0, reference * 1.0), expected, atol=1e-6)


def test_keep_color() -> None:
    stylized, photo = picture(12, 96, 130), picture(13, 96, 130)
    luma = np.array([0.299, 0.587, 0.114])
    kept = keep_color(stylized, photo, "luminance")
    inside = ((kept > 0) & (kept < 255)).all(2)
    assert inside.mean() > 0.3
    assert np.abs(kept @ luma - stylized @ luma)[inside].max() <= 2
    chroma, wanted = ((i - (i @ luma)[..., None])[inside] for i in (kept, photo))
    assert np.abs(chroma - wanted).max() <= 2
    rest: dict[KeepColor, Method] = {"linear": mkl, "histogram": histogram}
    for how, one in rest.items():
        got = keep_color(stylized, photo, how)
        assert np.abs(got - one(stylized, photo).astype(float)).mean() < 2
        assert np.abs(got.mean((0, 1)) - photo.mean((0, 1))).max() < 4


def test_a_style_in_the_colours_of_photographs() -> None:
    style, photos = picture(14, 60, 70), [picture(15, 90, 80), picture(16, 300, 250) // 2]
    pixels = [p.reshape(-1, 3).astype(float) for p in photos]
    mean = np.mean([p.mean(0) for p in pixels], 0)
    # Both count alike, however large they are.
    covariance = np.mean([(p - mean).T @ (p - mean) / len(p) for p in pixels], 0)
    for how in ("linear", "histogram"):
        got = style_in_colors_of(style, photos, how).reshape(-1, 3).astype(float)
        assert np.abs(got.mean(0) - mean).max() < 3
        assert np.abs(got.std(0) / np.sqrt(covariance.diagonal()) - 1).max() < 0.1
    off = np.cov(style_in_colors_of(style, photos, "linear").reshape(-1, 3).T) - covariance
    assert np.abs(off).max() < 0.1 * covariance.max()
    got = style_in_colors_of(style, photos, "luminance").astype(float)
    assert (got == got[..., :1]).all()
    luma = np.array([0.299, 0.587, 0.114])
    assert got.mean() == pytest.approx(mean @ luma, abs=3)
    assert got[..., 0].std() == pytest.approx(np.sqrt(luma @ covariance @ luma), rel=0.1)
    # One of one colour, and grey photographs.
    got = style_in_colors_of(np.full_like(style, 9), [grey(photos[0])], "linear")
    assert np.abs(got - (photos[0] @ luma).mean()).max() <= 2


@settings(max_examples=30, deadline=None)
@given(SMALL, SMALL)
def test_distances_are_scipys(image: Array, reference: Array) -> None:
    for smoothing in (0.0, 0.5):
        expected = [
            scipy.stats.entropy(
                *(counts[k] + smoothing for counts in map(histograms, (image, reference)))
            )
            for k in range(3)
        ]
        np.testing.assert_allclose(kl_divergence(image, reference, smoothing), expected, atol=1e-9)
    moved = [
        scipy.stats.wasserstein_distance(image[..., k].ravel(), reference[..., k].ravel())
        for k in range(3)
    ]
    np.testing.assert_allclose(wasserstein(image, reference), moved, atol=1e-9)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.int32),
        np.full((4, 4, 3), np.nan),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_what_is_no_image(method: str, wrong: ColorImage) -> None:
    image = picture(0)
    for one, other in ((wrong, image), (image, wrong)):
        with pytest.raises(UsageError, match="image"):
            METHODS[method](one, other)
    with pytest.raises(UsageError, match="1 or more"):
        idt(image, image, iterations=0)


def test_rows_and_their_mean() -> None:
    image, reference = picture(0), picture(1)
    rows, pictures = compare_methods(image, reference, ["mkl", "histogram"])
    assert [row.method for row in rows] == ["source", "mkl", "histogram"] == list(pictures)
    np.testing.assert_array_equal(pictures["mkl"], mkl(image, reference))
    assert rows[2].wasserstein == tuple(wasserstein(histogram(image, reference), reference))
    other, _ = compare_methods(reference, image, ["mkl", "histogram"])
    mean = mean_rows([rows, other])
    assert mean[1].wasserstein[0] == pytest.approx(
        (rows[1].wasserstein[0] + other[1].wasserstein[0]) / 2
    )
    disjoint = np.full_like(image, 255)
    worst, _ = compare_methods(disjoint, np.zeros_like(image), [])
    assert worst[0].kl == (np.inf,) * 3
    assert as_json(worst)[0]["kl"] == [None] * 3
    assert "inf" in as_csv(worst)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["color", *map(str, arguments)])


_SEEDED = ("--seed", "2", "--iterations", "3")


def test_the_command_gives_other_colours(tmp_path: Path) -> None:
    image, reference, out = picture(0), picture(1), tmp_path / "out.png"
    alpha = np.arange(image[..., 0].size, dtype=np.int64).reshape(image.shape[:2]) % 256
    save_image(tmp_path / "a.png", image, alpha=alpha.astype(np.uint8))
    save_image(tmp_path / "b.png", reference)
    for words, options, method in (
        ((), ("--method", "mkl"), mkl(image, reference)),
        (("transfer",), ("--method", "reinhard", "--space", "cielab"), None),
        (
            (),
            ("--seed", "2", "--iterations", "3"),
            idt_regrain(image, reference, seed=2, iterations=3),
        ),
    ):
        result = run(*words, tmp_path / "a.png", tmp_path / "b.png", "--out", out, *options)
        assert result.exit_code == 0, result.output
        written = load_picture(out)
        assert written.alpha is not None
        np.testing.assert_array_equal(written.alpha, alpha)
        expected = reinhard(image, reference, space="cielab") if method is None else method
        np.testing.assert_array_equal(written.image, expected)


def test_the_command_compares(tmp_path: Path) -> None:
    image, reference = picture(0), picture(1)
    save_image(tmp_path / "a.png", image)
    save_image(tmp_path / "b.png", reference)
    out = tmp_path / "new" / "folder"
    result = run("compare", tmp_path / "a.png", tmp_path / "b.png", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["method"] for row in rows] == ["source", *METHODS]
    assert json.loads((out / "comparison.json").read_text()) == rows
    for name, method in METHODS.items():
        np.testing.assert_array_equal(load_image(out / f"{name}.png"), method(image, reference))
    assert load_image(out / "comparison.png").shape[0] > 500
    lines = (out / "comparison.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["method", "source", *METHODS]
    assert float(lines[4].split(",")[4]) == pytest.approx(rows[3]["wasserstein"][0], rel=1e-4)
    for suffix in ("md", "txt"):
        assert f"{rows[3]['wasserstein'][0]:.2f}" in (out / f"comparison.{suffix}").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a.png", "missing.png", "--out", "c.png"), "does not exist"),
        (("a.png", "text.png", "--out", "c.png"), "not an image"),
        (("a.png", "b.png", "--out", "a.png"), "overwrite"),
        (("a.png", "b.png", "--out", "c.xyz"), "suffix"),
        (("a.png", "b.png", "--out", "c.png", "--method", "mkl", "--seed", "1"), "methods idt"),
        (("a.png", "b.png", "--out", "c.png", "--iterations", "0"), "1 or more"),
        (("a.png", "b.png", "--out", "c.png", "--quality", "0"), "quality"),
        (("a.png", "b.png", "--out", "c.png", "--method", "magic"), "magic"),
        (("compare", "a.png", "missing.png", "--out", "d"), "does not exist"),
        (("compare", "a.png", "b.png", "--out", "text.png"), "text.png"),
        (("compare", "a.png", "b.png", "--out", "d", "--json", "--markdown"), "choose one"),
    ],
)
def test_bad_input(
    arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_image("a.png", picture(0))
    save_image("b.png", picture(1))
    Path("text.png").write_text("no image")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    result = run(*arguments)
    assert result.exit_code != 0
    assert said in result.output
    assert "Traceback" not in result.output
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
