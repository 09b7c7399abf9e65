//! Operations of a warp. Each lane arrives with its operands, and the last to arrive performs the operation.

/// The kind of a warp operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Shuffle,
    Ballot,
    Barrier,
    LoadMatrix { count: usize, transpose: bool },
    MultiplyMatrix,
}

impl Operation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Operation::Shuffle => "shuffle",
            Operation::Ballot => "vote",
            Operation::Barrier => "__syncwarp",
            Operation::LoadMatrix { .. } => "ldmatrix",
            Operation::MultiplyMatrix => "mma",
        }
    }
}

/// The operands of a lane: a value and a source lane, or up to three addresses.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Operands {
    pub value: u32,
    pub lane: u32,
    pub address: [usize; 3],
}

/// An operation at which some lanes of its mask have not arrived yet.
#[derive(Debug)]
pub(crate) struct Pending {
    pub operation: Operation,
    pub mask: u32,
    pub arrived: u32,
    pub operands: [Operands; 32],
}

/// A warp: its pending operations (of disjoint masks), its exited lanes, and each lane's last result.
#[derive(Debug, Default)]
pub(crate) struct Warp {
    pub pending: Vec<Pending>,
    pub exited: u32,
    pub results: [u32; 32],
}
