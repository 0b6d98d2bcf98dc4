"""Export an untrained network, for `check_wheel.py`: python make_model.py OUT.onnx"""

import sys
from pathlib import Path

from nst.models.transformer import TransformerConfig, TransformerNet
from nst.train.export.export import export_onnx

export_onnx(TransformerNet(TransformerConfig(width=8, blocks=1)), Path(sys.argv[1]), {})
