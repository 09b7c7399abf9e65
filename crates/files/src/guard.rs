//! Converts panics of other libraries into errors: libraries that read tokenizers and images panic on some
//! damaged files. No other code of the project catches panics for that.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Whether this thread is inside [`caught`], where a panic is an expected outcome and not printed.
    static SILENT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`, which calls another library, and returns its result. If it panics, the panic is not printed
/// and its message is returned as an error. The process's panic hook still sees all other panics.
///
/// `work` must not leave broken state behind: whatever it modifies must be dropped with it, or be behind
/// locks and cells that are released during unwinding.
///
/// # Errors
/// Returns the message of the panic.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !SILENT.get() {
                others(info);
            }
        }));
    });
    let before = SILENT.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    SILENT.set(before);
    result.map_err(message)
}

fn message(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    format!("the library that reads it panicked: {text}")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn only_other_panics_reach_the_hook() {
        static SEEN: AtomicUsize = AtomicUsize::new(0);
        panic::set_hook(Box::new(|_| _ = SEEN.fetch_add(1, Ordering::SeqCst)));
        assert_eq!(caught(|| 3), Ok(3));
        let length = std::hint::black_box(2);
        let index: Result<u8, String> = caught(|| vec![1, 2][length]);
        assert!(index.unwrap_err().contains("index out of bounds"));
        assert_eq!(
            caught(|| panic!("plain")),
            Err::<(), _>("the library that reads it panicked: plain".to_owned())
        );
        assert_eq!(SEEN.load(Ordering::SeqCst), 0);
        assert!(panic::catch_unwind(|| panic!("another")).is_err());
        // Panics of other threads are still reported.
        let other = || std::thread::spawn(|| panic!("elsewhere")).join().is_err();
        assert_eq!(caught(other), Ok(true));
        assert_eq!(SEEN.load(Ordering::SeqCst), 2);
    }
}
