#!/usr/bin/env python3
"""Runs the lines at the end of `pheye convert --help`: PEFT over CLIP with an extracted adapter gives what the tower with
that adapter merged gives. Needs torch, transformers, peft and safetensors.

cargo build -p pheye-cli && crates/model/tests/peft_lines.py target/debug/pheye
"""
import subprocess
import sys
import tempfile
from pathlib import Path

import peft
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file
from transformers import CLIPVisionModel

golden = Path(__file__).parents[3] / "tests/golden/x2-level2"
pheye = Path(sys.argv[1]).resolve()
with tempfile.TemporaryDirectory() as folder:
    top = Path(folder)
    for to, *options in [["adapters", "--extract-lora"], ["merged", "--merge-lora", "local"], ["own"]]:
        subprocess.run([pheye, "convert", golden, top / to, *options], check=True)
    merged = CLIPVisionModel.from_pretrained(top / "merged").double().eval()
    # The tower without adapters, as transformers publishes it.
    prefix = "vision_encoder.vision_model.base_model.model."
    tensors = load_file(top / "own/model.safetensors")
    own = {k: t for k, t in tensors.items() if k.startswith(prefix) and "lora" not in k}
    plain = CLIPVisionModel(merged.config)
    names = {k.removeprefix(prefix).replace(".base_layer", ""): t.float() for k, t in own.items()}
    getattr(plain, "vision_model", plain).load_state_dict(names)
    plain.save_pretrained(top / "clip")

    clip = CLIPVisionModel.from_pretrained(top / "clip")
    adapted = PeftModel.from_pretrained(getattr(clip, "vision_model", clip), top / "adapters/second").double().eval()

    size = merged.config.image_size
    x = torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a, b, c = (m(x).last_hidden_state for m in (adapted, merged, plain.double().eval()))
    print(f"transformers {transformers.__version__}, PEFT {peft.__version__}: adapter and merged differ by "
          f"{(a - b).abs().max():.1e}, adapter and plain by {(a - c).abs().max():.1e}")
    assert (a - b).abs().max() < 1e-4 < (a - c).abs().max()
