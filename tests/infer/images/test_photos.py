"""`nst image`: files, folders and pipes, in a process of its own where streams matter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
from PIL import Image
from typer.testing import CliRunner

from nst.cli.app import app
from nst.color.transfer import keep_color
from nst.config import KeepColor
from nst.errors import ImageError, NstError, UsageError
from nst.infer.images.photos import plan_outputs
from nst.infer.runtime.stylizer import Stylizer
from nst.io.images import Array, load_image, load_picture, save_image


def nst(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stderr


def test_one_file(tmp_path: Path, model_path: Path, photograph: Array) -> None:
    save_image(tmp_path / "a.png", photograph)
    target = tmp_path / "new" / "b.png"
    status, said = nst("image", tmp_path / "a.png", "--style", model_path, "--out", target)
    assert status == 0, said
    assert "style Tiny on " in said
    with Stylizer(model_path) as stylizer:
        np.testing.assert_array_equal(load_image(target), stylizer(photograph))


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "1", "LA", "RGB", "RGBA", "I;16"])
def test_a_tiff_of_any_mode_becomes_a_tiff_that_opens(
    mode: str, tmp_path: Path, model_path: Path, photograph: Array
) -> None:
    """A TIFF's EXIF is the table of its layout, which must not follow it into another file."""
    if mode == "I;16":
        Image.fromarray(photograph[..., 0].astype(np.uint16) * 257).save(tmp_path / "a.tif")
    else:
        icc = bytes(70_000)  # too large for a JPEG's EXIF, and no profile at all
        Image.fromarray(photograph).convert(mode).save(tmp_path / "a.tif", icc_profile=icc)
    for suffix in (".tif", ".jpg", ".png"):
        target = tmp_path / f"b{suffix}"
        status, said = nst("image", tmp_path / "a.tif", "--style", model_path, "--out", target)
        assert status == 0, said
        assert load_image(target).shape == photograph.shape
        assert "icc_profile" not in Image.open(target).info


def test_a_second_run_leaves_the_results_of_the_first_alone(
    tmp_path: Path, model_path: Path, photograph: Array
) -> None:
    save_image(tmp_path / "a.png", photograph)
    for _ in range(2):
        assert nst("image", tmp_path, "--style", model_path, "--out", tmp_path / "painted")[0] == 0
    assert {p.name for p in tmp_path.rglob("*")} == {"a.png", "painted"}
    assert len(list(tmp_path.rglob("a.png"))) == 2


def test_strength_zero_is_the_photograph(
    tmp_path: Path, model_path: Path, photograph: Array
) -> None:
    save_image(tmp_path / "a.png", photograph)
    arguments = ("--style", model_path, "--out", tmp_path / "b.png", "--strength", 0)
    assert nst("image", tmp_path / "a.png", *arguments)[0] == 0
    np.testing.assert_array_equal(load_image(tmp_path / "b.png"), photograph)


@pytest.mark.parametrize("how", get_args(KeepColor))
def test_keeps_the_colours(
    how: KeepColor, tmp_path: Path, model_path: Path, photograph: Array
) -> None:
    save_image(tmp_path / "a.png", photograph)
    target = tmp_path / "b.png"
    options = ("--style", model_path, "--out", target, "--keep-color", how)
    status, said = nst("image", tmp_path / "a.png", *options, "--strength", 0.9)
    assert status == 0, said
    with Stylizer(model_path) as stylizer:
        stylized = stylizer(photograph, 0.9)
    np.testing.assert_array_equal(load_image(target), keep_color(stylized, photograph, how))
    assert (load_image(target) != stylized).any()
    assert nst("image", tmp_path / "a.png", *options, "--strength", 0)[0] == 0
    off = load_image(target).astype(int) - photograph
    assert np.abs(off).max() <= 1
    status, said = nst("image", tmp_path / "a.png", *options[:-1], "all")
    assert status == 2


def test_a_model_that_paints_no_colours_keeps_those_of_the_photograph(
    tmp_path: Path, model_path: Path, photograph: Array
) -> None:
    model = onnx.load(model_path)
    onnx.helper.set_model_props(model, {"keep_color": "luminance"})
    onnx.save(model, tmp_path / "grey.onnx")
    save_image(tmp_path / "a.png", photograph)
    options = ("--style", tmp_path / "grey.onnx", "--out", tmp_path / "b.png")
    with Stylizer(model_path) as stylizer:
        stylized = stylizer(photograph)
    for given, expected in (
        ((), keep_color(stylized, photograph, "luminance")),
        (("--keep-color", "linear"), keep_color(stylized, photograph, "linear")),
        (("--keep-color", "none"), stylized),
    ):
        assert nst("image", tmp_path / "a.png", *options, *given)[0] == 0
        np.testing.assert_array_equal(load_image(tmp_path / "b.png"), expected)


def test_orientation_alpha_and_exif_are_kept(
    tmp_path: Path, model_path: Path, photograph: Array
) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a cat"
    alpha = np.full(photograph.shape[:2], 80, np.uint8)
    picture = Image.fromarray(np.dstack([photograph, alpha]))
    picture.save(tmp_path / "a.png", exif=exif)
    nst("image", tmp_path / "a.png", "--style", model_path, "--out", tmp_path / "b.png")
    out = load_picture(tmp_path / "b.png")
    assert out.image.shape == (128, 96, 3)  # turned upright
    assert out.alpha is not None
    assert (out.alpha == 80).all()
    kept = Image.open(tmp_path / "b.png").getexif()
    assert kept.get(0x0112, 1) == 1
    assert kept[0x010E] == "a cat"


def test_a_folder_keeps_its_structure_and_survives_a_bad_file(
    tmp_path: Path, model_path: Path, photograph: Array
) -> None:
    save_image(tmp_path / "in" / "a.jpg", photograph)
    save_image(tmp_path / "in" / "deep" / "b.PNG", photograph)
    Image.fromarray(photograph).save(tmp_path / "in" / "c.gif")
    (tmp_path / "in" / "bad.jpg").write_text("x")
    (tmp_path / "in" / "notes.txt").write_text("x")
    status, said = nst("image", tmp_path / "in", "--style", model_path, "--out", tmp_path / "out")
    assert status == 1
    assert "bad.jpg" in said
    assert "1 of 4 images failed" in said
    found = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")}
    assert found == {"a.jpg", "deep/b.PNG", "c.png"}


def test_pipes(model_path: Path, tmp_path: Path, photograph: Array) -> None:
    save_image(tmp_path / "a.png", photograph)
    command = [sys.executable, "-m", "nst", "image", "-", "--style", str(model_path), "--out", "-"]
    data = (tmp_path / "a.png").read_bytes()
    done = subprocess.run(command, input=data, capture_output=True, timeout=120, check=True)
    with Stylizer(model_path) as stylizer:
        np.testing.assert_array_equal(load_image(done.stdout), stylizer(photograph))
    bad = subprocess.run(command, input=b"", capture_output=True, timeout=120, check=False)
    assert bad.returncode == 1
    assert bad.stdout == b""
    assert b"Traceback" not in bad.stderr


def test_plans(tmp_path: Path, photograph: Array) -> None:
    a, b = tmp_path / "a.png", tmp_path / "sub" / "a.png"
    save_image(a, photograph)
    save_image(b, photograph)
    assert plan_outputs([str(a)], "x.jpg") == [(str(a), "x.jpg")]
    assert plan_outputs([str(a)], "folder") == [(str(a), "folder/a.png")]
    assert plan_outputs(["-"], "-") == [("-", "-")]
    with pytest.raises(UsageError, match="one file for several"):
        plan_outputs([str(a), str(b)], "x.jpg")
    with pytest.raises(UsageError, match="would both become"):
        plan_outputs([str(a), str(b)], "folder")
    with pytest.raises(UsageError, match="overwrite"):
        plan_outputs([str(a)], str(a))
    with pytest.raises(UsageError, match="overwrite"):
        plan_outputs([str(tmp_path)], str(tmp_path))
    with pytest.raises(UsageError, match="one image"):
        plan_outputs([str(a), str(b)], "-")
    with pytest.raises(ImageError, match=r"\.xyz"):
        plan_outputs([str(a)], "x.xyz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NstError, match="holds no images"):
        plan_outputs([str(tmp_path / "empty")], "folder")
