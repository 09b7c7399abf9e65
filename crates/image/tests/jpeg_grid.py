"""Compares this crate's JPEG pixels with libjpeg's over layouts, sampling factors, markers and sizes.

Each file must decode to within 8 levels of Pillow's pixels or be rejected; rejected files are counted by reason.

    apt-get install libjpeg-turbo-progs; pip install pillow numpy       (cjpeg, jpegtran)
    cargo build -p pheye-image --example decode
    python3 crates/image/tests/jpeg_grid.py target/debug/examples/decode [FOLDER]

With FOLDER, files that were decoded incorrectly are kept there. Exits with 1 if there are any.
"""

import collections
import io
import itertools
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

LEVELS = 8
SIZES = [(1, 1), (2, 1), (1, 2), (7, 9), (8, 8), (16, 16), (16, 17), (3, 50), (50, 3), (33, 31), (50, 49), (41, 65)]
SAMPLINGS = """1x1 2x1 1x2 2x2 4x1 1x4 4x2 2x4 4x4 3x1 1x3 3x2 2x3 3x3 1x1,2x1,1x1 1x1,1x2,1x1 1x1,2x2,1x1 1x1,2x2,2x2
2x1,1x1,2x1 2x2,2x1,1x2 2x2,1x1,2x2 2x2,2x2,1x1 2x1,2x1,2x1 2x2,2x2,2x2 1x2,1x2,1x2 2x1,1x2,1x1 3x1,2x1,1x1 4x1,2x1,1x1
4x1,2x1,2x1 4x2,2x1,1x2 2x2,2x1,2x1 2x2,1x2,1x2 1x1,1x1,2x1 1x2,2x1,1x1 4x1,4x1,1x1 1x4,1x2,1x2 2x4,1x2,2x2""".split()
# cjpeg's scan scripts; without coefficient ranges they give a sequential file with several scans.
SCRIPTS = {
    "apart": "0;1;2;",
    "pair first": "0,1;2;",
    "pair last": "0;1,2;",
    "pair split": "0,2;1;",
    "backwards": "2;1;0;",
    "progressive plain": "0,1,2:0-0,0,0;0:1-63,0,0;1:1-63,0,0;2:1-63,0,0;",
    "progressive DC apart": "0:0-0,0,1;1,2:0-0,0,0;0:0-0,1,0;0:1-5,0,2;0:6-63,0,2;0:1-63,2,1;0:1-63,1,0;"
    "1:1-63,0,0;2:1-63,0,0;",
    "progressive unfinished": "0,1,2:0-0,0,0;0:1-5,0,0;",
    "progressive soft": "0,1,2:0-0,0,0;0:1-20,0,0;1:1-20,0,0;2:1-20,0,0;",
}
OPTIONS = {
    "baseline": [],
    "optimized": ["-optimize"],
    "progressive": ["-progressive"],
    "restart rows": ["-restart", "1"],
    "restart blocks": ["-restart", "1B"],
    "progressive restart": ["-progressive", "-restart", "2B"],
    "arithmetic": ["-arithmetic"],
}


def picture(w, h, channels=3):
    y, x = np.mgrid[0:h, 0:w].astype(float)
    waves = [127.5 + 100 * np.sin(x / (7 + 3 * i) + i) * np.cos(y / (9 + 2 * i)) for i in range(channels)]
    return np.stack(waves, -1).round().astype(np.uint8)


def run(command, data):
    done = subprocess.run(command, input=data, capture_output=True)
    return done.stdout if done.returncode == 0 else b""


def drop(data, marker):
    """The file without the first segment of this marker."""
    at = data.find(bytes([0xFF, marker]))
    return data if at < 0 else data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4]) :]


def marked(data):
    """Yields the same file with other markers and component identifiers, as (name, file)."""
    adobe = lambda t: b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0" + bytes([t])
    bare = drop(drop(data, 0xE0), 0xEE)
    yield "bare", bare
    for t in range(3):
        yield f"Adobe {t}", bare[:2] + adobe(t) + bare[2:]
        if b"JFIF" in data:
            yield f"JFIF, Adobe {t}", data[:20] + adobe(t) + data[20:]
        frame = bare.find(b"\xff\xc0")
        if frame > 0:
            late = frame + 2 + int.from_bytes(bare[frame + 2 : frame + 4])
            yield f"Adobe {t} after the frame", bare[:late] + adobe(t) + bare[late:]
    yield "Adobe twice", bare[:2] + adobe(0) + adobe(1) + bare[2:]
    for ids in (b"RGB", b"\0\1\2", b"\1\x22\x23", b"rgb"):
        for name, file in (("", data), (" bare", bare)):
            yield f"names {ids!r}{name}", renamed(file, ids)


def renamed(data, ids):
    """A baseline file of three components with other component identifiers."""
    data, frame, scan = bytearray(data), data.find(b"\xff\xc0"), data.find(b"\xff\xda")
    if frame < 0 or data[frame + 9] != 3:
        return b""
    for i, name in enumerate(ids):
        data[frame + 10 + 3 * i] = data[scan + 5 + 2 * i] = name
    return bytes(data)


def colour(size):
    pixels = b"P6\n%d %d\n255\n" % size + picture(*size).tobytes()
    ways = OPTIONS | {name: ["-scans", script] for name, script in scripts().items()}
    ways["apart, restart"] = [*ways["apart"], "-restart", "1B"]
    ways["pair last, restart"] = [*ways["pair last"], "-restart", "1"]
    for sampling, (name, options) in itertools.product(SAMPLINGS, ways.items()):
        yield f"{sampling} {name}", run(["cjpeg", "-quality", "95", "-sample", sampling, *options], pixels)
    for sampling, name in itertools.product(("1x1", "2x2", "1x1,2x1,1x1"), ("baseline", "progressive", "apart")):
        made = ["-quality", "95", "-sample", sampling, *ways[name]]
        yield f"{sampling} {name} RGB", run(["cjpeg", "-rgb", *made], pixels)
        for what, file in marked(run(["cjpeg", *made], pixels)):
            yield f"{sampling} {name}, {what}", file
    yield "coarse", run(["cjpeg", "-quality", "10", "-sample", "1x1"], pixels)


def grey(size):
    pixels = b"P5\n%d %d\n255\n" % size + picture(*size, 1).tobytes()
    for sampling, (name, options) in itertools.product(("1x1", "2x2", "1x2", "4x4", "3x1"), OPTIONS.items()):
        made = run(["cjpeg", "-grayscale", "-quality", "95", "-sample", sampling, *options], pixels)
        yield f"grey {sampling} {name}", made
        if name == "baseline" and made:
            yield from ((f"grey {sampling}, {what}", file) for what, file in marked(made))


def four(size):
    tran = ["jpegtran", "-copy", "all"]
    ways = [["-progressive"], ["-restart", "1B"], ["-optimize"]]
    ways += [["-scans", script(text)] for text in ("0;1;2;3;", "0,1,2;3;", "0,1;2,3;", "0;1,2,3;")]
    for subsampling in range(3):
        out = io.BytesIO()
        Image.fromarray(picture(*size, 4), "CMYK").save(out, "JPEG", quality=95, subsampling=subsampling)
        for (name, file), way in itertools.product(marked(out.getvalue()), ways):
            yield f"four {subsampling} {name} {' '.join(map(str, way))}", run([*tran, *way], file)


FOLDER = Path(tempfile.mkdtemp())


def script(text):
    path = FOLDER / f"{abs(hash(text))}.txt"
    path.write_text(text + "\n")
    return path


def scripts():
    return {name: script(text) for name, text in SCRIPTS.items()}


def verdict(decoder, number, data):
    """None for a file that was decoded correctly, otherwise what happened."""
    file, out = FOLDER / f"{number}.jpg", FOLDER / f"{number}.png"
    file.write_bytes(data)
    ours = subprocess.run([decoder, "--stored", file, out], capture_output=True, text=True)
    try:
        pillow = np.asarray(Image.open(file).convert("RGB")).astype(int)
    except Exception as error:
        return "READ, though Pillow does not" if ours.returncode == 0 else f"refused by both ({error})"
    if ours.returncode == 0:
        difference = abs(np.asarray(Image.open(out)).astype(int) - pillow)
        return None if difference.max() <= LEVELS else f"WRONG by {difference.max()} levels"
    return "refused: " + ours.stderr.strip().split(": ", 1)[-1] if ours.returncode == 1 else "CRASHED"


def main():
    decoder, keep = sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None
    counts, wrong, total = collections.Counter(), 0, 0
    with ThreadPoolExecutor(4) as pool:
        for size in SIZES:
            files = [(n, d) for n, d in itertools.chain(colour(size), grey(size), four(size)) if d]
            results = pool.map(verdict, itertools.repeat(decoder), range(len(files)), (data for _, data in files))
            for i, ((name, data), result) in enumerate(zip(files, results)):
                total += 1
                counts[result if result and result.startswith("refused") else bool(result)] += 1
                if result and not result.startswith("refused"):
                    wrong += 1
                    print(f"{size[0]}x{size[1]} {name}: {result}")
                    if keep:
                        keep.mkdir(exist_ok=True)
                        (keep / f"{size[0]}x{size[1]}_{i}.jpg").write_bytes(data)
    shutil.rmtree(FOLDER)
    for reason, count in sorted((r, c) for r, c in counts.items() if isinstance(r, str)):
        print(f"{count:6} {reason}")
    print(f"{total} files: {counts[False]} right, {wrong} wrong, {total - counts[False] - wrong} refused")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
