//! Operations that the lanes of a warp do together: each lane arrives with its operands, the last one does the work.

/// What a warp does together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Shuffle,
    Ballot,
    Barrier,
    LoadMatrix { count: usize, transpose: bool },
    MultiplyMatrix,
}

impl Operation {
    pub fn name(self) -> &'static str {
        match self {
            Operation::Shuffle => "shuffle",
            Operation::Ballot => "vote",
            Operation::Barrier => "__syncwarp",
            Operation::LoadMatrix { .. } => "ldmatrix",
            Operation::MultiplyMatrix => "mma",
        }
    }
}

/// What a lane brings: a value and a lane to take one from, or up to three addresses.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Operands {
    pub value: u32,
    pub lane: u32,
    pub address: [usize; 3],
}

/// An operation that some lanes of its mask have yet to reach.
#[derive(Debug)]
pub(crate) struct Pending {
    pub operation: Operation,
    pub mask: u32,
    pub arrived: u32,
    pub operands: [Operands; 32],
}

/// A warp: its open operations (of disjoint masks), the lanes gone, and what the last operation gave each lane.
#[derive(Debug, Default)]
pub(crate) struct Warp {
    pub pending: Vec<Pending>,
    pub exited: u32,
    pub results: [u32; 32],
}
