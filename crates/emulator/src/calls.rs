//! The functions that compiled kernels call: those declared in `emulator.h`, and the `__tsan_*` functions,
//! which the compiler calls before each load and store.
//!
//! All of them are called from a fiber of a block, on the OS thread that runs the block.

use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Kind;
use crate::block::{checked, suspend, with};
use crate::warp::{Operands, Operation};

macro_rules! questions {
    ($($name:ident => $answer:expr;)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name() -> u32 {
            // SAFETY: the closures do not switch fibers.
            unsafe { with($answer) }
        }
    )*};
}

questions! {
    emu_thread_x => |b| b.current as u32;
    emu_block_x => |b| b.at[0];
    emu_block_y => |b| b.at[1];
    emu_block_z => |b| b.at[2];
    emu_block_dim => |b| b.launch().threads;
    emu_grid_x => |b| b.launch().grid[0];
    emu_grid_y => |b| b.launch().grid[1];
    emu_grid_z => |b| b.launch().grid[2];
}

#[unsafe(no_mangle)]
extern "C" fn emu_shared(bytes: usize) -> *mut c_void {
    checked(|b| b.shared_base(bytes)).cast()
}

#[unsafe(no_mangle)]
extern "C" fn emu_barrier() {
    if checked(|b| Ok(b.barrier(0, 0))) {
        suspend();
    }
}

#[unsafe(no_mangle)]
extern "C" fn emu_named_barrier(id: c_int, threads: c_int) {
    if checked(|b| Ok(b.barrier(id as u32, threads as u32))) {
        suspend();
    }
}

/// Performs `operation` together with the other lanes of `mask`. Returns this lane's result.
fn together(operation: Operation, mask: u32, operands: Operands) -> u32 {
    if checked(|b| b.together(operation, mask, operands)) {
        suspend();
    }
    checked(|b| Ok(b.result()))
}

#[unsafe(no_mangle)]
extern "C" fn emu_warp_barrier(mask: u32) {
    together(Operation::Barrier, mask, Operands::default());
}

#[unsafe(no_mangle)]
extern "C" fn emu_shuffle(mask: u32, value: u32, lane: u32) -> u32 {
    together(Operation::Shuffle, mask, Operands { value, lane: lane & 31, ..Operands::default() })
}

#[unsafe(no_mangle)]
extern "C" fn emu_ballot(mask: u32, predicate: c_int) -> u32 {
    together(Operation::Ballot, mask, Operands { value: u32::from(predicate != 0), ..Operands::default() })
}

#[unsafe(no_mangle)]
extern "C" fn emu_ldmatrix(to: *mut u32, count: c_int, row: *const c_void, transpose: bool) {
    let address = [to as usize, row as usize, 0];
    let operation = Operation::LoadMatrix { count: count as usize, transpose };
    together(operation, u32::MAX, Operands { address, ..Operands::default() });
}

#[unsafe(no_mangle)]
extern "C" fn emu_mma_bf16(d: *mut f32, a: *const u32, b: *const u32) {
    let address = [d as usize, a as usize, b as usize];
    together(Operation::MultiplyMatrix, u32::MAX, Operands { address, ..Operands::default() });
}

fn atomic(to: *mut u32, f: impl FnOnce(&AtomicU32) -> u32) -> u32 {
    checked(|b| {
        // SAFETY: `Block::atomic` calls this after it found an aligned word that the kernel may access. Blocks on
        // other OS threads also access it only by atomics.
        b.atomic(to as usize, || f(unsafe { AtomicU32::from_ptr(to) }))
    })
}

#[unsafe(no_mangle)]
extern "C" fn emu_fence() {
    checked(|b| {
        b.fence();
        Ok(())
    });
}

#[unsafe(no_mangle)]
extern "C" fn emu_atomic_add(to: *mut u32, x: u32) -> u32 {
    atomic(to, |a| a.fetch_add(x, Ordering::SeqCst))
}

#[unsafe(no_mangle)]
extern "C" fn emu_atomic_exchange(to: *mut u32, x: u32) -> u32 {
    atomic(to, |a| a.swap(x, Ordering::SeqCst))
}

#[unsafe(no_mangle)]
extern "C" fn emu_atomic_cas(to: *mut u32, expected: u32, x: u32) -> u32 {
    atomic(to, |a| {
        a.compare_exchange(expected, x, Ordering::SeqCst, Ordering::SeqCst).unwrap_or_else(|old| old)
    })
}

#[unsafe(no_mangle)]
extern "C" fn emu_cp_async(to: *mut c_void, from: *const c_void, bytes: c_int, valid: c_int) {
    checked(|b| b.copy(to as usize, from as usize, bytes as usize, valid as usize));
}

#[unsafe(no_mangle)]
extern "C" fn emu_cp_async_commit() {
    checked(|b| {
        b.commit();
        Ok(())
    });
}

#[unsafe(no_mangle)]
extern "C" fn emu_cp_async_wait(pending: c_int) {
    checked(|b| {
        b.wait(pending as usize);
        Ok(())
    });
}

#[unsafe(no_mangle)]
extern "C" fn emu_trap(what: *const c_char) {
    // SAFETY: `emulator.h` passes a string literal.
    let what = unsafe { CStr::from_ptr(what) }.to_string_lossy().into_owned();
    checked(|_| Err::<(), _>(Kind::Trap(what)));
}

macro_rules! accesses {
    ($($name:ident($bytes:expr, $write:expr, $aligned:expr);)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name(addr: *const c_void) {
            checked(|b| b.access(addr as usize, $bytes, $write, $aligned));
        }
    )*};
}

accesses! {
    __tsan_read1(1, false, true);
    __tsan_read2(2, false, true);
    __tsan_read4(4, false, true);
    __tsan_read8(8, false, true);
    __tsan_read16(16, false, true);
    __tsan_write1(1, true, true);
    __tsan_write2(2, true, true);
    __tsan_write4(4, true, true);
    __tsan_write8(8, true, true);
    __tsan_write16(16, true, true);
    // The compiler may merge or split accesses into these, so their alignment is not checked here.
    // `-fsanitize=alignment` checks the alignment that the types in the source require.
    __tsan_unaligned_read2(2, false, false);
    __tsan_unaligned_read4(4, false, false);
    __tsan_unaligned_read8(8, false, false);
    __tsan_unaligned_read16(16, false, false);
    __tsan_unaligned_write2(2, true, false);
    __tsan_unaligned_write4(4, true, false);
    __tsan_unaligned_write8(8, true, false);
    __tsan_unaligned_write16(16, true, false);
}

#[unsafe(no_mangle)]
extern "C" fn __tsan_read_range(addr: *const c_void, bytes: c_long) {
    checked(|b| b.access(addr as usize, bytes as usize, false, false));
}

#[unsafe(no_mangle)]
extern "C" fn __tsan_write_range(addr: *const c_void, bytes: c_long) {
    checked(|b| b.access(addr as usize, bytes as usize, true, false));
}

/// The compiler's description of a pointer that is misaligned for its type: source location, type, alignment.
#[repr(C)]
struct TypeMismatch {
    location: [usize; 2],
    type_name: *const c_void,
    log_alignment: u8,
    kind: u8,
}

#[unsafe(no_mangle)]
extern "C" fn __ubsan_handle_type_mismatch_v1(data: *const TypeMismatch, addr: usize) {
    // SAFETY: the compiler passes a valid record.
    let (bytes, store) = unsafe { (1 << (*data).log_alignment, (*data).kind == 1) };
    let what = if store { "write" } else { "read" };
    checked(|_| Err::<(), _>(Kind::Misaligned { what, addr, bytes }));
}

#[unsafe(no_mangle)]
extern "C" fn __tsan_init() {}

#[unsafe(no_mangle)]
extern "C" fn __tsan_func_entry(_caller: *const c_void) {}

#[unsafe(no_mangle)]
extern "C" fn __tsan_func_exit() {}
