//! TensorBoard event files: TFRecord frames around manually encoded protocol buffers.
//!
//! A frame consists of the length (u64), the masked CRC-32C of the length, the data, and the masked CRC-32C
//! of the data, all little-endian (`tensorflow/core/lib/io/record_writer.h`). The data is an `Event`
//! (`tensorflow/core/util/event.proto`) with the fields `double wall_time = 1`, `int64 step = 2`,
//! `string file_version = 3`, `Summary summary = 5` and `SessionLog session_log = 7`. A `SessionLog` has the
//! field `SessionStatus status = 1`. The summaries are in `summary.rs`.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use crate::log::Log;
use crate::summary::{self, bytes, key, varint};
use crate::{Answered, Error, Result};

/// Writes one event file.
#[derive(Debug)]
pub(crate) struct EventWriter {
    log: Log,
    clock: Clock,
}

impl EventWriter {
    /// Creates a new file in `dir`. TensorBoard reads all files of a folder in the order of their names, so a
    /// resumed run gets its own file. It begins with a session log of status START, which makes TensorBoard
    /// discard earlier events after step `resumed`.
    pub(crate) fn create(dir: &Path, resumed: Option<u64>) -> Result<EventWriter> {
        std::fs::create_dir_all(dir).map_err(|e| Error::write(dir, e))?;
        let earlier = stamps(dir).map_err(|e| Error::write(dir, e))?;
        let now = now();
        // The name must sort after all existing files, even if the clock was set back.
        let newest = earlier.iter().max();
        let stamp = newest.map_or(0, |(last, _)| last.saturating_add(1)).max(now as u64);
        let name = format!("{PREFIX}{stamp:010}.pheye.{:04}", earlier.len());
        let clock = Clock::after(newest.and_then(|(_, path)| last_time(path)).unwrap_or(0.0), now);
        let mut writer = EventWriter { log: Log::create_new(dir.join(name))?, clock };
        writer.log.append(&frame(&writer.event(0, 3, b"brain.Event:2"))).map_or(Ok(()), Err)?;
        if let Some(step) = resumed {
            const START: u64 = 1;
            let mut log = Vec::new();
            key(&mut log, 1, 0);
            varint(&mut log, START);
            writer.log.append(&frame(&writer.event(step + 1, 7, &log))).map_or(Ok(()), Err)?;
        }
        Ok(writer)
    }

    /// Writes one event with all `values` of a step. A failure is returned once, and the event is written
    /// with the next one.
    pub(crate) fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Option<Error> {
        let summary: Vec<u8> = values.iter().flat_map(|(tag, value)| summary::scalar(tag, *value)).collect();
        self.log.append(&frame(&self.event(step, 5, &summary)))
    }

    /// Writes one event with the images of answered questions and a table of the answers. Fails as
    /// [`EventWriter::scalars`] does.
    pub(crate) fn answers(&mut self, step: u64, shown: &[Answered]) -> Option<Error> {
        if shown.is_empty() {
            return None;
        }
        let images = shown.iter().enumerate().flat_map(|(i, answered)| summary::image(i, answered));
        let mut summary: Vec<u8> = images.collect();
        summary.extend(summary::table(shown));
        self.log.append(&frame(&self.event(step, 5, &summary)))
    }

    /// Flushes all events to the disk.
    ///
    /// # Errors
    /// Returns [`Error::Write`] if that fails.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.log.sync()
    }

    fn event(&self, step: u64, field: u64, what: &[u8]) -> Vec<u8> {
        let mut event = Vec::new();
        key(&mut event, 1, 1);
        event.extend(self.clock.now().to_le_bytes());
        key(&mut event, 2, 0);
        varint(&mut event, step);
        bytes(&mut event, field, what);
        event
    }
}

/// A clock that never goes back: the system's clock may be set during a run or between two.
#[derive(Debug)]
struct Clock {
    start: f64,
    began: Instant,
}

impl Clock {
    /// A clock that shows `now`, or `last`, the time of the last earlier event, if that is later.
    fn after(last: f64, now: f64) -> Clock {
        Clock { start: now.max(last), began: Instant::now() }
    }

    /// Seconds since 1970.
    fn now(&self) -> f64 {
        self.start + self.began.elapsed().as_secs_f64()
    }
}

/// Times after the year 5000 are not believed.
const LATEST: f64 = 1e11;

/// The time of the last complete event of a file.
fn last_time(path: &Path) -> Option<f64> {
    let file = File::open(path).ok()?;
    let len = file.metadata().ok()?.len();
    let (mut reader, mut at, mut last) = (BufReader::new(file), 0u64, None);
    // The length, its CRC, and the first nine bytes of the data: the key of `wall_time` and its value.
    let mut head = [0; 21];
    while reader.read_exact(&mut head).is_ok() {
        let data = u64::from_le_bytes(head[..8].try_into().ok()?);
        at = at.checked_add(data)?.checked_add(16).filter(|end| *end <= len)?;
        let time = f64::from_le_bytes(head[13..].try_into().ok()?);
        last = Some(time).filter(|time| head[12] == 0x09 && (0.0..LATEST).contains(time)).or(last);
        reader.seek(SeekFrom::Start(at)).ok()?;
    }
    last
}

/// Name prefix of an event file; ten digits with the seconds since 1970 follow.
const PREFIX: &str = "events.out.tfevents.";

/// The event files in a folder, each with the seconds in its name.
fn stamps(dir: &Path) -> std::io::Result<Vec<(u64, PathBuf)>> {
    let stamp = |name: &str| name.strip_prefix(PREFIX)?.split('.').next()?.parse().ok();
    let file = |entry: std::fs::DirEntry| {
        Some((stamp(&entry.file_name().to_string_lossy())?, entry.path())).filter(|(_, path)| path.is_file())
    };
    let files = std::fs::read_dir(dir)?.map(|entry| Ok(file(entry?)));
    Ok(files.collect::<std::io::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// Encodes a TFRecord frame.
fn frame(data: &[u8]) -> Vec<u8> {
    let len = (data.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(data.len() + 16);
    out.extend(len);
    out.extend(masked_crc(&len).to_le_bytes());
    out.extend(data);
    out.extend(masked_crc(data).to_le_bytes());
    out
}

/// The masked CRC-32C of TFRecord: rotated and offset, so that the CRC of data that contains CRCs remains
/// reliable.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), computed bit by bit, because an event has only about a hundred bytes.
fn crc32c(data: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let bit = |crc: u32, _| (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg());
    !data.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), bit))
}

/// The system's clock, in seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_of_the_check_string() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn time_never_goes_back() {
        let clock = Clock::after(2000.0, 1000.0);
        let first = clock.now();
        assert!((2000.0..2001.0).contains(&first) && clock.now() >= first);
        assert!((3000.0..3001.0).contains(&Clock::after(2000.0, 3000.0).now()));

        // A run on a clock that is set back afterwards, as its last event shows.
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(dir.path(), None).unwrap();
        writer.clock = Clock::after(9e9, 0.0);
        assert!(writer.scalars(1, &[("loss", 1.0)]).is_none());
        drop(writer);
        let (_, path) = stamps(dir.path()).unwrap().remove(0);
        let resumed = EventWriter::create(dir.path(), Some(1)).unwrap();
        assert!(resumed.clock.now() >= last_time(&path).unwrap() && resumed.clock.now() < 9.1e9);

        // Neither a torn nor another file is believed.
        std::fs::write(&path, [0xff; 40]).unwrap();
        assert_eq!(last_time(&path), None);
    }
}
