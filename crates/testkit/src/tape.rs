//! Reverse-mode differentiation: a number that records on a tape how it was made, and the gradients by all inputs at once.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub, SubAssign};

use crate::{Formula, Real};

/// How a number was made from those before it on the tape.
#[derive(Debug, Clone, Copy)]
enum Step<T> {
    Input,
    /// A number, and the derivative by it.
    One(u32, T),
    /// Two numbers, and the derivatives by them.
    Two(u32, T, u32, T),
    /// A number divided by a constant.
    Over(u32, T),
    /// A number that went through [`Real::stored`], as its gradient does.
    Stored(u32),
    /// A dot product of two runs of this length.
    Dot(Run, Run, u32),
}

/// Numbers at equal distances on the tape.
#[derive(Debug, Clone, Copy)]
struct Run {
    first: u32,
    step: u32,
}

impl Run {
    fn at(self, i: usize) -> usize {
        self.first as usize + i * self.step as usize
    }
}

/// All numbers of one evaluation, in the order in which they were made.
#[derive(Debug)]
pub struct Tape<T> {
    made: RefCell<(Vec<Step<T>>, Vec<T>)>,
}

impl<T: Real> Tape<T> {
    /// An empty tape.
    #[allow(clippy::new_without_default)] // `T` need not have a default.
    pub fn new() -> Tape<T> {
        Tape { made: RefCell::new((Vec::new(), Vec::new())) }
    }

    /// A number that gradients are asked for.
    pub fn input(&self, v: T) -> Var<'_, T> {
        self.push(Step::Input, v)
    }

    fn push(&self, step: Step<T>, v: T) -> Var<'_, T> {
        let (steps, values) = &mut *self.made.borrow_mut();
        let at = u32::try_from(steps.len()).expect("fewer than 2³² numbers");
        steps.push(step);
        values.push(v);
        Var { v, at: Some((self, at)) }
    }

    /// The numbers as a run; those at unequal distances are copied to the end of the tape first.
    fn run(&self, x: &[Var<'_, T>]) -> Run {
        let place = |i: usize| x.get(i).and_then(|x| x.at).map(|(_, at)| at);
        let (first, second) = (place(0), place(1));
        let step = match (first, second) {
            (Some(first), Some(second)) => second.checked_sub(first),
            _ => Some(0),
        };
        if let (Some(first), Some(step)) = (first, step) {
            let expected =
                |i: usize| u32::try_from(i).ok().and_then(|i| first.checked_add(i.checked_mul(step)?));
            if (0..x.len()).all(|i| place(i).is_some() && place(i) == expected(i)) {
                return Run { first, step };
            }
        }
        let start = self.made.borrow().0.len() as u32;
        for x in x {
            self.push(x.at.map_or(Step::Input, |(_, at)| Step::One(at, T::of(1.0))), x.v);
        }
        Run { first: start, step: 1 }
    }

    /// Adds to `gradients`, which holds those of the results and what those of the inputs start from, the gradients of all.
    fn pull(&self, gradients: &mut [T]) {
        let (steps, values) = &*self.made.borrow();
        for (i, step) in steps.iter().enumerate().rev() {
            let g = gradients[i];
            match *step {
                Step::Input => {}
                Step::One(a, slope) => gradients[a as usize] += g * slope,
                Step::Two(a, slope_a, b, slope_b) => {
                    gradients[a as usize] += g * slope_a;
                    gradients[b as usize] += g * slope_b;
                }
                Step::Over(a, by) => gradients[a as usize] += g / by,
                Step::Stored(a) => gradients[a as usize] += g.stored(),
                Step::Dot(a, b, len) => {
                    for l in 0..len as usize {
                        let (a, b) = (a.at(l), b.at(l));
                        gradients[a] += g * values[b];
                        gradients[b] += g * values[a];
                    }
                }
            }
        }
    }
}

/// A number on a tape, or a constant.
#[derive(Clone, Copy)]
pub struct Var<'t, T> {
    v: T,
    at: Option<(&'t Tape<T>, u32)>,
}

impl<T: fmt::Debug> fmt::Debug for Var<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:?}", self.v, self.at.map(|(_, at)| at))
    }
}

impl<'t, T: Real> Var<'t, T> {
    /// A function's value and its derivative.
    fn chain(self, v: T, slope: T) -> Self {
        match self.at {
            Some((tape, at)) => tape.push(Step::One(at, slope), v),
            None => Var { v, at: None },
        }
    }

    /// The value of a function of two numbers, and its derivatives by them.
    fn join(self, o: Self, v: T, slopes: [T; 2]) -> Self {
        match (self.at, o.at) {
            (Some((tape, a)), Some((_, b))) => tape.push(Step::Two(a, slopes[0], b, slopes[1]), v),
            (Some(_), None) => self.chain(v, slopes[0]),
            (None, _) => o.chain(v, slopes[1]),
        }
    }
}

impl<T: Real> PartialEq for Var<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        self.v == other.v
    }
}

impl<T: Real> PartialOrd for Var<'_, T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.v.partial_cmp(&other.v)
    }
}

impl<T: Real> Neg for Var<'_, T> {
    type Output = Self;
    fn neg(self) -> Self {
        self.chain(-self.v, T::of(-1.0))
    }
}

impl<T: Real> Add for Var<'_, T> {
    type Output = Self;
    fn add(self, o: Self) -> Self {
        self.join(o, self.v + o.v, [T::of(1.0), T::of(1.0)])
    }
}

impl<T: Real> Sub for Var<'_, T> {
    type Output = Self;
    fn sub(self, o: Self) -> Self {
        self.join(o, self.v - o.v, [T::of(1.0), T::of(-1.0)])
    }
}

impl<T: Real> Mul for Var<'_, T> {
    type Output = Self;
    fn mul(self, o: Self) -> Self {
        self.join(o, self.v * o.v, [o.v, self.v])
    }
}

impl<T: Real> Div for Var<'_, T> {
    type Output = Self;
    fn div(self, o: Self) -> Self {
        let v = self.v / o.v;
        match (self.at, o.at) {
            (Some((tape, at)), None) => tape.push(Step::Over(at, o.v), v),
            _ => self.join(o, v, [T::of(1.0) / o.v, -v / o.v]),
        }
    }
}

impl<T: Real> AddAssign for Var<'_, T> {
    fn add_assign(&mut self, o: Self) {
        *self = *self + o;
    }
}

impl<T: Real> SubAssign for Var<'_, T> {
    fn sub_assign(&mut self, o: Self) {
        *self = *self - o;
    }
}

impl<T: Real> Real for Var<'_, T> {
    fn of(x: f64) -> Self {
        Var { v: T::of(x), at: None }
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
    fn erf(self) -> Self {
        let slope = T::of(std::f64::consts::FRAC_2_SQRT_PI) * (-(self.v * self.v)).exp();
        self.chain(self.v.erf(), slope)
    }
    /// One step for the whole sum, so that the tape of a matrix product is as long as the product and not as its terms.
    fn dot(a: &[Self], b: &[Self]) -> Self {
        let len = a.len().min(b.len());
        let (a, b) = (&a[..len], &b[..len]);
        let mut v = T::of(0.0);
        a.iter().zip(b).for_each(|(a, b)| v += a.v * b.v);
        let Some((tape, _)) = a.iter().chain(b).find_map(|x| x.at) else { return Var { v, at: None } };
        let step = Step::Dot(tape.run(a), tape.run(b), len as u32);
        tape.push(step, v)
    }
    fn stored(self) -> Self {
        match self.at {
            Some((tape, at)) => tape.push(Step::Stored(at), self.v.stored()),
            None => Var { v: self.v.stored(), at: None },
        }
    }
}

/// The output of a formula, and the gradient of Σ dy·y by each input on top of what it starts from.
///
/// # Panics
/// When `dy` has not as many numbers as the output, or `before` not as many as the inputs.
pub fn vjp<T: Real>(
    formula: &impl Formula,
    inputs: &[Vec<f32>],
    before: &[f32],
    dy: &[f32],
) -> (Vec<T>, Vec<Vec<T>>) {
    assert_eq!(inputs.len(), before.len(), "a start for every gradient");
    let of = |x: f32| T::of(x.into());
    let tape = Tape::new();
    let leaves: Vec<Vec<_>> = inputs.iter().map(|x| x.iter().map(|&x| tape.input(of(x))).collect()).collect();
    let y = formula.eval(&leaves);
    assert_eq!(y.len(), dy.len(), "a gradient for every output");
    let starts = inputs.iter().zip(before).flat_map(|(x, &start)| vec![of(start); x.len()]);
    let mut gradients: Vec<T> = starts.collect();
    gradients.resize(tape.made.borrow().0.len(), T::of(0.0));
    for (y, &dy) in y.iter().zip(dy) {
        if let Some((_, at)) = y.at {
            gradients[at as usize] += of(dy);
        }
    }
    tape.pull(&mut gradients);
    let mut all = gradients.into_iter();
    let gradients = inputs.iter().map(|x| all.by_ref().take(x.len()).collect()).collect();
    (y.into_iter().map(|y| y.v).collect(), gradients)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dual, Rounded, normal};

    /// Every operation, numbers used twice, constants, and dot products of runs, of scattered numbers and of constants.
    struct Everything;

    impl Formula for Everything {
        fn eval<T: Real>(&self, inputs: &[Vec<T>]) -> Vec<T> {
            let [x, w] = inputs else { unreachable!() };
            let square: Vec<T> = x.iter().map(|&x| x * x + T::of(1.0)).collect();
            let mut y: Vec<T> = square.iter().map(|x| x.sqrt() / x.ln().exp() - (-x.tanh()).erf()).collect();
            let quotients = T::of(2.0) / y[1] - x[0] / T::of(3.0);
            y[0] += quotients;
            let difference = T::of(3.0) - T::dot(&square, w) * T::of(0.1);
            y[1] -= difference;
            let mixed = [y[2], x[1], T::of(0.5), w[0]];
            y.push(T::dot(&mixed, &square) + T::dot(&w[..0], w) + T::dot(&[T::of(2.0); 2], &[w[3], w[1]]));
            y.push(T::dot(&[x[0], x[0], x[2], x[3]], &[w[3], w[2], w[1], w[0]]));
            y.iter().map(|y| y.stored()).collect()
        }
    }

    #[test]
    fn gradients_are_those_of_dual_numbers() {
        let (inputs, dy) = ([normal(1, 4), normal(2, 4)], normal(3, 6));
        let (y, gradients) = vjp::<f64>(&Everything, &inputs, &[0.0, 0.25], &dy);
        let lift = |which, i| -> Vec<Vec<Dual<f64>>> {
            let lift = |(k, x): (usize, &Vec<f32>)| {
                let d = |j| if (k, j) == (which, i) { 1.0 } else { 0.0 };
                x.iter().enumerate().map(|(j, &v)| Dual { v: v.into(), d: d(j) }).collect()
            };
            inputs.iter().enumerate().map(lift).collect()
        };
        for (which, start) in [0.0, 0.25].into_iter().enumerate() {
            for (i, g) in gradients[which].iter().enumerate() {
                let duals = Everything.eval(&lift(which, i));
                let sum: f64 = duals.iter().zip(&dy).map(|(y, &dy)| y.d * f64::from(dy)).sum();
                assert!((g - start - sum).abs() < 1e-12, "{which} {i}: {g} {sum}");
                assert!(duals.iter().zip(&y).all(|(dual, y)| (dual.v - y).abs() < 1e-12));
            }
        }
    }

    /// A stored number is rounded on the way forwards, and its gradient on the way back.
    #[test]
    fn stored_numbers_are_rounded_both_ways() {
        struct Product;
        impl Formula for Product {
            fn eval<T: Real>(&self, x: &[Vec<T>]) -> Vec<T> {
                vec![(x[0][0].stored() * x[0][1]).stored()]
            }
        }
        let inputs = [vec![1.0, 1.0 + 1.0 / 256.0]];
        let (y, gradients) = vjp::<Rounded<f32>>(&Product, &inputs, &[0.0], &[1.0 + 3.0 / 256.0]);
        assert_eq!((y[0].0, gradients[0][1].0), (1.0, 1.0 + 4.0 / 256.0));
        assert_eq!(gradients[0][0].0, 1.0 + 6.0 / 256.0);
    }
}
