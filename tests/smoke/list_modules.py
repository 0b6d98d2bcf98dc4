"""Print the name of every module in the source tree, for `check_wheel.py`."""

from pathlib import Path

ROOT = Path(__file__).parents[2]

for folder in ("nst", "models", "train", "infer"):
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts if folder == "nst" else ("nst", *parts)).removesuffix(".__init__")
        if name != "nst":
            print(name)
