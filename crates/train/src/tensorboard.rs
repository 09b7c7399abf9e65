//! TensorBoard event files with scalars: TFRecord frames around manually encoded protocol buffers.
//!
//! A frame consists of the length (u64), the masked CRC-32C of the length, the data, and the masked CRC-32C
//! of the data, all little-endian (`tensorflow/core/lib/io/record_writer.h`). The data is an `Event`
//! (`tensorflow/core/util/event.proto`) with the fields `double wall_time = 1`, `int64 step = 2`,
//! `string file_version = 3`, `Summary summary = 5` and `SessionLog session_log = 7`. A `Summary` has the
//! field `repeated Value value = 1`, a `Value` the fields `string tag = 1` and `float simple_value = 2`, and
//! a `SessionLog` the field `SessionStatus status = 1`.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::{Error, Result};

/// Writes one event file.
#[derive(Debug)]
pub(crate) struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Creates a new file in `dir`. TensorBoard reads all files of a folder in the order of their names, so a
    /// resumed run gets its own file. It begins with a session log of status START, which makes TensorBoard
    /// discard earlier events after step `resumed`.
    pub(crate) fn create(dir: &Path, resumed: Option<u64>) -> Result<EventWriter> {
        std::fs::create_dir_all(dir).map_err(|e| Error::write(dir, e))?;
        let earlier = stamps(dir).map_err(|e| Error::write(dir, e))?;
        // The name must sort after all existing files, even if the clock was set back.
        let stamp = earlier.iter().max().map_or(0, |last| last.saturating_add(1)).max(now() as u64);
        let name = format!("{PREFIX}{stamp:010}.pheye.{:04}", earlier.len());
        let path = dir.join(name);
        let file = File::create_new(&path).map_err(|e| Error::write(&path, e))?;
        let mut writer = EventWriter { path, file };
        writer.event(0, 3, b"brain.Event:2")?;
        if let Some(step) = resumed {
            const START: u64 = 1;
            let mut log = Vec::new();
            key(&mut log, 1, 0);
            varint(&mut log, START);
            writer.event(step + 1, 7, &log)?;
        }
        Ok(writer)
    }

    /// Writes one event with all `values` of a step.
    pub(crate) fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut message = Vec::new();
            bytes(&mut message, 1, tag.as_bytes());
            key(&mut message, 2, 5);
            message.extend((*value as f32).to_le_bytes());
            bytes(&mut summary, 1, &message);
        }
        self.event(step, 5, &summary)
    }

    /// Flushes all events to the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::write(&self.path, e))
    }

    fn event(&mut self, step: u64, field: u64, what: &[u8]) -> Result<()> {
        let mut event = Vec::new();
        key(&mut event, 1, 1);
        event.extend(now().to_le_bytes());
        key(&mut event, 2, 0);
        varint(&mut event, step);
        bytes(&mut event, field, what);
        self.file.write_all(&frame(&event)).map_err(|e| Error::write(&self.path, e))
    }
}

/// Name prefix of an event file; ten digits with the seconds since 1970 follow.
const PREFIX: &str = "events.out.tfevents.";

/// The seconds in the names of the event files in a folder.
fn stamps(dir: &Path) -> std::io::Result<Vec<u64>> {
    let stamp = |name: &str| name.strip_prefix(PREFIX)?.split('.').next()?.parse().ok();
    let names = std::fs::read_dir(dir)?.map(|entry| Ok(stamp(&entry?.file_name().to_string_lossy())));
    Ok(names.collect::<std::io::Result<Vec<_>>>()?.into_iter().flatten().collect())
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

/// Encodes the number and wire type of a field: 0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes.
fn key(out: &mut Vec<u8>, field: u64, wire: u64) {
    varint(out, field << 3 | wire);
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    key(out, field, 2);
    varint(out, value.len() as u64);
    out.extend(value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    #[test]
    fn crc_of_the_check_string() {
        assert_eq!(super::crc32c(b"123456789"), 0xe306_9283);
    }
}
