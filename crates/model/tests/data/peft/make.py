"""Writes the adapters in this folder with PEFT, for the tower of tests/golden/level1, and the output of the tower with each
of them, so that loading and merging can be compared with PEFT.

    pip install torch transformers==4.37.2 peft==0.10.0 safetensors
    python crates/model/tests/data/peft/make.py
"""
import json
import pathlib
import shutil

import peft
import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModel

here = pathlib.Path(__file__).resolve().parent
golden = here.parents[4] / "tests/golden/level1"
torch.manual_seed(1)

config = CLIPVisionConfig(**json.loads((golden / "encoder/config.json").read_text())["vision_config"])
model = CLIPVisionModel(config).eval()
prefix = "vision_encoder.vision_model.base_model.model."
stored = torch.load(golden / "checkpoint.pt", map_location="cpu", weights_only=True)
stored = {k[len(prefix):].replace(".base_layer", ""): v for k, v in stored.items()
          if k.startswith(prefix) and ".lora_" not in k}
missing, unused = model.vision_model.load_state_dict(stored, strict=False)
assert not [k for k in [*missing, *unused] if not k.endswith("position_ids")], (missing, unused)

modules = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2", "patch_embedding"]
pixels = torch.randn(2, 3, config.image_size, config.image_size)
out = {"pixels": pixels, "plain": model.vision_model(pixels).last_hidden_state.detach()}


def lora(r, alpha):
    return peft.LoraConfig(r=r, lora_alpha=alpha, lora_dropout=0.05, target_modules=modules)


adapted = peft.get_peft_model(model.vision_model, lora(3, 5), adapter_name="first")
adapted.add_adapter("second", lora(2, 4))
for name, p in adapted.named_parameters():
    if ".lora_" in name:
        torch.nn.init.normal_(p, std=0.05)
adapted.eval()
for name in ["first", "second"]:
    shutil.rmtree(here / name, ignore_errors=True)
    adapted.set_adapter(name)
    out[name] = adapted(pixels).last_hidden_state.detach()
adapted.save_pretrained(here)
(here / "README.md").unlink(missing_ok=True)
for name in ["first", "second"]:
    (here / name / "README.md").unlink(missing_ok=True)
save_file({k: v.contiguous() for k, v in out.items()}, here / "out.safetensors")
