"""What the base install must do without torch.

Runs beside tiny.onnx, wave.jpg and modules.txt, which lists the modules of the source tree.
"""

import importlib
import importlib.util
import pkgutil
import subprocess
from pathlib import Path

from PIL import Image

import nst
from nst.errors import TRAIN_PACKAGES

assert importlib.util.find_spec("torch") is None, "the base install brought torch"
assert "site-packages" in str(nst.__file__), nst.__file__


# Every room is in the wheel, and every module in it loads but for want of the extra's packages.
names = {module.name for module in pkgutil.walk_packages(nst.__path__, "nst.")}
expected = set(Path("modules.txt").read_text().split())
assert names == expected, names ^ expected
for name in sorted(names - {"nst.__main__"}):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if name.startswith("nst.infer") or str(error.name).partition(".")[0] not in TRAIN_PACKAGES:
            raise


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


bench = ["nst", "bench", "tiny.onnx", "--reference", "none", "--size", "64x48", "--seconds", "0.1"]
for command in (
    ["nst", "--help"],
    ["nst", "image", "--help"],
    ["nst", "video", "--help"],
    ["nst", "webcam", "--help"],
    ["nst-train", "--help"],
    ["nst", "info"],
    bench,
):
    done = run(*command)
    assert done.returncode == 0, done.stderr

done = run("nst", "image", "wave.jpg", "--style", "tiny.onnx", "--out", "painted.png")
assert done.returncode == 0, done.stderr
assert Image.open("painted.png").size == Image.open("wave.jpg").size

# What needs the extra says so in one line.
for command in (
    ["nst-train", "--style", "wave.jpg"],
    ["nst", "optimize", "wave.jpg", "--style", "wave.jpg", "--out", "a.png"],
    ["nst", "score", "tiny.onnx", "--style", "wave.jpg"],
    ["nst", "export", "a.safetensors"],
    ["nst", "inspect", "tiny.onnx"],
    ["nst", "flicker", "tiny.onnx"],
):
    done = run(*command)
    assert done.returncode == 1, done
    assert "pip install 'nst[train]'" in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert not Path("runs").exists()

bases = Path(nst.__file__).parent / "models" / "base"
assert {path.stem for path in bases.glob("*.safetensors")} >= {"balanced", "fast"}, bases

with nst.Stylizer("tiny.onnx") as stylizer:
    image = nst.load_image("wave.jpg")
    assert stylizer(image, strength=0.5).shape == image.shape
print(f"the wheel of nst {nst.__version__} repaints without torch")
