//! The fault of a kernel, with a message that names what happened, the block, the thread and the address.

/// What a kernel did wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kernel `{kernel}`, block ({}, {}, {}), thread {thread}: {kind}", block[0], block[1], block[2])]
pub struct Fault {
    /// The kernel's name.
    pub kernel: String,
    /// The index of the block.
    pub block: [u32; 3],
    /// The index of the thread in its block.
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
        /// The address.
        addr: usize,
        /// The size of the access.
        bytes: usize,
        /// The position relative to the nearest buffer.
        near: String,
    },
    /// An access outside the block's shared memory.
    #[error("{what} of {bytes} bytes at byte {offset} of shared memory, which has {size}")]
    SharedOutOfBounds {
        /// `read` or `write`.
        what: &'static str,
        /// The offset from the start of shared memory.
        offset: isize,
        /// The size of the access.
        bytes: usize,
        /// The size of shared memory.
        size: usize,
    },
    /// An access whose address is not a multiple of its size.
    #[error("{what} of {bytes} bytes at {addr:#x}, which is not aligned to it")]
    Misaligned {
        /// `read` or `write`.
        what: &'static str,
        /// The address.
        addr: usize,
        /// The size of the access.
        bytes: usize,
    },
    /// A read of shared memory that no thread has written.
    #[error("read of shared memory at byte {offset}, which nobody wrote")]
    Unwritten {
        /// The offset from the start of shared memory.
        offset: usize,
    },
    /// An access to shared memory that a cp.async of thread `by` may still be filling.
    #[error(
        "{what} of shared memory at byte {offset} while a cp.async of thread {by} is in flight: a wait is missing"
    )]
    InFlight {
        /// `read` or `write`.
        what: &'static str,
        /// The offset from the start of shared memory.
        offset: usize,
        /// The thread that issued the copy.
        by: u32,
    },
    /// Two threads accessed a word of shared memory, at least one to write, without a barrier between.
    #[error(
        "race on shared memory at byte {offset}: {what} here, {other} by thread {by}, and no barrier between them"
    )]
    Race {
        /// The access of this thread.
        what: &'static str,
        /// The access of the other thread.
        other: &'static str,
        /// The offset from the start of shared memory.
        offset: usize,
        /// The other thread.
        by: u32,
    },
    /// A write to a buffer that the launch gave as read-only, or a read of one that it gave as write-only.
    #[error("{what} of `{buffer}`, which the launch gave as {access}")]
    Access {
        /// `read` or `write`.
        what: &'static str,
        /// The buffer's name.
        buffer: String,
        /// The access that the launch gave.
        access: &'static str,
    },
    /// Two blocks wrote the same element.
    #[error("write of element at byte {offset} of `{buffer}`, which block {other} writes too")]
    WrittenTwice {
        /// The buffer's name.
        buffer: String,
        /// The offset in the buffer.
        offset: usize,
        /// The linear index of the other block.
        other: u32,
    },
    /// Two threads accessed an element of a buffer that the launch updates, at least one to write, and nothing orders them.
    #[error(
        "race on `{buffer}` at byte {offset}: {what} here, {other} by thread {thread} of block {block}, and neither a barrier nor fences with an atomic operation between them"
    )]
    GlobalRace {
        /// The access of this thread.
        what: &'static str,
        /// The access of the other thread.
        other: &'static str,
        /// The buffer's name.
        buffer: String,
        /// The offset in the buffer.
        offset: usize,
        /// The linear index of the other thread's block.
        block: u32,
        /// The other thread.
        thread: u32,
    },
    /// An output element that no thread of any block wrote.
    #[error("nobody wrote the element at byte {offset} of the output `{buffer}`")]
    NeverWritten {
        /// The buffer's name.
        buffer: String,
        /// The offset in the buffer.
        offset: usize,
    },
    /// A barrier that some threads never reach.
    #[error("{waiting} threads wait at a barrier that thread {missing} does not reach: it {state}")]
    Barrier {
        /// The number of waiting threads.
        waiting: usize,
        /// A thread that does not wait there.
        missing: u32,
        /// What that thread does instead.
        state: &'static str,
    },
    /// A warp operation whose mask contains lanes that have exited.
    #[error("{operation} with mask {mask:#010x}, of which lanes {exited:#010x} have exited")]
    ExitedLanes {
        /// The operation.
        operation: &'static str,
        /// Its mask.
        mask: u32,
        /// The exited lanes of the mask.
        exited: u32,
    },
    /// A warp operation that reads from a lane outside its mask, or whose calling lane is not in the mask.
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
        /// The operation of this lane.
        operation: &'static str,
        /// The operation of the other lanes.
        other: &'static str,
    },
    /// The kernel called `__trap`.
    #[error("trap: {0}")]
    Trap(String),
    /// The kernel uses more shared memory than the launch gives it.
    #[error("the kernel uses {wanted} bytes of shared memory, the launch gives {given}")]
    SharedSize {
        /// The bytes that the kernel uses.
        wanted: usize,
        /// The bytes that the launch gives.
        given: usize,
    },
    /// A cp.async of an unsupported size, or one that reads more bytes than its size.
    #[error("cp.async of {bytes} bytes, {valid} of them to be read")]
    CopySize {
        /// The size of the copy.
        bytes: usize,
        /// The bytes that are read; the rest is filled with zeros.
        valid: usize,
    },
    /// The system has no memory for the stacks of a block.
    #[error("no memory for the stacks of a block: {0}")]
    Stacks(String),
    /// The number of blocks overflows 64 bits.
    #[error("a grid of {0:?} blocks")]
    Grid([u32; 3]),
    /// The number of threads per block is not a multiple of 32, or too large.
    #[error("{0} threads in a block: it takes whole warps of 32, up to 1024")]
    Threads(u32),
}
