"""Draw ``wave.jpg``, an original picture in the manner of an ukiyo-e woodblock print.

A great wave, striped along its curl and fringed with claws of foam, breaks from the
left over a small snow-capped cone; a second wave follows at the lower right, swells
roll in front, and wind-drawn bands, ringed clouds and a red sun fill the sky. Few
colours, dark contours and stripes at many widths make it a good style image.
"""

from pathlib import Path

import cv2
import numpy as np

W, H, S = 1200, 800, 3  # picture size and supersampling factor
INK, INDIGO, MID = (24, 36, 66), (38, 72, 120), (92, 136, 168)
PALE, CREAM, OCHRE = (166, 196, 202), (243, 233, 208), (222, 190, 138)
HAZE, RED, PAPER = (226, 212, 178), (186, 78, 50), (214, 200, 168)
RNG = np.random.default_rng(7)
Array = np.ndarray
Color = tuple[int, int, int]


def points(text: str) -> Array:
    return np.array([pair.split(",") for pair in text.split()], float)


def resample(p: Array, n: int) -> Array:
    """The same path with n points evenly spaced along it."""
    s = np.r_[0, np.cumsum(np.hypot(*np.diff(p, axis=0).T))]
    t = np.linspace(0, s[-1], n)
    return np.column_stack([np.interp(t, s, p[:, i]) for i in (0, 1)])


def curve(text: str) -> Array:
    """A smooth (Catmull-Rom) curve of 400 points through "x,y x,y ..."."""
    p = points(text)
    p = np.vstack([2 * p[0] - p[1], p, 2 * p[-1] - p[-2]])
    u = np.linspace(0, 1, 60)[:, None]
    segments = []
    for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:], strict=True):
        k2, k3 = 2 * a - 5 * b + 4 * c - d, 3 * b - a - 3 * c + d
        segments.append(b + 0.5 * ((c - a) * u + k2 * u**2 + k3 * u**3))
    return resample(np.vstack(segments), 400)


def between(a: Array, b: Array, s: Array, t: Array) -> Array:
    """Points a fraction ``s`` of the way from curve a to curve b, at parameter ``t``."""
    i, k = np.clip(t, 0, 1) * (len(a) - 1), np.arange(len(a))
    pa = np.column_stack([np.interp(i, k, a[:, j]) for j in (0, 1)])
    pb = np.column_stack([np.interp(i, k, b[:, j]) for j in (0, 1)])
    return pa + (pb - pa) * np.broadcast_to(s, t.shape)[:, None]


def disc(p: Array, r: float) -> Array:
    a = np.linspace(0, 2 * np.pi, 48)
    return p + r * np.column_stack([np.cos(a), np.sin(a)])


def fill(img: Array, p: Array, color: Color) -> None:
    cv2.fillPoly(img, [np.round(p * S * 16).astype(np.int32)], color, 8, 4)


def stroke(img: Array, p: Array, color: Color, w: float, closed: bool = False) -> None:
    path = np.round(p * S * 16).astype(np.int32)
    cv2.polylines(img, [path], closed, color, round(w * S), 8, 4)


def shape(img: Array, p: Array, color: Color) -> None:
    fill(img, p, color)
    stroke(img, p, INK, 2.5, True)


def union(img: Array, polygons: list[Array], color: Color) -> None:
    """Fill overlapping polygons as one shape with a single contour."""
    for p in polygons:
        stroke(img, p, INK, 5, True)
    for p in polygons:
        fill(img, p, color)


def sheet(img: Array, a: Array, b: Array, n: int, ground: Color, fade: float) -> None:
    """Water between two curves: n tapering stripes, the odd ones end near ``fade``."""
    shape(img, np.vstack([a, b[::-1]]), ground)
    tones = [CREAM, INK, PALE, MID, CREAM, INK, MID, PALE]
    for i in range(n):
        s, long = (i + 0.5) / n, i % 2 == 0
        t0 = RNG.uniform(-0.2, 0.02)
        t1 = RNG.uniform(0, 0.25) + (1.05 if long else fade - 0.1)
        t = np.linspace(t0, t1, 200)
        taper = np.clip(np.minimum((t - t0) / 0.2, (t1 - t) / 0.5), 0, 1) ** 0.6
        wide = 0.36 + 0.24 * np.clip(2 * t - 0.9, 0, 1) if long else 0.26
        half = wide / n * taper * RNG.uniform(0.9, 1.15)
        rim = between(a, b, s - half, t), between(a, b, s + half, t)[::-1]
        shape(img, np.vstack(rim), tones[i % len(tones)])
        if long:
            hair = np.linspace(t0 + 0.1, t1 - 0.4, 150)
            stroke(img, between(a, b, np.array(s), hair), INDIGO, 1.8)


def claw(p: Array, angle: float, size: float, curl: float, depth: int = 0) -> list:
    """Outline and spine of a hooked finger of foam, then of its side fingers."""
    u = np.linspace(0, 1, 28)
    head = angle + curl * u**1.7
    step = np.column_stack([np.cos(head), np.sin(head)])
    spine = p + np.cumsum(step, axis=0) * size / len(u)
    half = size * 0.125 * (1 - u) ** 0.7 * (1 + 0.5 * np.sin(np.pi * u))
    side = step[:, ::-1] * [-1, 1] * (half * np.sqrt(np.minimum(1, 7 * u)))[:, None]
    parts = [(np.vstack([spine + side, (spine - side)[::-1]]), spine)]
    if depth:
        for k, scale in ((10, 0.5), (17, 0.44)):
            turn = head[k] - np.sign(curl) * 0.95
            parts += claw(spine[k], turn, size * scale, curl * 1.35, depth - 1)
    return parts


def foam(img: Array, path: Array, size: float, form: tuple[float, ...]) -> None:
    """Foam along a path: claws on its left side, ``under`` as long on its right."""
    lean, curl, under = form
    length = np.hypot(*np.diff(path, axis=0).T).sum()
    for tone, big, gap in ((PALE, 1.3, 0.5), (CREAM, 1.0, 0.42)):
        n = 3 * int(length / (gap * size)) + 6
        belt = resample(path, n)
        swell = np.abs(np.sin(np.pi * np.linspace(0, 1, n) ** 1.7)) ** 0.5
        grow = size * big * (0.22 + 0.78 * swell)
        out = np.arctan2(*(np.gradient(belt, axis=0) * [-1, 1]).T)
        out += RNG.normal(0, 0.1, n)
        parts = []
        for k, i in enumerate(range(1, n, 3)):
            tall = grow[i] * (1.0, 0.62, 0.85, 0.5)[k % 4]
            bend = curl * RNG.uniform(0.85, 1.15)
            parts += claw(belt[i], out[i] + lean, tall, bend, 1)
            drop = grow[i] * (0.5, 0.9, 0.4, 0.75)[k % 4] * under
            if drop > 12:
                back = out[i] + np.pi + 0.5
                parts += claw(belt[i], back, drop, 1.3, int(drop > 22))
        scallops = [disc(p, r) for p, r in zip(belt, grow * 0.18, strict=True)]
        union(img, [p for p, _ in parts] + scallops, tone)
        for _, spine in parts:
            stroke(img, spine[5:19], MID, 1.8)
    for k in range(1, n - 1, 2):  # a few curls of shadow inside the foam
        spine = claw(belt[k], out[k] + 0.8, grow[k] * 0.42, curl * 1.3)[0][1]
        stroke(img, spine - [0, grow[k] * 0.06], MID, 2)


def spray(img: Array, path: Array, spread: float, n: int) -> None:
    for _ in range(n):
        at = path[RNG.integers(len(path))] + RNG.normal(0, spread, 2)
        r = RNG.choice([1.6, 2.2, 3.0, 4.2, 6.0], p=[0.3, 0.3, 0.2, 0.14, 0.06])
        union(img, [disc(at, r)], CREAM)


def stream(img: Array, path: Array, width: float, tones: list[Color]) -> None:
    """Wind-drawn cloud: parallel bands along a path, pointed at both ends."""
    for i, tone in enumerate(tones):
        u, s = np.linspace(0, 1, 200), (i + 0.5) / len(tones)
        t = RNG.uniform(0, 0.3) * (1 - u) + RNG.uniform(0.7, 1) * u
        half = 0.36 / len(tones) * np.abs(np.sin(np.pi * u)) ** 0.5
        below = np.add(path, [0, width])
        rim = between(path, below, s - half, t), between(path, below, s + half, t)[::-1]
        shape(img, np.vstack(rim), tone)


def bank(img: Array, path: Array, r: float, rows: int) -> None:
    """A bank of cloud: rows of overlapping puffs drawn as concentric rings."""
    for row in range(rows):
        p = resample(path, int(np.ptp(path[:, 0]) / (1.3 * r)))
        p += [r * 0.65 * (row % 2), row * r * 0.62]
        for i in np.argsort(np.sin(np.arange(len(p)) * 2.4)):
            big = r * (1, 0.8, 1.15, 0.7)[i % 4]
            for j, tone in enumerate((CREAM, PALE, CREAM, OCHRE, CREAM)):
                shape(img, disc(p[i], big * (1 - 0.19 * j)), tone)


def sky(img: Array) -> None:
    y, tones = np.linspace(0, 1, H * S), np.array([INDIGO, MID, HAZE, OCHRE])
    ramp = [np.interp(y, [0, 0.12, 0.35, 0.62], tones[:, c]) for c in range(3)]
    img[:] = np.column_stack(ramp)[:, None].astype(np.uint8)
    shape(img, disc(np.array([1030, 290]), 54), RED)
    bands = [CREAM, PALE, CREAM, OCHRE, CREAM, MID, CREAM]
    stream(img, curve("560,70 760,30 940,70 1100,40 1320,60"), 120, bands)
    stream(img, curve("640,190 860,160 1000,205 1120,150 1320,160"), 90, bands[:5])
    stream(img, curve("-160,120 0,70 160,80 300,20 500,-10"), 150, bands)
    stream(img, curve("-160,260 0,230 120,240 240,150 400,100"), 110, bands)
    bank(img, curve("780,560 870,470 960,400 1060,350 1160,310 1270,300"), 40, 6)


def distance(img: Array) -> None:
    """The snow-capped cone, the mist across it and the far sea."""
    left, right = "430,640 560,575 625,515 662,448", "930,640 800,575 730,515 690,448"
    sheet(img, curve(left), curve(right), 11, MID, 1.0)
    snow = "662,448 690,448 722,502 710,496 702,522 689,498 676,530 664,500 648,516"
    shape(img, points(snow + " 632,502"), CREAM)
    mist = curve("500,530 600,548 700,530 800,545 900,520")
    stream(img, mist, 56, [CREAM, PALE, CREAM])
    x = np.linspace(-60, 1260, 400)
    for k, tone in enumerate((MID, INDIGO, INDIGO)):
        far = np.column_stack([x, 590 + 26 * k + 7 * np.sin(x / 31 + 2 * k)])
        sheet(img, far, np.add(far, [0, 50 + 90 * k]), 6, tone, 1.0)


def second_wave(img: Array) -> None:
    back = "560,740 700,715 820,630 910,525 1000,460 1090,445 1160,485 1190,550"
    face = "930,800 975,720 1008,645 1025,590 1055,550 1090,540 1120,560 1140,595"
    outer, inner = curve(back), curve(face)
    sheet(img, outer, inner, 12, INDIGO, 0.7)
    foam(img, np.vstack([outer[60:], inner[:372:-1]]), 84, (0.3, 1.8, 0.7))


def great_wave(img: Array) -> None:
    back = "-120,760 -40,520 70,340 220,190 400,105 560,92 710,125 825,190 888,290"
    face = "960,760 800,695 650,620 560,520 525,420 545,330 610,275 690,263 755,292"
    outer, inner = curve(back), curve(face + " 800,355")
    sheet(img, outer, inner, 19, INDIGO, 0.6)
    foam(img, inner[:240:-1], 62, (-0.1, 1.4, 0.2))
    foam(img, curve("915,285 862,335 800,362 740,335"), 105, (-0.1, 1.5, 0.0))
    lip = curve("888,308 852,334 806,354 772,338 755,300")
    foam(img, np.vstack([outer[60:], lip]), 116, (0.25, 1.8, 0.6))
    spray(img, np.add(outer[200:], [70, -40]), 52, 110)


def swells(img: Array) -> None:
    far = "-60,660 60,600 150,585 260,630 440,710 620,720 800,670 960,640 1060,680"
    mid = "-60,690 120,740 280,700 390,645 470,660 600,740 820,770 1000,720 1120,690"
    near = "-60,760 60,730 180,745 400,800 600,770 720,715 800,725 900,790 1080,800"
    for text, left, right in (
        (far + " 1260,620", slice(20, 150), slice(230, 330)),
        (mid + " 1260,740", slice(100, 210), slice(290, 390)),
        (near + " 1260,760", slice(0, 70), slice(190, 290)),
    ):
        crest = curve(text)
        sheet(img, crest, np.add(crest, [50, 120]), 7, INDIGO, 1.0)
        foam(img, crest[left], 76, (0.4, 1.8, 0.5))
        foam(img, crest[right], 76, (0.4, 1.8, 0.5))


def grain(img: Array) -> Array:
    """Print the picture on wood-grained paper: warped rings and fine fibres."""
    y, x = np.mgrid[:H, :W]
    soft = cv2.resize(RNG.normal(0, 1, (6, 7)), (W, H), interpolation=cv2.INTER_CUBIC)
    fibre = cv2.resize(RNG.normal(0, 1, (H, W // 30)), (W, H))
    rings = np.sin(0.9 * (y + 22 * soft + 0.02 * x)) + np.sin(0.37 * (y + 30 * soft))
    texture = (1 + 0.018 * rings + 0.022 * fibre + 0.02 * soft)[..., None]
    return np.clip(img * texture + 4 * fibre[..., None], 0, 255).astype(np.uint8)


def age(img: Array) -> Array:
    """Ink soaks into the paper, paper shows through: a soft print, not a hard poster.

    Hard black and white edges would make the style loss drown a photograph's content.
    """
    soaked = cv2.GaussianBlur(img, (0, 0), 1.0).astype(float)
    return (0.75 * soaked + 0.25 * np.array(PAPER)).astype(np.uint8)


def main() -> None:
    img = np.zeros((H * S, W * S, 3), np.uint8)
    for layer in (sky, distance, second_wave, great_wave, swells):
        layer(img)
    img = grain(age(cv2.resize(img, (W, H), interpolation=cv2.INTER_AREA)))
    out = Path(__file__).with_name("wave.jpg")
    cv2.imwrite(str(out), img[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])


if __name__ == "__main__":
    main()
