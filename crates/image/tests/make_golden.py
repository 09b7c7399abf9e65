"""Writes the golden files of this crate's tests into tests/data, with Pillow and NumPy.

resize/NAME.png with resize/NAME.WxH.png       source, and its BICUBIC resize by Pillow, rows first
                resize/NAME.WxH.13.png         the resize by Pillow 13 if it differs
decode/NAME.EXT with decode/NAME.EXT.rgb.png   file, and the result of Pillow's convert("RGB")
orient/NAME.EXT with orient/NAME.EXT.rgb.png   the same after ImageOps.exif_transpose

PNG kinds that Pillow cannot write are assembled by hand, rare JPEGs come from libjpeg-turbo's cjpeg and jpegtran. Run with
Pillow 13: python3 make_golden.py
"""

import io
import struct
import subprocess
import tempfile
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
    """Low frequencies and one hard edge, so that lossy codecs and palettes have small errors."""
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
    """Saves only the pixels, without transparency, EXIF or other metadata of the image."""
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
            # One axis at a time, as a single call did up to Pillow 12.
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
    # Changing the Adobe transform from 0 to 2 makes the same data YCCK.
    at = cmyk.index(b"Adobe") + 11
    golden("decode", "ycck.jpg", cmyk[:at] + b"\2" + cmyk[at + 1 :])
    # Without the Adobe marker, a four-component JPEG is CMYK as well.
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


def jpeg_cases():
    """Rare layouts, sampling factors and markers; cjpeg and jpegtran are programs of libjpeg-turbo."""

    def run(command, data, script=""):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(script)
            file.flush()
            command = command.split() + (["-scans", file.name] if script else [])
            return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout

    w, h = 41, 37
    pixels = b"P6\n%d %d\n255\n" % (w, h) + smooth(w, h).tobytes()
    for name, options, script in [
        ("apart", "-sample 2x2", "0;1;2;"), ("apart_restart", "-sample 2x1 -restart 1B", "0;1;2;"),
        ("pair_first", "-sample 1x2", "0,1;2;"), ("pair_last", "-sample 2x2", "0;1,2;"),
        ("coarse_luma", "-sample 1x1,2x1,1x1", ""), ("coarse_luma2", "-sample 1x1,2x2,2x2", ""),
        ("same_2x2", "-sample 2x2,1x2,1x2", ""), ("three_across", "-sample 3x1", ""), ("three_two", "-sample 3x2", ""),
        ("four_across", "-sample 4x1,2x1,2x1", ""),
        ("refined", "-sample 2x2", "0,1,2:0-0,0,1;0,1,2:0-0,1,0;0:1-63,0,1;0:1-63,1,0;1:1-63,0,0;2:1-63,0,0;"),
        ("soft", "-sample 2x2", "0,1,2:0-0,0,0;0:1-20,0,0;1:1-20,0,0;2:1-20,0,0;"),
    ]:
        golden("decode", f"{name}.jpg", run(f"cjpeg -quality 92 {options}", pixels, script))
    plain = run("cjpeg -quality 92 -sample 1x1", pixels)
    adobe = b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0"
    golden("decode", "jfif_adobe0.jpg", plain[:20] + adobe + b"\0" + plain[20:])
    golden("decode", "adobe1_names_rgb.jpg", named(plain[:2] + adobe + b"\1" + plain[20:], b"RGB"))
    golden("decode", "jfif_names_rgb.jpg", named(plain, b"RGB"))
    golden("decode", "names_rgb.jpg", named(plain[:2] + plain[20:], b"RGB"))
    cmyk = encode(Image.fromarray(smooth(w, h, 4), "CMYK"), "JPEG", quality=92, subsampling=2)
    golden("decode", "cmyk_apart.jpg", run("jpegtran -copy all", cmyk, "0;1;2;3;"))
    at = cmyk.index(b"Adobe") + 11
    golden("decode", "ycck_apart.jpg", run("jpegtran -copy all", cmyk[:at] + b"\2" + cmyk[at + 1 :], "0,1,2;3;"))


def named(data, names):
    """The baseline JPEG with other identifiers of its three components."""
    data, frame, scan = bytearray(data), data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    for i, name in enumerate(names):
        data[frame + 10 + 3 * i] = data[scan + 5 + 2 * i] = name
    return bytes(data)


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


def directory(*entries, order="<"):
    """An EXIF block of one directory: entries of tag, type, count and the bytes of the values."""
    block = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    far = b""
    for tag, kind, count, data in entries:
        if len(data) > 4:
            place = struct.pack(order + "I", 8 + 2 + 12 * len(entries) + 4 + len(far))
            far += data
        else:
            place = data.ljust(4, b"\0")
        block += struct.pack(order + "HHI", tag, kind, count) + place
    return block + b"\0\0\0\0" + far


def place_cases():
    """Every place and form in which an orientation may be stored, and values that Pillow ignores."""
    tag = 0x0112
    block = directory((tag, 3, 1, struct.pack("<H", 6)))
    other = directory((0x0100, 3, 1, struct.pack("<H", 9)))
    packets = {
        "attribute": b'<rdf:Description tiff:Orientation="6"/>',
        "element": b"<rdf:Description><tiff:Orientation>8</tiff:Orientation></rdf:Description>",
        "quote": b"<rdf:Description tiff:Orientation='6'/>",
        "space": b'<rdf:Description tiff:Orientation = "6"/>',
        "twice": b'<a tiff:Orientation="x"/><b tiff:Orientation="3"/><c tiff:Orientation="6"/>',
        "nine": b'<rdf:Description tiff:Orientation="9"/>',
    }
    xmp = packets["attribute"]

    def itxt(key, value, packed=False):
        return chunk(b"iTXt", key + b"\0" + (b"\1\0" if packed else b"\0\0") + b"en\0\0"
                     + (zlib.compress(value) if packed else value))

    def text(key, value):
        return chunk(b"tEXt", key + b"\0" + value)

    def ztxt(key, value):
        return chunk(b"zTXt", key + b"\0\0" + zlib.compress(value))

    def raw(block):
        digits = block.hex()
        lines = [digits[i : i + 72] for i in range(0, len(digits), 72)]
        return ("\nexif\n%8d\n" % len(block) + "\n".join(lines) + "\n").encode()

    profile, xml = b"Raw profile type exif", b"XML:com.adobe.xmp"
    numbers = {
        "byte": (1, 1, b"\6"), "ascii": (2, 2, b"6\0"), "long": (4, 1, struct.pack("<I", 6)),
        "long_8_far": (4, 2, struct.pack("<II", 8, 6)), "rational": (5, 1, struct.pack("<II", 12, 2)),
        "rational_none": (5, 1, struct.pack("<II", 6, 0)), "sbyte": (6, 1, b"\6"), "undefined": (7, 1, b"\6"),
        "sshort": (8, 1, struct.pack("<h", 6)), "sshort_minus": (8, 1, struct.pack("<h", -6)),
        "slong": (9, 1, struct.pack("<i", 6)), "srational": (10, 1, struct.pack("<ii", -6, -1)),
        "float": (11, 1, struct.pack("<f", 6)), "float_half": (11, 1, struct.pack("<f", 6.5)),
        "double": (12, 1, struct.pack("<d", 6)), "ifd": (13, 1, struct.pack("<I", 6)), "unknown": (14, 1, b"\6"),
        "long8": (16, 1, struct.pack("<Q", 6)), "two": (3, 2, struct.pack("<HH", 6, 3)), "none": (3, 0, b""),
        "three_far": (3, 3, struct.pack("<HHH", 6, 3, 1)), "zero": (3, 1, b"\0\0"), "nine": (3, 1, b"\x09\0"),
        "long_large": (4, 1, struct.pack("<I", 262)), "cut": (3, 30, b"\6\0\0\0\0\0"),
    }
    pngs = {f"exif_{name}": chunk(b"eXIf", directory((tag, *number))) for name, number in numbers.items()}
    pngs |= {f"xmp_{name}": itxt(xml, packet) for name, packet in packets.items()}
    pngs |= {
        "exif_long_mm": chunk(b"eXIf", directory((tag, 4, 1, struct.pack(">I", 6)), order=">")),
        "exif_short_mm": chunk(b"eXIf", directory((tag, 3, 1, struct.pack(">H", 6)), order=">")),
        "exif_prefix": chunk(b"eXIf", b"Exif\0\0Exif\0\0" + block),
        "exif_twice": chunk(b"eXIf", directory((tag, 3, 1, b"\3\0"), (tag, 3, 1, b"\6\0"))),
        "exif_shortened": chunk(b"eXIf", block[:-6]),
        "exif_text": text(b"exif", block),
        "xmp_packed": itxt(xml, xmp, True),
        "xmp_text": text(xml, xmp),
        "xmp_ztxt": ztxt(xml, xmp),
        "xmp_other_key": itxt(b"xmp:adobe", xmp),
        "xmp_later_wins": itxt(xml, xmp) + itxt(xml, packets["element"]),
        "profile_ztxt": ztxt(profile, raw(b"Exif\0\0" + block)),
        "profile_text": text(profile, raw(b"Exif\0\0" + block)),
        "profile_itxt": itxt(profile, raw(block), True),
        "profile_app1": ztxt(b"Raw profile type APP1", raw(b"Exif\0\0" + block)),
        "profile_after_exif": chunk(b"eXIf", directory((tag, 3, 1, b"\3\0"))) + ztxt(profile, raw(block)),
        "profile_other_exif": chunk(b"eXIf", other) + ztxt(profile, raw(block)),
        "exif_before_xmp": itxt(xml, packets["element"]) + chunk(b"eXIf", block),
        "exif_zero_before_xmp": itxt(xml, xmp) + chunk(b"eXIf", directory((tag, 3, 1, b"\0\0"))),
        "exif_other_then_xmp": itxt(xml, xmp) + chunk(b"eXIf", other),
        "exif_cut_then_xmp": itxt(xml, xmp) + chunk(b"eXIf", directory((tag, *numbers["cut"]))),
        "profile_other_then_xmp": itxt(xml, xmp) + ztxt(profile, raw(other)),
    }
    picture = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 13
    for name, chunks in pngs.items():
        golden("orient", f"{name}.png", raw_png(picture, 8, 2, before=chunks), True)
    golden("orient", "profile_late.png", raw_png(picture, 8, 2, after=ztxt(profile, raw(block))), True)
    golden("orient", "xmp_late.png", raw_png(picture, 8, 2, after=itxt(xml, xmp)), True)

    def app1(data):
        return b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data

    plain = encode(Image.fromarray(smooth(9, 6)), "JPEG", quality=95, subsampling=0)
    exif, packet = b"Exif\0\0" + block, b"http://ns.adobe.com/xap/1.0/\0"
    for name, segments in {
        "long": app1(b"Exif\0\0" + directory((tag, 4, 1, struct.pack("<I", 6)))),
        "long_mm": app1(b"Exif\0\0" + directory((tag, 4, 1, struct.pack(">I", 6)), order=">")),
        "in_two": app1(exif[:20]) + app1(b"Exif\0\0" + exif[20:]),
        "xmp": app1(packet + xmp),
        "xmp_element": app1(packet + packets["element"]),
        "xmp_later_wins": app1(packet + xmp) + app1(packet + packets["element"]),
        "exif_before_xmp": app1(packet + packets["element"]) + app1(exif),
        "exif_other_then_xmp": app1(b"Exif\0\0" + other) + app1(packet + xmp),
    }.items():
        golden("orient", f"{name}.jpg", plain[:2] + segments + plain[2:], True)

    webp = Image.fromarray(picture)
    golden("orient", "xmp.webp", encode(webp, "WEBP", lossless=True, xmp=xmp), True)
    both = encode(webp, "WEBP", lossless=True, xmp=packets["element"], exif=block)
    golden("orient", "exif_before_xmp.webp", both, True)
    flags = both.index(b"VP8X") + 8
    for name, mask in {"xmp_announced": 4, "none_announced": 0}.items():
        golden("orient", f"{name}.webp", both[:flags] + bytes([both[flags] & ~12 | mask]) + both[flags + 1 :], True)


def lzw(indices, bits=8):
    """The image data of a GIF, where a clear code comes so often that codes stay at bits + 1 bits."""
    clear, codes = 1 << bits, []
    for i, index in enumerate(indices):
        codes += ([clear] if i % (clear - 2) == 0 else []) + [int(index)]
    number = sum(code << (i * (bits + 1)) for i, code in enumerate(codes + [clear + 1]))
    packed = number.to_bytes(((len(codes) + 1) * (bits + 1) + 7) // 8, "little")
    blocks = [packed[i : i + 255] for i in range(0, len(packed), 255)]
    return bytes([bits]) + b"".join(bytes([len(b)]) + b for b in blocks) + b"\0"


def gif(indices, screen=None, at=(0, 0), palette=b"", local=b"", before=b"", interlace=False):
    """A GIF of one frame with indices [h, w]; the palettes have 2**n colours."""
    h, w = indices.shape
    flags = lambda p: 0x80 | (len(p) // 3).bit_length() - 2 if p else 0
    order = [y for start, step in [(0, 8), (4, 8), (2, 4), (1, 2)] for y in range(start, h, step)] if interlace else range(h)
    return (b"GIF89a" + struct.pack("<HHBBB", *(screen or (w, h)), flags(palette), 1, 0) + palette + before + b","
            + struct.pack("<HHHHB", *at, w, h, flags(local) | interlace << 6) + local + lzw(indices[list(order)].ravel()) + b";")


def gif_cases():
    rng = np.random.default_rng(8)
    colours = lambda n: rng.integers(0, 256, 3 * n, dtype=np.uint8).tobytes()
    draw = lambda w, h, n: rng.integers(0, n, (h, w))
    control = lambda index: b"!\xf9\4\1\0\0" + bytes([index]) + b"\0"
    comment = b"!\xfe\5hello\0"
    grey = bytes(i for i in range(256) for _ in range(3))
    for name, data in {
        "plain": gif(draw(19, 13, 256), palette=colours(256)),
        "two": gif(draw(19, 13, 2), palette=colours(2)),
        "local": gif(draw(19, 13, 16), palette=colours(4), local=colours(16), before=comment),
        "interlaced": gif(draw(19, 29, 32), palette=colours(32), interlace=True),
        "interlaced_short": gif(draw(9, 3, 32), palette=colours(32), interlace=True),
        "grey": gif(draw(19, 13, 256), palette=grey),
        "transparent": gif(draw(19, 13, 8), palette=colours(8), before=comment + control(3)),
        "inside": gif(draw(9, 5, 8), screen=(19, 13), at=(4, 6), palette=colours(8)),
        "inside_transparent": gif(draw(9, 5, 8), screen=(19, 13), at=(4, 6), palette=colours(8), before=control(5)),
        "outside": gif(draw(9, 5, 8), screen=(7, 8), at=(4, 6), palette=colours(8)),
        "outside_transparent": gif(draw(9, 5, 8), screen=(7, 8), at=(4, 6), palette=colours(8), before=control(5)),
        "short_palette": gif(draw(19, 13, 256), palette=colours(8)),
    }.items():
        golden("decode", f"{name}.gif", data)
    frames = [Image.fromarray(smooth(24, 17)).quantize(40) for _ in range(2)] + [Image.fromarray(smooth(24, 17)[::-1]).quantize(40)]
    golden("decode", "animated.gif", encode(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50))


def bmp(w, h, bits, rows, palette=b"", compression=0, masks=b"", size=40, colours=0):
    """A BMP with these bytes of pixels; a header of 12 bytes is that of OS/2."""
    if size == 12:
        head = struct.pack("<IHHHH", 12, w, h, 1, bits)
    else:
        head = struct.pack("<IiiHHIIiiII", size, w, h, 1, bits, compression, len(rows), 2835, 2835, colours, 0)
        head += masks.ljust(size - 40, b"\0") if size > 40 else masks
    start = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + head + palette + rows


def bmp_cases():
    rng = np.random.default_rng(9)
    w, h = 19, 13
    colours = lambda n, pad=b"\0": b"".join(rng.integers(0, 256, 3, dtype=np.uint8).tobytes() + pad for _ in range(n))
    raw = lambda bits: rng.integers(0, 256, ((w * bits + 31) // 32 * 4) * h, dtype=np.uint8).tobytes()
    words = lambda *masks: struct.pack(f"<{len(masks)}I", *masks)
    # Rows of runs, one with literals, and the end. No jumps: the pixels that they skip differ.
    rle8 = bytes([5, 7, 14, 9, 0, 0]) * 9 + bytes([0, 5, 1, 2, 3, 4, 5, 0, 14, 6, 0, 0, 3, 9, 16, 8, 0, 0, 19, 3, 0, 0, 19, 2, 0, 1])
    rle4 = bytes([5, 0x71, 14, 0x9A, 0, 0]) * 9 + bytes([0, 5, 0x12, 0x34, 0x50, 0, 14, 6, 0, 0, 3, 9, 16, 0x88, 0, 0, 19, 0x34, 0, 0, 19, 0x23, 0, 1])
    for name, data in {
        "bits1": bmp(w, h, 1, raw(1), colours(2)), "bits4": bmp(w, h, 4, raw(4), colours(16)),
        "bits8": bmp(w, h, 8, raw(8), colours(256)), "bits24": bmp(w, h, 24, raw(24)), "bits32": bmp(w, h, 32, raw(32)),
        "bits16": bmp(w, h, 16, raw(16)),
        "bits565": bmp(w, h, 16, raw(16), compression=3, masks=words(0xF800, 0x7E0, 0x1F)),
        "bits555": bmp(w, h, 16, raw(16), compression=3, masks=words(0x7C00, 0x3E0, 0x1F)),
        "bits565_v5": bmp(w, h, 16, raw(16), compression=3, masks=words(0xF800, 0x7E0, 0x1F, 0), size=124),
        "rgba": bmp(w, h, 32, raw(32), compression=3, masks=words(0xFF, 0xFF00, 0xFF0000, 0xFF000000), size=124),
        "bgra": bmp(w, h, 32, raw(32), compression=3, masks=words(0xFF0000, 0xFF00, 0xFF, 0xFF000000), size=56),
        "bgrx": bmp(w, h, 32, raw(32), compression=3, masks=words(0xFF0000, 0xFF00, 0xFF)),
        "top_down": bmp(w, -h, 24, raw(24)), "os2": bmp(w, h, 24, raw(24), size=12),
        "os2_bits8": bmp(w, h, 8, raw(8), colours(256, b""), size=12),
        "short_palette": bmp(w, h, 8, bytes(b % 20 for b in raw(8)), colours(20), colours=20),
        "grey": bmp(w, h, 8, raw(8), b"".join(bytes([i, i, i, 0]) for i in range(256))),
        "rle8": bmp(w, h, 8, rle8, colours(256), compression=1), "rle4": bmp(w, h, 4, rle4, colours(16), compression=2),
    }.items():
        golden("decode", f"{name}.bmp", data)


if __name__ == "__main__":
    gif_cases()
    bmp_cases()
    resize_cases()
    decode_cases()
    jpeg_cases()
    orient_cases()
    place_cases()
