//! The order in which the threads of a block run. A kernel whose result depends on the order has a race.

/// The order in which the threads of a block take turns, between barriers and warp operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// 0, 1, 2, …
    #[default]
    Forward,
    /// Reversed: the last thread first.
    Reversed,
    /// The warps, and the lanes of each warp, are shuffled with this seed.
    Shuffled(u64),
}

impl Order {
    /// The numbers 0..n in this order. `salt` gives each list its own shuffle.
    pub(crate) fn of(self, n: usize, salt: u64) -> Vec<usize> {
        let mut list: Vec<usize> = (0..n).collect();
        match self {
            Order::Forward => {}
            Order::Reversed => list.reverse(),
            Order::Shuffled(seed) => {
                let mut state = seed ^ salt.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                for i in (1..n).rev() {
                    list.swap(i, (splitmix64(&mut state) % (i as u64 + 1)) as usize);
                }
            }
        }
        list
    }
}

/// Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA'14.
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
