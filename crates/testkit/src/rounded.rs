//! A number whose stored intermediates are bf16: the plain version of what kernels do between their launches.

use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub, SubAssign};

use half::bf16;

use crate::Real;

/// Arithmetic of `T`; [`Real::stored`] rounds to the nearest bf16, ties to even.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Rounded<T>(pub T);

impl<T: Real> Neg for Rounded<T> {
    type Output = Self;
    fn neg(self) -> Self {
        Rounded(-self.0)
    }
}

macro_rules! arithmetic {
    ($($of:ident $f:ident),*) => {$(
        impl<T: Real> $of for Rounded<T> {
            type Output = Self;
            fn $f(self, o: Self) -> Self {
                Rounded(self.0.$f(o.0))
            }
        }
    )*};
}
arithmetic!(Add add, Sub sub, Mul mul, Div div);

impl<T: Real> AddAssign for Rounded<T> {
    fn add_assign(&mut self, o: Self) {
        self.0 += o.0;
    }
}

impl<T: Real> SubAssign for Rounded<T> {
    fn sub_assign(&mut self, o: Self) {
        self.0 -= o.0;
    }
}

impl<T: Real> Real for Rounded<T> {
    fn of(x: f64) -> Self {
        Rounded(T::of(x))
    }
    fn value(self) -> f64 {
        self.0.value()
    }
    fn exp(self) -> Self {
        Rounded(self.0.exp())
    }
    fn ln(self) -> Self {
        Rounded(self.0.ln())
    }
    fn sqrt(self) -> Self {
        Rounded(self.0.sqrt())
    }
    fn tanh(self) -> Self {
        Rounded(self.0.tanh())
    }
    fn erf(self) -> Self {
        Rounded(self.0.erf())
    }
    fn stored(self) -> Self {
        Rounded(T::of(bf16::from_f64(self.value()).to_f64()))
    }
}
