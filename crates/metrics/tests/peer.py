#!/usr/bin/env python3
"""Times the scorers of pycocoevalcap (PyPI) and difflib on what the example `speed` writes, and prints their scores.

cargo run --release -p pheye-metrics --example speed -- 40000 tokens.json && crates/metrics/tests/peer.py tokens.json
"""
import contextlib
import difflib
import io
import json
import sys
import time

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

data = json.load(open(sys.argv[1]))
rows = data["captions"]
captions = {i: [caption] for i, (caption, _) in enumerate(rows)}
references = {i: texts for i, (_, texts) in enumerate(rows)}
for name, scorer in [("BLEU", Bleu(4)), ("ROUGE-L", Rouge()), ("CIDEr", Cider())]:
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        score, _ = scorer.compute_score(references, captions)
    score = score[3] if isinstance(score, list) else score
    print(f"{name:<12} {time.perf_counter() - start:.2f} s  {score!r}")
start = time.perf_counter()
total = sum(difflib.SequenceMatcher(None, a, b).ratio() for a, b in data["pairs"])
print(f"{'difflib':<12} {time.perf_counter() - start:.2f} s  {total!r}")
