"""LayerNorm, alone and with what goes with it in a block, and GELU in PyTorch, eager and compiled, and Liger's where it is installed."""
import torch
import torch.nn.functional as F
from timing import Peers

try:
    from liger_kernel.ops.layer_norm import LigerLayerNormFunction
except ImportError:
    LigerLayerNormFunction = None

ACTIVATIONS = {
    "gelu quick": lambda x: x * torch.sigmoid(1.702 * x),
    "gelu exact": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
}


def functions(p, row, dims):
    """Name and function of each rival, and what it is a function of."""
    x = p.random(*dims).requires_grad_()
    if row["op"] in ACTIVATIONS:
        f = ACTIVATIONS[row["op"]]
        return {"eager": f, "torch.compile": torch.compile(f)}, [x], []
    trained = row.get("trained", False)
    weight, bias = (p.random(dims[1]).requires_grad_(trained) for _ in range(2))
    norm = lambda x: F.layer_norm(x, dims[1:], weight, bias, 1e-5)
    learned = [weight, bias] if trained else []
    if row["op"] == "layernorm residual":
        # x goes on beside its norm, as in a pre-norm block: backward adds the gradients of both.
        with_residual = lambda x: (x, norm(x))
        return {"eager": with_residual, "torch.compile": torch.compile(with_residual)}, [x], learned
    if row["op"] == "layernorm lora":
        a = p.random(row["rank"], dims[1])
        with_down = lambda x: (y := norm(x), F.linear(y, a))
        return {"eager": with_down, "torch.compile": torch.compile(with_down)}, [x], learned
    all = {"F.layer_norm": norm, "torch.compile(F.layer_norm)": torch.compile(norm)}
    if LigerLayerNormFunction and p.cuda:
        all["Liger"] = lambda x: LigerLayerNormFunction.apply(x, weight, bias, 1e-5)
    return all, [x], learned


def rows(p):
    for row in p.rows():
        dims = (row["rows"], row["cols"])
        shape = f"{dims[0]}x{dims[1]}" + (" trained" if row.get("trained") else "")
        shape += f" r{row['rank']}" if "rank" in row else ""
        all, inputs, learned = functions(p, row, dims)
        for backend, f in all.items():
            def forward():
                with torch.no_grad():
                    return f(*inputs)
            if row["op"] != "layernorm residual":
                p.row(row["op"], shape, "forward", backend, lambda: forward)
            if row["op"] != "layernorm lora":
                make = lambda: p.backward(lambda: f(*inputs), [inputs[0], *learned], dims)
                p.row(row["op"], shape, "backward", backend, make)


if __name__ == "__main__":
    p = Peers("rowwise")
    rows(p)
    p.done()
