//! The number types of formulas: f32, f64, and dual numbers.

use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub, SubAssign};

/// A number type that formulas are generic over.
pub trait Real:
    Copy
    + PartialOrd
    + Neg<Output = Self>
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + AddAssign
    + SubAssign
{
    /// The constant `x`, rounded to this type.
    fn of(x: f64) -> Self;
    /// The value as f64, without the derivative.
    fn value(self) -> f64;
    /// eˣ.
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// Error function.
    fn erf(self) -> Self;
    /// Σ aᵢbᵢ.
    fn dot(a: &[Self], b: &[Self]) -> Self {
        let mut sum = Self::of(0.0);
        a.iter().zip(b).for_each(|(&a, &b)| sum += a * b);
        sum
    }
    /// The number as a tensor between two kernels keeps it; only [`crate::Rounded`] rounds it.
    fn stored(self) -> Self {
        self
    }
}

/// The larger of two numbers; `a` if they are equal.
pub fn max<T: Real>(a: T, b: T) -> T {
    if b > a { b } else { a }
}

impl Real for f64 {
    fn of(x: f64) -> f64 {
        x
    }
    fn value(self) -> f64 {
        self
    }
    fn exp(self) -> f64 {
        self.exp()
    }
    fn ln(self) -> f64 {
        self.ln()
    }
    fn sqrt(self) -> f64 {
        self.sqrt()
    }
    fn tanh(self) -> f64 {
        self.tanh()
    }
    /// By the series e^(-x²)·Σ 2ⁿx²ⁿ⁺¹/(2n+1)!! times 2/√π, whose terms all have the sign of x.
    fn erf(self) -> f64 {
        if self.abs() > 6.0 {
            return self.signum();
        }
        let (mut term, mut sum, mut n) = (self, self, 0.0);
        while term.abs() > 1e-18 * sum.abs() {
            n += 1.0;
            term *= 2.0 * self * self / (2.0 * n + 1.0);
            sum += term;
        }
        (-self * self).exp() * sum * std::f64::consts::FRAC_2_SQRT_PI
    }
}

impl Real for f32 {
    fn of(x: f64) -> f32 {
        x as f32
    }
    fn value(self) -> f64 {
        self.into()
    }
    fn exp(self) -> f32 {
        self.exp()
    }
    fn ln(self) -> f32 {
        self.ln()
    }
    fn sqrt(self) -> f32 {
        self.sqrt()
    }
    fn tanh(self) -> f32 {
        self.tanh()
    }
    fn erf(self) -> f32 {
        Real::erf(f64::from(self)) as f32
    }
}

/// A dual number: a value and its derivative with respect to one chosen input (forward-mode differentiation).
#[derive(Debug, Clone, Copy)]
pub struct Dual<T> {
    /// The value.
    pub v: T,
    /// The derivative.
    pub d: T,
}

impl<T: PartialEq> PartialEq for Dual<T> {
    fn eq(&self, other: &Self) -> bool {
        self.v == other.v
    }
}

impl<T: PartialOrd> PartialOrd for Dual<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.v.partial_cmp(&other.v)
    }
}

impl<T: Real> Neg for Dual<T> {
    type Output = Self;
    fn neg(self) -> Self {
        Dual { v: -self.v, d: -self.d }
    }
}

impl<T: Real> Add for Dual<T> {
    type Output = Self;
    fn add(self, o: Self) -> Self {
        Dual { v: self.v + o.v, d: self.d + o.d }
    }
}

impl<T: Real> Sub for Dual<T> {
    type Output = Self;
    fn sub(self, o: Self) -> Self {
        Dual { v: self.v - o.v, d: self.d - o.d }
    }
}

impl<T: Real> Mul for Dual<T> {
    type Output = Self;
    fn mul(self, o: Self) -> Self {
        Dual { v: self.v * o.v, d: self.d * o.v + self.v * o.d }
    }
}

impl<T: Real> Div for Dual<T> {
    type Output = Self;
    fn div(self, o: Self) -> Self {
        let v = self.v / o.v;
        Dual { v, d: (self.d - v * o.d) / o.v }
    }
}

impl<T: Real> AddAssign for Dual<T> {
    fn add_assign(&mut self, o: Self) {
        *self = *self + o;
    }
}

impl<T: Real> SubAssign for Dual<T> {
    fn sub_assign(&mut self, o: Self) {
        *self = *self - o;
    }
}

impl<T: Real> Dual<T> {
    fn chain(self, v: T, slope: T) -> Self {
        Dual { v, d: self.d * slope }
    }
}

impl<T: Real> Real for Dual<T> {
    fn of(x: f64) -> Self {
        Dual { v: T::of(x), d: T::of(0.0) }
    }
    fn value(self) -> f64 {
        self.v.value()
    }
    fn exp(self) -> Self {
        let y = self.v.exp();
        self.chain(y, y)
    }
    fn ln(self) -> Self {
        self.chain(self.v.ln(), T::of(1.0) / self.v)
    }
    fn sqrt(self) -> Self {
        let y = self.v.sqrt();
        self.chain(y, T::of(0.5) / y)
    }
    fn tanh(self) -> Self {
        let y = self.v.tanh();
        self.chain(y, T::of(1.0) - y * y)
    }
    fn stored(self) -> Self {
        Dual { v: self.v.stored(), d: self.d.stored() }
    }
    fn erf(self) -> Self {
        let slope = T::of(std::f64::consts::FRAC_2_SQRT_PI) * (-(self.v * self.v)).exp();
        self.chain(self.v.erf(), slope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_at_known_points() {
        for (x, y) in
            [(0.0f64, 0.0f64), (0.5, 0.520_499_877_813_046_5), (-2.0, -0.995_322_265_018_952_7), (7.0, 1.0)]
        {
            assert!((Real::erf(x) - y).abs() < 1e-15, "{x}");
        }
    }

    #[test]
    fn derivatives_match_differences() {
        fn f<T: Real>(x: T) -> T {
            let mut y = x.exp() / (x.sqrt() + x.ln() - T::of(3.0)) - -(x.tanh() * x.erf());
            y += x * x;
            y -= max(x, T::of(0.5));
            y
        }
        for x in [0.2f64, 0.7, 1.3] {
            let d = f(Dual { v: x, d: 1.0 }).d;
            let h = 1e-5;
            let difference = (f(x + h) - f(x - h)) / (2.0 * h);
            assert!((d - difference).abs() < 1e-7 * d.abs().max(1.0), "{x}: {d} {difference}");
        }
    }
}
