//! Signals that ask the command to stop.

use std::io;

/// Calls `on_signal`, on a separate thread, for each SIGINT, SIGTERM and SIGHUP. A signal that was ignored
/// when the command started stays ignored, as `nohup` and `trap "" INT` require; this is detected on Linux
/// only.
///
/// # Errors
/// Returns an error if the signal handlers or the thread cannot be created.
#[cfg(unix)]
pub(crate) fn on_stop(on_signal: impl Fn() + Send + 'static) -> io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    let ignored = ignored();
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    let mut signals = Signals::new(wanted)?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || signals.forever().for_each(|_| on_signal()))?;
    Ok(())
}

#[cfg(not(unix))]
pub fn on_stop(on_signal: impl Fn() + Send + 'static) -> io::Result<()> {
    ctrlc::set_handler(on_signal).map_err(io::Error::other)
}

/// The ignored signals as a bit mask, bit n − 1 for signal n; 0 if the operating system does not report them.
#[cfg(unix)]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Makes a write beyond the file size limit (`ulimit -f`) fail with an error instead of killing the process.
pub(crate) fn survive_file_size_limit() {
    #[cfg(unix)]
    {
        let seen = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        // If the handler cannot be installed, exceeding the limit kills the process, which is the default.
        let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, seen);
    }
}
