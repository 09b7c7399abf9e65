"""Writes the golden files of this crate's tests into tests/data, with Pillow and NumPy.

resize/NAME.png with resize/NAME.WxH.png       source and Pillow's BICUBIC resize of it, rows first
                resize/NAME.WxH.13.png         where Pillow 13 differs from that
decode/NAME.EXT with decode/NAME.EXT.rgb.png   file and Pillow's convert("RGB") of it
orient/NAME.EXT with orient/NAME.EXT.rgb.png   the same after ImageOps.exif_transpose

PNG kinds that Pillow cannot write are assembled by hand. Run with Pillow 13: python3 make_golden.py
"""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

DATA = Path(__file__).parent / "data"
RNG = np.random.default_rng(7)
warnings.simplefilter("ignore")


def noise(w, h, c=3):
    return RNG.integers(0, 256, (h, w, c), dtype=np.uint8)


def smooth(w, h, c=3):
    """Low frequencies and one hard edge, so that lossy codecs and palettes stay close."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    planes = [127.5 + 100 * np.sin(x / (7 + 3 * i) + i) * np.cos(y / (9 + 2 * i)) for i in range(c)]
    a = np.stack(planes, -1)
    a[h // 3 : h // 2, w // 4 : w // 2] = np.array([250, 5, 120, 200][:c])
    return a.round().astype(np.uint8)


def save(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def encode(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def save_png(path, image):
    """Pixels only: no transparency, EXIF or other metadata that the image carries along."""
    save(path, encode(Image.fromarray(np.asarray(image)), "PNG", optimize=True))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_from(w, h, bits, colour, packed, interlace=0, before=b"", after=b""):
    header = struct.pack(">IIBBBBB", w, h, bits, colour, 0, 0, interlace)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before
            + chunk(b"IDAT", zlib.compress(packed, 9)) + after + chunk(b"IEND", b""))


def raw_png(samples, bits, colour, interlace=0, before=b"", after=b""):
    """A PNG of samples [h, w, channels], filter 0, any depth."""

    def rows(a):
        out = b""
        for row in a:
            if bits == 16:
                out += b"\0" + row.astype(">u2").tobytes()
            elif bits == 8:
                out += b"\0" + row.astype(np.uint8).tobytes()
            else:
                spread = (row.reshape(-1, 1) >> np.arange(bits - 1, -1, -1)) & 1
                out += b"\0" + np.packbits(spread.astype(np.uint8)).tobytes()
        return out

    h, w = samples.shape[:2]
    if interlace:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
        parts = [samples[y::dy, x::dx] for x, y, dx, dy in passes]
        packed = b"".join(rows(p) for p in parts if p.size)
    else:
        packed = rows(samples)
    return png_from(w, h, bits, colour, packed, interlace, before, after)


def golden(folder, name, data, transpose=False):
    save(DATA / folder / name, data)
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        save_png(DATA / folder / f"{name}.rgb.png", (ImageOps.exif_transpose(image) if transpose else image).convert("RGB"))


def resize_cases():
    cases = {
        "noise37x53": (noise(37, 53), [(16, 16), (64, 64), (37, 20), (91, 53), (1, 1), (5, 97),
                                     # 32x43 is the last size with rows first, 32x42 the first with columns first.
                                     (32, 43), (32, 42), (60, 52)]),
        "noise1x1": (noise(1, 1), [(7, 7), (32, 3)]),
        "noise1x19": (noise(1, 19), [(16, 16), (1, 5), (8, 19)]),
        "noise23x1": (noise(23, 1), [(16, 16), (11, 1)]),
        "noise2x3": (noise(2, 3), [(32, 32)]),
        "checker64x48": (np.indices((48, 64)).sum(0)[..., None].repeat(3, 2).astype(np.uint8) % 2 * 255,
                         [(48, 48), (65, 47), (13, 17)]),
        "smooth151x99": (smooth(151, 99), [(224, 224), (32, 32), (48, 100)]),
    }
    for name, (a, sizes) in cases.items():
        image = Image.fromarray(a)
        save_png(DATA / "resize" / f"{name}.png", image)
        for size in sizes:
            path = DATA / "resize" / f"{name}.{size[0]}x{size[1]}"
            # One axis at a time: what one call did up to Pillow 12.
            rows_first = image.resize((size[0], image.height), Image.BICUBIC).resize(size, Image.BICUBIC)
            save_png(path.with_name(path.name + ".png"), rows_first)
            today = image.resize(size, Image.BICUBIC)
            if today.tobytes() != rows_first.tobytes():
                save_png(path.with_name(path.name + ".13.png"), today)


def decode_cases():
    w, h = 19, 13
    edges = np.array([0, 1, 127, 128, 254, 255, 256, 257, 300, 511, 512, 32767, 32768, 65279, 65280, 65535])
    for bits in (1, 2, 4, 8, 16):
        a = RNG.integers(0, 2**bits, (h, w, 1))
        if bits == 16:
            a = RNG.choice(edges, (h, w, 1))
        golden("decode", f"grey{bits}.png", raw_png(a, bits, 0))
        golden("decode", f"grey{bits}_trns.png",
               raw_png(a, bits, 0, before=chunk(b"tRNS", struct.pack(">H", int(a[0, 0, 0])))))
    for bits in (1, 2, 4, 8):
        colours = min(2**bits, 200)
        palette = chunk(b"PLTE", RNG.integers(0, 256, 3 * colours, dtype=np.uint8).tobytes())
        alphas = chunk(b"tRNS", RNG.integers(0, 256, colours, dtype=np.uint8).tobytes())
        a = RNG.integers(0, colours, (h, w, 1))
        golden("decode", f"palette{bits}.png", raw_png(a, bits, 3, before=palette))
        golden("decode", f"palette{bits}_trns.png", raw_png(a, bits, 3, before=palette + alphas))
    short = chunk(b"PLTE", bytes([10, 20, 30, 40, 50, 60]))
    golden("decode", "palette_short.png", raw_png(np.array([[[0], [1], [2], [200]]]), 8, 3, before=short))
    for bits in (8, 16):
        draw = (lambda c: RNG.choice(edges, (h, w, c))) if bits == 16 else (lambda c: RNG.integers(0, 256, (h, w, c)))
        golden("decode", f"rgb{bits}.png", raw_png(draw(3), bits, 2))
        golden("decode", f"grey_alpha{bits}.png", raw_png(draw(2), bits, 4))
        golden("decode", f"rgba{bits}.png", raw_png(draw(4), bits, 6))
    a = draw(3)
    golden("decode", "rgb16_trns.png", raw_png(a, 16, 2, before=chunk(b"tRNS", struct.pack(">HHH", *map(int, a[0, 0])))))
    golden("decode", "interlaced.png", raw_png(noise(w, h), 8, 2, interlace=1))
    golden("decode", "interlaced2.png", raw_png(RNG.integers(0, 4, (h, w, 1)), 2, 0, interlace=1))
    golden("decode", "one.png", raw_png(noise(1, 1), 8, 2))
    frames = [Image.fromarray(noise(w, h)) for _ in range(3)]
    golden("decode", "animated.png", encode(frames[0], "PNG", save_all=True, append_images=frames[1:]))

    rgb, grey = Image.fromarray(smooth(45, 38)), Image.fromarray(smooth(45, 38, 1)[..., 0])
    for name, image, options in [
        ("rgb444", rgb, {"subsampling": 0}), ("rgb420", rgb, {"subsampling": 2}), ("grey", grey, {}),
        ("progressive", rgb, {"progressive": True, "subsampling": 0}), ("keep_rgb", rgb, {"keep_rgb": True}),
        ("restart", rgb, {"restart_marker_rows": 1, "subsampling": 0}),
    ]:
        golden("decode", f"{name}.jpg", encode(image, "JPEG", quality=92, **options))
    cmyk = encode(Image.fromarray(smooth(45, 38, 4), "CMYK"), "JPEG", quality=95)
    golden("decode", "cmyk.jpg", cmyk)
    # Adobe transform 0 to 2: the same bytes read as YCCK.
    at = cmyk.index(b"Adobe") + 11
    golden("decode", "ycck.jpg", cmyk[:at] + b"\2" + cmyk[at + 1 :])
    # Without the Adobe marker a four-component JPEG is CMYK too.
    start = cmyk.index(b"Adobe") - 4
    golden("decode", "cmyk_bare.jpg", cmyk[:start] + cmyk[start + 2 + struct.unpack(">H", cmyk[start + 2 : start + 4])[0] :])

    rgba = Image.fromarray(np.concatenate([smooth(29, 21), noise(29, 21, 1)], -1))
    flat = Image.fromarray(noise(29, 21))
    golden("decode", "lossless.webp", encode(flat, "WEBP", lossless=True))
    golden("decode", "lossless_alpha.webp", encode(rgba, "WEBP", lossless=True, exact=True))
    golden("decode", "lossy.webp", encode(rgb, "WEBP", quality=85))
    golden("decode", "lossy_alpha.webp", encode(rgba, "WEBP", quality=85, exact=True))
    frames = [Image.fromarray(noise(29, 21)) for _ in range(3)]
    golden("decode", "animated.webp", encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True))


def orient_cases():
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture = Image.fromarray(smooth(24, 17))
        golden("orient", f"o{orientation}.jpg", encode(picture, "JPEG", quality=95, subsampling=0, exif=exif), True)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(noise(9, 5))
    golden("orient", "o6.png", encode(picture, "PNG", exif=exif), True)
    golden("orient", "o6.webp", encode(picture, "WEBP", lossless=True, exif=exif), True)
    block = chunk(b"eXIf", exif.tobytes()[6:])
    golden("orient", "o6_late.png", raw_png(np.asarray(picture), 8, 2, after=block), True)


if __name__ == "__main__":
    resize_cases()
    decode_cases()
    orient_cases()
