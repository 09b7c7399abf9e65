"""Attention in PyTorch: scaled_dot_product_attention with each of its backends forced."""
import torch
import torch.nn.functional as F
from timing import Peers
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {
    "SDPA flash": SDPBackend.FLASH_ATTENTION,
    "SDPA cuDNN": SDPBackend.CUDNN_ATTENTION,
    "SDPA efficient": SDPBackend.EFFICIENT_ATTENTION,
    "SDPA math": SDPBackend.MATH,
}


def rows(p):
    for row in p.rows():
        op, b, lq, lk, h, d = (row[k] for k in ("op", "batch", "lq", "lk", "heads", "head_dim"))
        # SDPA wants q, k and v of one type: keys and values kept in bf16 have the same rivals.
        shape = f"{b}x{lq}x{lk}x{h}x{d}" + (f" {row['kept']} k,v" if "kept" in row else "")
        causal = op.startswith("causal")
        # As linears write them: heads side by side in a row.
        q = p.random(b, lq, h, d).requires_grad_()
        if lq == lk:
            k, v = (p.random(b, lk, h, d).requires_grad_() for _ in range(2))
        else:
            k, v = (t.requires_grad_() for t in p.random(b, lk, 2, h, d).unbind(2))
        heads = [t.transpose(1, 2) for t in (q, k, v)]
        for backend, kind in BACKENDS.items():
            def forward():
                with torch.no_grad(), sdpa_kernel(kind):
                    return F.scaled_dot_product_attention(*heads, is_causal=causal)

            def tracked():
                with sdpa_kernel(kind):
                    return F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), is_causal=causal)

            p.row(op, shape, "forward", backend, lambda: forward)
            if not row.get("forward_only"):
                p.row(op, shape, "backward", backend, lambda: p.backward(tracked, [q, k, v], (b, h, lq, d)))


if __name__ == "__main__":
    p = Peers("attention")
    rows(p)
    p.done()
