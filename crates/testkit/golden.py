"""Golden data of a part of a network, for scripts beside the tests of other crates; `Golden` of this crate reads it.

`write` runs a formula in float64, in plain float32 and in plain bf16, each with its gradients, and writes

- the inputs: parameters by the names of a checkpoint, and activations; all of them are bf16 values, so that kernels read the same
- `dy`, the gradient of the output `y`
- `NAME_f64` for `y` and for `grad.INPUT` of every input
- `NAME_f32_error` and `NAME_bf16_error`, how far the plain results are from these, at most

Plain bf16 computes in float32 and rounds every tensor between two operations, and its gradient, with `stored`.
"""
import torch
from safetensors.torch import save_file


class Stored(torch.autograd.Function):
    """The identity of a tensor that is bf16 between two operations, and so is its gradient."""

    @staticmethod
    def forward(ctx, x):
        return x.bfloat16().to(x.dtype)

    @staticmethod
    def backward(ctx, g):
        return g.bfloat16().to(g.dtype)


def results(formula, inputs, dy, dtype, stored):
    """y, and the gradients of the inputs, in this precision."""
    inputs = {name: x.detach().clone().to(dtype).requires_grad_() for name, x in inputs.items()}
    y = formula(inputs, stored)
    y.backward(dy.to(dtype))
    return {"y": y.detach()} | {f"grad.{name}": x.grad for name, x in inputs.items()}


def write(path, formula, inputs):
    """Writes the results of `formula(inputs, stored)` for random `dy`, after `torch.manual_seed`."""
    inputs = {name: x.bfloat16().float() for name, x in inputs.items()}
    dy = torch.randn(formula(inputs, lambda x: x).shape).bfloat16().float()
    truth = results(formula, inputs, dy, torch.float64, lambda x: x)
    plain = {
        "f32": results(formula, inputs, dy, torch.float32, lambda x: x),
        "bf16": results(formula, inputs, dy, torch.float32, Stored.apply),
    }
    out = inputs | {"dy": dy}
    for name, t in truth.items():
        out[f"{name}_f64"] = t
        for precision, result in plain.items():
            out[f"{name}_{precision}_error"] = (result[name].double() - t).abs().max().reshape(1)
    save_file({name: t.contiguous() for name, t in out.items()}, path)
    print(path, path.stat().st_size)


def around(middle, spread, *shape):
    """Random values around `middle`."""
    return middle + spread * torch.randn(shape)
