//! A download: locked, resumed after interruptions, verified, and renamed when it is complete.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cache::{self, RepoCache};
use crate::digest::Sum;
use crate::http::{About, Client};
use crate::limits::Limit;
use crate::{Error, Limits, Progress, Result, Watch};

/// The number of interruptions without sufficient progress after which a download fails.
const MAX_CUTS: u32 = 5;
const PIECE: usize = 256 << 10;

/// The contents to download.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) about: About<'a>,
    pub(crate) commit: &'a str,
    pub(crate) etag: &'a str,
    pub(crate) size: Option<u64>,
}

/// Ensures that the cache contains the contents, even if other processes download them at the same time.
pub(crate) fn blob(
    client: &Client,
    cache: &RepoCache,
    w: Wanted,
    pause: Duration,
    watch: Watch,
) -> Result<()> {
    let blob = cache.blob(w.etag);
    if blob.is_file() {
        return Ok(());
    }
    cache::parent(&blob)?;
    let path = cache.lock(w.etag);
    cache::parent(&path)?;
    let _lock = lock(&path, w, watch)?;
    // The process that held the lock may have downloaded the contents.
    if blob.is_file() {
        return Ok(());
    }
    let incomplete = cache.incomplete(w.etag);
    let continued = fs::metadata(&incomplete).is_ok_and(|meta| meta.len() > 0);
    let mut whole = download(client, &incomplete, w, pause, watch);
    if matches!(whole, Err(Error::Corrupt { .. })) {
        remove(&incomplete)?;
        // Other programs leave partial downloads too, and not all of them begin with the first byte.
        if continued {
            whole = download(client, &incomplete, w, pause, watch);
        }
    }
    if matches!(whole, Err(Error::Corrupt { .. } | Error::TooLarge { .. })) {
        remove(&incomplete)?;
    }
    whole?;
    fs::rename(&incomplete, &blob).map_err(|source| Error::Io {
        path: blob.clone(),
        doing: "rename the download to it",
        source,
    })?;
    watch(Progress::Done { file: w.about.file });
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::Io { path: path.to_owned(), doing: "delete", source: e })
        }
        _ => Ok(()),
    }
}

fn lock(path: &Path, w: Wanted, watch: Watch) -> Result<File> {
    let fault = |source| Error::Io { path: path.to_owned(), doing: "lock", source };
    let file = OpenOptions::new().create(true).append(true).open(path).map_err(fault)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            watch(Progress::Waiting { file: w.about.file });
            file.lock().map_err(fault)?;
        }
        Err(TryLockError::Error(source)) => return Err(fault(source)),
    }
    Ok(file)
}

/// A download in progress.
struct Part<'a> {
    file: File,
    path: &'a Path,
    sum: Sum,
    done: u64,
    total: Option<u64>,
    limit: Limit,
}

impl Part<'_> {
    fn fault(&self, doing: &'static str, source: io::Error) -> Error {
        Error::Io { path: self.path.to_owned(), doing, source }
    }

    /// Opens the partial file of an earlier attempt and updates the checksum with its contents, or creates
    /// the file.
    fn open<'a>(path: &'a Path, w: Wanted) -> Result<Part<'a>> {
        let opened = OpenOptions::new().read(true).append(true).create(true).open(path);
        let file = opened.map_err(|source| Error::Io { path: path.to_owned(), doing: "open", source })?;
        let (sum, limit) = (Sum::new(w.etag, w.size), Limit::default());
        let mut part = Part { file, path, sum, done: 0, total: w.size, limit };
        let there = part.file.metadata().map_err(|e| part.fault("read", e))?.len();
        let mut piece = vec![0; PIECE];
        while part.done < there {
            match part.file.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => {
                    part.sum.update(&piece[..n]);
                    part.done += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(part.fault("read", e)),
            }
        }
        if part.total.is_some_and(|total| part.done > total) {
            part.restart(w)?;
        }
        Ok(part)
    }

    fn restart(&mut self, w: Wanted) -> Result<()> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(|e| self.fault("empty", e))?;
        (self.sum, self.done, self.total) = (Sum::new(w.etag, w.size), 0, w.size);
        Ok(())
    }

    /// Compares the bytes received and the reported size with the limit.
    fn check(&self, w: Wanted) -> Result<()> {
        let (promised, limit) = match self.total {
            Some(total) => (total, self.limit.sized),
            None => (0, self.limit.unsized_),
        };
        if self.done.max(promised) <= limit {
            return Ok(());
        }
        let (repo, file) = (w.about.repo.to_string(), w.about.file.to_owned());
        Err(Error::TooLarge { repo, file, limit, promised: self.total })
    }
}

/// Downloads the contents to the file `path` and verifies them.
fn download(client: &Client, path: &Path, w: Wanted, pause: Duration, watch: Watch) -> Result<()> {
    let limits = &client.settings().limits;
    let mut part = Part::open(path, w)?;
    part.limit = limits.bytes(w.about.file, path);
    part.check(w)?;
    // Only [`Limits::progress`] bytes count as progress; otherwise a few bytes per attempt could continue
    // forever.
    let (mut cuts, mut known) = (0, part.done);
    let report = |part: &Part, watch: &mut dyn FnMut(Progress<'_>)| {
        watch(Progress::Bytes { file: w.about.file, done: part.done, total: part.total });
    };
    report(&part, watch);
    // If the size is unknown, the end of the body is the end of the file.
    while part.total.is_none_or(|total| part.done < total) {
        match transfer(client, &mut part, w, &mut |part| report(part, watch)) {
            Ok(()) if part.total.is_none_or(|total| part.done >= total) => break,
            Err(error) if !passing(&error) => return Err(error),
            end => {
                let progress = part.done.saturating_sub(known) >= limits.progress;
                (cuts, known) = if progress { (1, part.done) } else { (cuts + 1, known) };
                if cuts > MAX_CUTS {
                    let why = match end {
                        Err(Error::Unreachable { why, .. }) => why,
                        Err(error) => error.to_string(),
                        Ok(()) => "the connection ends too early".to_owned(),
                    };
                    let (repo, file) = (w.about.repo.to_string(), w.about.file.to_owned());
                    return Err(Error::Cut { repo, file, done: part.done, why });
                }
                std::thread::sleep(pause * cuts);
                watch(Progress::Resumed { file: w.about.file, done: part.done });
            }
        }
    }
    part.file.sync_all().map_err(|e| part.fault("write", e))?;
    let corrupt = |what, found, expected| {
        let (repo, file) = (w.about.repo.to_string(), w.about.file.to_owned());
        Err(Error::Corrupt { repo, file, what, found, expected })
    };
    if let Some(total) = part.total.filter(|&total| total != part.done) {
        return corrupt("its size", part.done.to_string(), total.to_string());
    }
    match part.sum.finish() {
        Some((what, found)) if found != w.etag => corrupt(what, found, w.etag.to_owned()),
        _ => Ok(()),
    }
}

/// Whether an error may be temporary, so that a retry makes sense.
fn passing(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } => true,
        Error::Status { status, .. } => matches!(status, 408 | 429 | 500..=599),
        _ => false,
    }
}

/// Receives the body of one request. An early end is not an error here, because the caller knows the size.
fn transfer(client: &Client, part: &mut Part, w: Wanted, report: &mut dyn FnMut(&Part)) -> Result<()> {
    let answer = client.get(w.about, w.commit, part.done)?;
    let header = |name: &str| answer.response.headers().get(name)?.to_str().ok().map(str::to_owned);
    match answer.response.status().as_u16() {
        206 => {
            let from = header("content-range").and_then(|range| start(&range));
            if from != Some(part.done) {
                return Err(w.about.protocol(&answer.url, "is not of the requested range"));
            }
        }
        // The partial file is not a prefix of the contents.
        416 => return part.restart(w),
        _ => {
            // The server sends the complete file, regardless of the range.
            if part.done > 0 {
                part.restart(w)?;
            }
            part.total = part.total.or_else(|| header("content-length")?.parse().ok());
            part.check(w)?;
        }
    }
    let mut pace = Pace { since: Instant::now(), bytes: 0 };
    let cut = |why: String| {
        let (repo, file) = (w.about.repo.to_string(), w.about.file.to_owned());
        Err(Error::Unreachable { repo, file, host: crate::http::host(&answer.url), why })
    };
    let mut body = answer.response.into_body().into_reader();
    let mut piece = vec![0; PIECE];
    loop {
        let n = match body.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return cut(e.to_string()),
        };
        part.file.write_all(&piece[..n]).map_err(|e| part.fault("write", e))?;
        part.sum.update(&piece[..n]);
        part.done += n as u64;
        if part.total.is_some_and(|total| part.done > total) {
            return Ok(()); // more than reported; the final check of the size returns the error
        }
        part.check(w)?;
        report(part);
        if let Err(why) = pace.count(n, &client.settings().limits) {
            return cut(why);
        }
    }
}

/// Measures the speed since `since`.
struct Pace {
    since: Instant,
    bytes: usize,
}

impl Pace {
    /// Counts received bytes. Returns the reason if they come too slowly.
    fn count(&mut self, bytes: usize, limits: &Limits) -> Result<(), String> {
        self.bytes += bytes;
        let elapsed = self.since.elapsed();
        if elapsed < limits.patience {
            return Ok(());
        }
        let slow = (self.bytes as f64) < limits.least_speed as f64 * elapsed.as_secs_f64();
        *self = Pace { since: Instant::now(), bytes: 0 };
        if slow { Err(format!("it sends less than {} bytes a second", limits.least_speed)) } else { Ok(()) }
    }
}

/// Parses the first byte of `bytes FIRST-LAST/SIZE`.
fn start(range: &str) -> Option<u64> {
    range.trim().strip_prefix("bytes")?.trim().split('-').next()?.parse().ok()
}
