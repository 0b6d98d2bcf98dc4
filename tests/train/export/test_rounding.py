"""Integer weights: what comes out of a convolution, against plain rounding and against torch."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from nst.io.images import Array
from nst.train.export.rounding import Inputs, observe, round_weights

MOST = 63


def scale_of(weight: np.ndarray) -> np.ndarray:
    return (np.abs(weight).max((1, 2, 3)) / MOST).astype(np.float32)


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_inputs_that_know_nothing_of_each_other_are_rounded_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(4, 3, 2, 2)).astype(np.float32)
    scale, inputs = scale_of(weight), Inputs(np.zeros(12), np.diag(rng.uniform(0.5, 2, 12)))
    rounded, shift = round_weights(weight, scale, inputs, 0, MOST)
    exact = weight.astype(np.float64) / scale[:, None, None, None]
    np.testing.assert_array_equal(rounded, np.rint(exact))
    np.testing.assert_array_equal(shift, 0)


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_inputs_that_go_together_make_up_for_errors(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(500, 5))
    seen = hidden @ rng.normal(size=(5, 36)) + 0.1 * rng.normal(size=(500, 36)) + 3
    weight = rng.normal(size=(8, 4, 3, 3)).astype(np.float32)
    scale = scale_of(weight)
    inputs = Inputs(seen.mean(0), np.cov(seen.T, bias=True))
    rounded, shift = round_weights(weight, scale, inputs, 1e-4, MOST)
    assert np.abs(rounded).max() <= MOST

    def off(integers: np.ndarray) -> np.ndarray:
        change = integers * scale[:, None, None, None].astype(np.float64) - weight
        return seen @ change.reshape(8, -1).T

    np.testing.assert_allclose(off(rounded).mean(0), shift, rtol=1e-6, atol=1e-9)
    plain = np.rint(weight / scale[:, None, None, None])
    # What is left without the shift.
    assert np.linalg.norm(off(rounded).std(0)) < 0.7 * np.linalg.norm(off(plain).std(0))


def test_what_a_convolution_sees(photograph: Array) -> None:
    weight = np.random.default_rng(0).normal(size=(5, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["image"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["first"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "w"], ["y"]),
        helper.make_node("Conv", ["x", "w"], ["z"], strides=[4, 4]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, None, None, 3])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "yz"]
    graph = helper.make_graph(nodes, "g", [image], outputs, [numpy_helper.from_array(weight, "w")])
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    photographs = [np.ascontiguousarray(photograph[:, :60]), photograph[:, 40:100].copy()] * 20
    found = observe(model, nodes[2:], photographs)
    assert set(found) == {"w"}
    inside = (torch.tensor(p).permute(2, 0, 1)[None].double() for p in photographs[:2])
    patches = torch.cat([F.unfold(x, 3)[0].T for x in inside]).numpy()
    deviation = patches.std()
    np.testing.assert_allclose(found["w"].mean, patches.mean(0), atol=0.1 * deviation)
    expected = np.cov(patches.T, bias=True)
    np.testing.assert_allclose(found["w"].covariance, expected, atol=0.1 * deviation**2)
