"""Map the four top folders to packages, rooms included; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

FOLDERS = {"nst": "nst", "nst.models": "models", "nst.train": "train", "nst.infer": "infer"}

setup(
    package_dir=FOLDERS,
    packages=[
        package
        for name, folder in FOLDERS.items()
        for package in (name, *(f"{name}.{room}" for room in find_packages(folder)))
    ],
)
