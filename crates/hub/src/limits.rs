//! Limits on what a server can do to this machine: a server that reports no size could fill the disk, and one
//! that sends single bytes could keep a download running forever.

use std::path::Path;
use std::time::Duration;

/// The extensions of files with weights; all other files are small.
const WEIGHTS: [&str; 6] = ["safetensors", "pt", "pth", "bin", "ckpt", "gguf"];

/// The limits of downloads. The defaults are far beyond what a hub and its files need.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The maximum bytes of a file without weights. Default: 128 MiB.
    pub small: u64,
    /// The maximum bytes of weights whose size the server does not report; also limited by the free disk
    /// space minus [`Limits::reserve`]. Default: 256 GiB.
    pub unsized_weights: u64,
    /// The bytes of the disk that weights of unreported size must leave free. Default: 2 GiB.
    pub reserve: u64,
    /// The minimum speed in bytes per second; a slower connection counts as interrupted. Default: 1000.
    pub least_speed: u64,
    /// The time over which the speed is measured, and the timeout of a read: HF_HUB_DOWNLOAD_TIMEOUT in
    /// seconds. Default: one minute.
    pub patience: Duration,
    /// The number of bytes after which earlier interruptions no longer count. Default: 1 MiB.
    pub progress: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            small: 128 << 20,
            unsized_weights: 256 << 30,
            reserve: 2 << 30,
            least_speed: 1000,
            patience: Duration::from_secs(60),
            progress: 1 << 20,
        }
    }
}

/// The limit for one file, in bytes.
#[derive(Debug, Default)]
pub(crate) struct Limit {
    /// If the server reports its size.
    pub(crate) sized: u64,
    /// If the server does not report its size.
    pub(crate) unsized_: u64,
}

impl Limits {
    /// The limit for `file`, which is written to `path`.
    pub(crate) fn bytes(&self, file: &str, path: &Path) -> Limit {
        let weights = Path::new(file).extension().is_some_and(|end| WEIGHTS.iter().any(|w| end == *w));
        if !weights {
            return Limit { sized: self.small, unsized_: self.small };
        }
        let there = std::fs::metadata(path).map_or(0, |meta| meta.len());
        let room = free(path).map_or(u64::MAX, |free| (free + there).saturating_sub(self.reserve));
        Limit { sized: u64::MAX, unsized_: self.unsized_weights.min(room) }
    }
}

/// The free bytes of the disk of `path` for this user, if the system reports them.
#[cfg(unix)]
fn free(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(unix))]
fn free(_: &Path) -> Option<u64> {
    None
}
