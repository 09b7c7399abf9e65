//! A kernel's fault as a sentence: what happened, in which block and thread, at which address.

/// What a kernel did wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kernel `{kernel}`, block ({}, {}, {}), thread {thread}: {kind}", block[0], block[1], block[2])]
pub struct Fault {
    /// The kernel.
    pub kernel: String,
    /// Index of the block.
    pub block: [u32; 3],
    /// Index of the thread in its block.
    pub thread: u32,
    /// What happened.
    pub kind: Kind,
}

impl Fault {
    pub(crate) fn new(kernel: &str, block: [u32; 3], thread: usize, kind: Kind) -> Fault {
        Fault { kernel: kernel.to_owned(), block, thread: thread as u32, kind }
    }
}

/// The kinds of faults.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Kind {
    /// An access to memory that the launch did not name.
    #[error("{what} of {bytes} bytes out of bounds at {addr:#x}, {near}")]
    OutOfBounds {
        /// `read` or `write`.
        what: &'static str,
        /// Address.
        addr: usize,
        /// Size of the access.
        bytes: usize,
        /// Where that is, seen from the nearest buffer.
        near: String,
    },
    /// An access to shared memory beyond the block's.
    #[error("{what} of {bytes} bytes at byte {offset} of shared memory, which has {size}")]
    SharedOutOfBounds {
        /// `read` or `write`.
        what: &'static str,
        /// Offset from the start of shared memory.
        offset: isize,
        /// Size of the access.
        bytes: usize,
        /// Bytes of shared memory.
        size: usize,
    },
    /// An access whose address is no multiple of its size.
    #[error("{what} of {bytes} bytes at {addr:#x}, which is not aligned to it")]
    Misaligned {
        /// `read` or `write`.
        what: &'static str,
        /// Address.
        addr: usize,
        /// Size of the access.
        bytes: usize,
    },
    /// A read of shared memory that nobody wrote.
    #[error("read of shared memory at byte {offset}, which nobody wrote")]
    Unwritten {
        /// Offset from the start of shared memory.
        offset: usize,
    },
    /// An access to shared memory that a cp.async of thread `by` may still be filling.
    #[error(
        "{what} of shared memory at byte {offset} while a cp.async of thread {by} is in flight: a wait is missing"
    )]
    InFlight {
        /// `read` or `write`.
        what: &'static str,
        /// Offset from the start of shared memory.
        offset: usize,
        /// The thread that issued the copy.
        by: u32,
    },
    /// Two threads on one word of shared memory, at least one of them writing, and no barrier between.
    #[error(
        "race on shared memory at byte {offset}: {what} here, {other} by thread {by}, and no barrier between them"
    )]
    Race {
        /// What this thread does.
        what: &'static str,
        /// What the other thread did.
        other: &'static str,
        /// Offset from the start of shared memory.
        offset: usize,
        /// The other thread.
        by: u32,
    },
    /// A write to a buffer that the launch gave for reading, or a read of one it gave for writing.
    #[error("{what} of `{buffer}`, which the launch gave as {access}")]
    Access {
        /// `read` or `write`.
        what: &'static str,
        /// The buffer.
        buffer: String,
        /// How the launch gave it.
        access: &'static str,
    },
    /// Two blocks wrote one element.
    #[error("write of element at byte {offset} of `{buffer}`, which block {other} writes too")]
    WrittenTwice {
        /// The buffer.
        buffer: String,
        /// Offset in the buffer.
        offset: usize,
        /// Linear index of the other block.
        other: u32,
    },
    /// An output element that no thread of any block wrote.
    #[error("nobody wrote the element at byte {offset} of the output `{buffer}`")]
    NeverWritten {
        /// The buffer.
        buffer: String,
        /// Offset in the buffer.
        offset: usize,
    },
    /// A barrier that some threads never reach.
    #[error("{waiting} threads wait at a barrier that thread {missing} does not reach: it {state}")]
    Barrier {
        /// Threads waiting.
        waiting: usize,
        /// One that is not.
        missing: u32,
        /// What it does instead.
        state: &'static str,
    },
    /// A warp operation whose mask names lanes that have exited.
    #[error("{operation} with mask {mask:#010x}, of which lanes {exited:#010x} have exited")]
    ExitedLanes {
        /// The operation.
        operation: &'static str,
        /// Its mask.
        mask: u32,
        /// Lanes gone.
        exited: u32,
    },
    /// A warp operation that names a lane outside its own mask, or whose caller is not in it.
    #[error("{operation} with mask {mask:#010x} takes lane {lane}, which is not in it")]
    OutsideMask {
        /// The operation.
        operation: &'static str,
        /// Its mask.
        mask: u32,
        /// The lane.
        lane: u32,
    },
    /// The lanes of a mask are at different operations.
    #[error("{operation}, while other lanes of its mask wait in {other}")]
    Diverged {
        /// This lane's operation.
        operation: &'static str,
        /// Theirs.
        other: &'static str,
    },
    /// The kernel asked to stop.
    #[error("trap: {0}")]
    Trap(String),
    /// More shared memory is used than the launch gives.
    #[error("the kernel uses {wanted} bytes of shared memory, the launch gives {given}")]
    SharedSize {
        /// Used.
        wanted: usize,
        /// Given.
        given: usize,
    },
    /// A cp.async of a size that there is none of, or with more bytes to read than it has.
    #[error("cp.async of {bytes} bytes, {valid} of them to be read")]
    CopySize {
        /// Its size.
        bytes: usize,
        /// Bytes to read; the rest is zeros.
        valid: usize,
    },
    /// The system has no memory for the stacks of a block.
    #[error("no memory for the stacks of a block: {0}")]
    Stacks(String),
    /// More blocks than can be counted.
    #[error("a grid of {0:?} blocks")]
    Grid([u32; 3]),
    /// A block of no whole number of warps, or too large.
    #[error("{0} threads in a block: it takes whole warps of 32, up to 1024")]
    Threads(u32),
}
