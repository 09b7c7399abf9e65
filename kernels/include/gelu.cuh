// The three forms of GELU and their derivatives. Phi is the normal distribution function and sigma the logistic function.
//   exact  x Phi(x)
//   tanh   x/2 (1 + tanh(u)) = x sigma(2u), u = sqrt(2/pi) (x + 0.044715 x^3)
//   quick  x sigma(1.702 x)
#pragma once
#include "math.cuh"

enum Gelu : int { GELU_NONE = 0, GELU_EXACT = 1, GELU_TANH = 2, GELU_QUICK = 3 };

__device__ inline float sigmoid(float z) { return reciprocal(1.f + expf(-z)); }
// sigma(z), and in `slope` its derivative sigma'(z) = sigma^2 exp(-z), which avoids the cancellation in 1 - sigma. z is clamped
// at -80, where both are negligible, because exp(-z) would overflow for smaller z.
__device__ inline float sigmoid_and_slope(float z, float& slope) {
    const float e = expf(-fmaxf(z, -80.f)), s = reciprocal(1.f + e);
    slope = s * s * e;
    return s;
}

__device__ inline float gelu(float x, int kind) {
    if (kind == GELU_EXACT) return x * (0.5f + 0.5f * erff(x * 0.70710678118654752f));
    if (kind == GELU_TANH) return x * sigmoid(x * fmaf(0.0713548162726f, x * x, 1.5957691216057f));
    if (kind == GELU_QUICK) return x * sigmoid(1.702f * x);
    return x;
}
__device__ inline float gelu_slope(float x, int kind) {
    if (kind == GELU_EXACT) {
        return fmaf(x * 0.39894228040143268f, expf(-0.5f * x * x), 0.5f + 0.5f * erff(x * 0.70710678118654752f));
    }
    if (kind == GELU_TANH) {
        float slope;
        const float s = sigmoid_and_slope(x * fmaf(0.0713548162726f, x * x, 1.5957691216057f), slope);
        return fmaf(x * fmaf(3.f * 0.0713548162726f, x * x, 1.5957691216057f), slope, s);
    }
    if (kind == GELU_QUICK) {
        float slope;
        const float s = sigmoid_and_slope(1.702f * x, slope);
        return fmaf(1.702f * x, slope, s);
    }
    return 1.f;
}
