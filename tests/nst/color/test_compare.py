"""The comparison of colour transfer methods: its distances against SciPy's, and its tables."""

from __future__ import annotations

import numpy as np
import scipy.stats
from color_images import colorful
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nst.color.compare import as_csv, as_json, compare_methods, kl_divergence, wasserstein
from nst.color.pixels import histograms
from nst.color.transfer import histogram, mkl
from nst.io.images import Array

SMALL = hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3)))


@settings(max_examples=30)
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


def test_the_rows_of_a_comparison() -> None:
    image, reference = colorful(0), colorful(1)
    rows, pictures = compare_methods(image, reference, ["mkl", "histogram"])
    assert [row.method for row in rows] == ["source", "mkl", "histogram"] == list(pictures)
    np.testing.assert_array_equal(pictures["mkl"], mkl(image, reference))
    assert rows[2].wasserstein == tuple(wasserstein(histogram(image, reference), reference))
    disjoint = np.full_like(image, 255)
    worst, _ = compare_methods(disjoint, np.zeros_like(image), [])
    assert worst[0].kl == (np.inf,) * 3
    assert as_json(worst)[0]["kl"] == [None] * 3
    assert "inf" in as_csv(worst)
