"""Training content: reproducible, natural in its statistics, patient with bad files."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from nst.errors import NstError
from nst.io.images import Array, save_image
from nst.io.sample_images import HELD_OUT_PHOTOGRAPHS, TRAINING_PHOTOGRAPHS, held_out
from nst.train.content.dataset import BuiltinContent, Content, FolderContent, batches
from nst.train.content.scenes import draw_scene, random_crop, random_tint


def first(content: Content, count: int, workers: int) -> list[Array]:
    def plan(step: int) -> tuple[int, int]:
        return (4, 64) if step < 2 else (2, 96)

    with closing(batches(content, plan, workers)) as stream:
        return list(islice(stream, count))


def test_batches_depend_on_the_seed_not_on_the_threads() -> None:
    one = first(BuiltinContent(seed=5), 4, 1)
    many = first(BuiltinContent(seed=5), 4, 4)
    other = first(BuiltinContent(seed=6), 4, 1)
    assert [b.shape for b in one] == [(4, 64, 64, 3)] * 2 + [(2, 96, 96, 3)] * 2
    for a, b, c in zip(one, many, other, strict=True):
        assert a.dtype == np.uint8
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()


def test_no_two_crops_are_alike() -> None:
    crops = np.concatenate(first(BuiltinContent(seed=1), 2, 1))
    flat = crops.reshape(len(crops), -1).astype(float)
    distances = np.abs(flat[:, None] - flat[None]).mean(2) + 255 * np.eye(len(flat))
    assert distances.min() > 5


def test_held_out_photographs_are_never_trained_on() -> None:
    assert not set(HELD_OUT_PHOTOGRAPHS) & set(TRAINING_PHOTOGRAPHS)
    assert len(held_out()) == len(HELD_OUT_PHOTOGRAPHS) == 2
    assert all(p.ndim == 3 and min(p.shape[:2]) >= 256 for p in held_out())


def test_scenes_have_the_spectrum_of_natural_images() -> None:
    """Power falls with frequency as about f⁻² (Field 1987; Lee, Mumford and Huang 2001)."""
    rng = np.random.default_rng(0)
    photographs = BuiltinContent(0)._colored
    power = np.zeros((128, 128))
    for _ in range(12):
        scene = draw_scene(photographs, 128, rng)
        assert scene.shape == (128, 128, 3)
        grey = scene.mean(2)
        window = np.hanning(128)[:, None] * np.hanning(128)
        power += np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128)))
    band = (frequency > 0.03) & (frequency < 0.3)
    slope = np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0]
    assert -3.0 < slope < -1.3


def test_random_crop_covers_the_photograph_at_every_zoom() -> None:
    y, x = np.mgrid[:100, :150]
    image = np.stack([x, y, 0 * x], 2).astype(np.uint8)
    rng = np.random.default_rng(0)
    crops = np.stack([random_crop(image, 80, 80, rng) for _ in range(100)])
    assert crops[..., 0].min() < 5
    assert crops[..., 0].max() > 144
    flipped = crops[:, 0, 0, 0] > crops[:, 0, -1, 0]
    assert 0.3 < flipped.mean() < 0.7
    half = random_crop(image, 40, 80, rng)
    assert 30 < np.ptp(half[..., 1]) < 55  # half the side sees half the picture


def test_tint_is_mild_and_keeps_structure(photograph: Array) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        tinted = random_tint(photograph, rng)
        assert tinted.shape == photograph.shape
        correlation = np.corrcoef(tinted.mean(2).ravel(), photograph.mean(2).ravel())[0, 1]
        assert correlation > 0.9


@pytest.fixture
def mixed_folder(tmp_path: Path, photograph: Array, bad_images: dict[str, Path]) -> Path:
    """Good images of every kind among bad ones, nested."""
    folder = tmp_path / "content"
    save_image(folder / "good.png", photograph)
    save_image(folder / "deep" / "er" / "good.jpg", photograph[::-1])
    Image.fromarray(photograph).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(photograph[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    save_image(folder / "tiny.png", photograph[:20, :20])
    (folder / "truncated.jpg").write_bytes(bad_images["truncated"].read_bytes())
    (folder / "text.jpeg").write_text("no image")
    (folder / "notes.txt").write_text("not even by name")
    (folder / ".hidden.png").write_text("")
    return folder


def test_a_folder_skips_and_names_what_it_cannot_use(mixed_folder: Path) -> None:
    content = FolderContent(mixed_folder, seed=0)
    crops = [content.crop(i, 64) for i in range(40)]
    assert all(crop.shape == (64, 64, 3) for crop in crops)
    assert {p.name for p in content.skipped} == {"tiny.png", "truncated.jpg", "text.jpeg"}
    assert all(p.name in why for p, why in content.skipped.items())


def test_a_folder_is_reproducible_whatever_its_bad_files(mixed_folder: Path) -> None:
    one = first(FolderContent(mixed_folder, seed=2), 4, 1)
    many = first(FolderContent(mixed_folder, seed=2), 4, 3)
    for a, b in zip(one, many, strict=True):
        np.testing.assert_array_equal(a, b)


@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(0, 2**32), resumed_at=st.integers(0, 25))
def test_crops_do_not_depend_on_what_was_loaded_before(
    mixed_folder: Path, seed: int, resumed_at: int
) -> None:
    whole = FolderContent(mixed_folder, seed)
    expected = [whole.crop(i, 64) for i in range(30)][resumed_at:]
    resumed = FolderContent(mixed_folder, seed)
    with ThreadPoolExecutor(4) as pool:
        crops = list(pool.map(lambda i: resumed.crop(i, 64), range(resumed_at, 30)))
    backwards = FolderContent(mixed_folder, seed)
    reverse = [backwards.crop(i, 64) for i in range(29, resumed_at - 1, -1)]
    np.testing.assert_array_equal(crops, expected)
    np.testing.assert_array_equal(reverse[::-1], expected)


def test_batches_go_on_where_a_run_stopped(mixed_folder: Path) -> None:
    def plan(step: int) -> tuple[int, int]:
        return (4, 64) if step < 2 else (3, 96)

    with closing(batches(FolderContent(mixed_folder, 3), plan)) as stream:
        whole = list(islice(stream, 5))
    for step, image in [(1, 4), (2, 8), (4, 14)]:
        content = FolderContent(mixed_folder, 3)
        with closing(batches(content, plan, 2, start_step=step, start_image=image)) as stream:
            for expected, batch in zip(whole[step:], stream, strict=False):
                np.testing.assert_array_equal(batch, expected)


@pytest.mark.parametrize("world", [2, 3, 5])
def test_processes_share_a_batch(mixed_folder: Path, world: int) -> None:
    expected = first(FolderContent(mixed_folder, 4), 3, 1)
    for rank in range(world):
        content = FolderContent(mixed_folder, 4)
        plan = ((4, 64), (4, 64), (2, 96), (2, 96), (2, 96)).__getitem__
        with closing(batches(content, plan, rank=rank, world=world)) as stream:
            for whole, part in zip(expected, stream, strict=False):
                np.testing.assert_array_equal(part, whole[rank::world])


def test_a_fingerprint_tells_what_crops_come_from(mixed_folder: Path) -> None:
    print_of = FolderContent(mixed_folder, 1).fingerprint
    assert 8 <= len(print_of) <= 32
    again = FolderContent(mixed_folder, 1)
    again.crop(3, 64)
    assert again.fingerprint == print_of
    assert FolderContent(mixed_folder, 2).fingerprint != print_of
    assert FolderContent(mixed_folder, 1, side=128).fingerprint != print_of
    (mixed_folder / "notes.txt").write_text("no image, so no matter")
    assert FolderContent(mixed_folder, 1).fingerprint == print_of
    (mixed_folder / "text.jpeg").write_text("another size")
    changed = FolderContent(mixed_folder, 1).fingerprint
    (mixed_folder / "text.jpeg").rename(mixed_folder / "renamed.jpeg")
    assert len({print_of, changed, FolderContent(mixed_folder, 1).fingerprint}) == 3
    builtin = {BuiltinContent(1).fingerprint, BuiltinContent(2).fingerprint}
    assert builtin == {BuiltinContent(1).fingerprint, BuiltinContent(2).fingerprint}
    assert len(builtin) == 2


def test_an_epoch_shows_every_image_once(tmp_path: Path) -> None:
    for i in range(7):
        save_image(tmp_path / f"{i}.png", np.full((70, 70, 3), 30 * i, np.uint8))
    content = FolderContent(tmp_path, seed=0)
    for epoch in range(3):
        values = sorted(int(content.crop(7 * epoch + i, 64)[0, 0, 0]) for i in range(7))
        assert values == [30 * i for i in range(7)]


def test_useless_folders(tmp_path: Path) -> None:
    with pytest.raises(NstError, match="not a folder"):
        FolderContent(tmp_path / "nowhere")
    with pytest.raises(NstError, match="no usable image"):
        FolderContent(tmp_path)
    (tmp_path / "bad.jpg").write_text("x")
    with pytest.raises(NstError, match="1 unreadable or tiny"):
        FolderContent(tmp_path)


def test_opencv_has_one_thread_while_crops_are_prepared() -> None:
    before = cv2.getNumThreads()
    seen = []

    class Watching(BuiltinContent):
        def crop(self, index: int, side: int) -> Array:
            crop = super().crop(index, side)
            time.sleep(0.05)  # other workers are still at it when the generator is closed
            seen.append(cv2.getNumThreads())
            return crop

    with closing(batches(Watching(), lambda _: (2, 64), 2)) as stream:
        next(stream)
    assert set(seen) == {1}
    assert cv2.getNumThreads() == before
