#!/usr/bin/env bash
# onnxconverter-common 1.16.0: convert_float_to_float16 makes an invalid model of one that casts to
# float.
#
# A model for images takes bytes, casts them to FLOAT and convolves. The converter turns weights and
# tensors into FLOAT16, but the Cast still says `to=FLOAT`. So `onnx.checker` finds two element types
# for the Cast's output, and ONNX Runtime 1.30.0 refuses to load the file.
# One expects the converter to change the Cast, or to leave it and cast its output.
#
# Output seen:
#   original: [0, 0, 0, 3, 3, 3]
#   casts after conversion: ['FLOAT', 'UINT8']
#   checker: Inferred elem type differs from existing elem type: (1) vs (10)
#   runtime: Type (tensor(float16)) of output arg (f) of node (f) does not match expected type (tensor(float)).
#
# The script fails if this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
    onnx==1.22.0 onnxruntime==1.30.0 onnxconverter-common==1.16.0
cat >"$folder/show.py" <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxconverter_common.float16 import convert_float_to_float16

node = helper.make_node
nodes = [
    node("Transpose", ["image"], ["t"], "t", perm=[0, 3, 1, 2]),
    node("Cast", ["t"], ["f"], "f", to=TensorProto.FLOAT),
    node("Conv", ["f", "weight"], ["c"], "c"),
    node("Cast", ["c"], ["u"], "u", to=TensorProto.UINT8),
    node("Transpose", ["u"], ["out"], "out", perm=[0, 2, 3, 1]),
]
sides = ["n", "h", "w", 3]
graph = helper.make_graph(
    nodes,
    "bytes",
    [helper.make_tensor_value_info("image", TensorProto.UINT8, sides)],
    [helper.make_tensor_value_info("out", TensorProto.UINT8, sides)],
    [numpy_helper.from_array(np.full((3, 3, 1, 1), 0.25, np.float32), "weight")],
)
opset = [helper.make_opsetid("", 18)]
model = helper.make_model(graph, opset_imports=opset, ir_version=10)
onnx.checker.check_model(model, full_check=True)
cpu = {"providers": ["CPUExecutionProvider"]}
image = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
session = onnxruntime.InferenceSession(model.SerializeToString(), **cpu)
print("original:", session.run(None, {"image": image})[0].ravel()[:6].tolist())

half = convert_float_to_float16(model)
casts = [n.attribute[0].i for n in half.graph.node if n.op_type == "Cast"]
print("casts after conversion:", [TensorProto.DataType.Name(kind) for kind in casts])
try:
    onnx.checker.check_model(half, full_check=True)
    raise SystemExit("the checker takes the model: the behaviour has changed")
except onnx.shape_inference.InferenceError as error:
    print("checker:", str(error).strip().rpartition("] ")[2])
try:
    onnxruntime.InferenceSession(half.SerializeToString(), **cpu)
except Exception as error:
    print("runtime:", str(error).rpartition("Type Error: ")[2])
else:
    raise SystemExit("ONNX Runtime loads the model: the behaviour has changed")
PYTHON
"$folder/venv/bin/python" "$folder/show.py"
