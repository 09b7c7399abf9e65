#!/usr/bin/env python3
"""Compares the tokenizer with the Java program inside pycocoevalcap (PyPI) on random text.

cargo build -p pheye-metrics --example tokenize && crates/metrics/tests/oracle.py target/debug/examples/tokenize [SEED] [LINES]
Exit code 1 if a line differs. Java does not take every Greek capital sigma for final where Unicode does.
"""
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

import pycocoevalcap.tokenizer.ptbtokenizer as original

BREAKS = set("\n\r\x0b\x0c\u2028\u2029")
ATOMS = (
    "a B ab The the dog I Mr Mrs Inc Jan U.S C no No 1 12 123 1234 2019 $ # ' ’ “ ” \" ` - -- — – . .. ... , ; : ! ? ( ) [ ] / & %"
    " @ + * = _ ~ 's n't 're O' St vs etc e.g a.m Ph.D www. http:// .com .jpg ½ ¼ ° é É ñ ² &amp; &quot; < > <b> :) can not gonna"
    " US$ € £ 10:30 3.5 1,000 1/2 and/or Sino-U.S Corp Co Ltd Jr It He They x-ray AT&T 'em '90s y'all ma'am … ll s d t m"
).split() + [" "] * 12 + ["\u00a0", "\u200b", "\u00ad"]


def java(lines):
    folder = pathlib.Path(original.__file__).parent
    with tempfile.NamedTemporaryFile(suffix=".txt") as file:
        file.write("\n".join(lines).encode())
        file.flush()
        command = ["java", "-Dfile.encoding=UTF-8", "-cp", str(folder / original.STANFORD_CORENLP_3_4_1_JAR)]
        command += ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase", file.name]
        environment = dict(os.environ, LC_ALL="C.UTF-8")
        return subprocess.run(command, capture_output=True, env=environment, check=True).stdout.decode().split("\n")


def line(rng, texts):
    kind = rng.randrange(4)
    if kind == 0:
        made = "".join(rng.choice(ATOMS) for _ in range(rng.randint(1, 10)))
    elif kind == 1:
        made = "".join(chr(rng.randint(32, 126)) for _ in range(rng.randint(1, 16)))
    elif kind == 2:
        made = "".join(chr(rng.choice([rng.randint(32, 591), rng.randint(0x2000, 0x2BFF), rng.randint(0x250, 0xD7FF)])) for _ in range(8))
    else:
        made = list(rng.choice(texts))
        for _ in range(rng.randint(1, 4)):
            at = rng.randint(0, len(made))
            made[at : at + rng.randint(0, 1)] = [rng.choice(ATOMS)]
    return "".join(" " if c in BREAKS else c for c in made)


program = sys.argv[1]
seed, count = (int(a) for a in (sys.argv[2:] + ["1", "20000"][len(sys.argv) - 2 :]))
golden = json.load(open(pathlib.Path(__file__).parent / "data/ptb_tokens.json"))["rows"]
rng = random.Random(seed)
lines = [line(rng, [row[0] for row in golden]) for _ in range(count)]
mine = subprocess.run([program], input="\n".join(lines + ["x", ""]).encode(), capture_output=True, check=True).stdout.decode().split("\n")
theirs = java(lines + ["x", ""])
differing = [(text, a, b) for text, a, b in zip(lines, theirs, mine) if a.rstrip(" ") != b]
for text, a, b in differing[:20]:
    print(f"{text!r}\n  original {a!r}\n  here     {b!r}")
print(f"{len(differing)} of {count} lines differ")
sys.exit(bool(differing))
