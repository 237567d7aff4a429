//! Records as bytes: a file header, then for each record its length, its checksum and itself.
//!
//! A reader takes whole records as long as they are sound. What a crash can leave behind the last one is a torn
//! tail: a frame that lacks its end, or zeros. Anything else is damage, and is not cut off silently.

use prost::Message;

use crate::pb::journal::Record;

/// The file's first bytes; the last is the format's version.
pub(super) const HEADER: &[u8; 8] = b"embetcd\x01";

/// Length and checksum, four bytes each, little-endian.
const FRAME_HEAD: usize = 8;

/// Appends a record to a buffer.
pub(super) fn encode(record: &Record, buffer: &mut Vec<u8>) {
    let body = record.encode_to_vec();
    buffer.extend_from_slice(&(body.len() as u32).to_le_bytes());
    buffer.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    buffer.extend_from_slice(&body);
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) records: Vec<Record>,
    /// How many bytes of it are sound; what follows is a torn tail.
    pub(super) sound: usize,
}

/// Reads a whole file; the error tells at which byte it is damaged.
pub(super) fn decode(file: &[u8]) -> Result<Contents, usize> {
    if file.len() < HEADER.len() {
        // Torn while it was made, if it is one of ours.
        return if HEADER.starts_with(file) { Ok(Contents::default()) } else { Err(0) };
    }
    let mut rest = file.strip_prefix(HEADER).ok_or(0usize)?;
    let mut records = Vec::new();
    loop {
        let sound = file.len() - rest.len();
        match split(rest) {
            Next::Record(record, behind) => {
                records.push(record);
                rest = behind;
            }
            Next::Torn => return Ok(Contents { records, sound }),
            Next::Damaged => return Err(sound),
        }
    }
}

enum Next<'a> {
    Record(Record, &'a [u8]),
    Torn,
    Damaged,
}

fn split(rest: &[u8]) -> Next<'_> {
    let Some((head, behind)) = rest.split_first_chunk::<FRAME_HEAD>() else { return Next::Torn };
    let [a, b, c, d, e, f, g, h] = *head;
    let (length, checksum) = (u32::from_le_bytes([a, b, c, d]) as usize, u32::from_le_bytes([e, f, g, h]));
    // No record is empty; a file system may leave zeros where it did not get to write.
    if length == 0 {
        return if rest.iter().all(|byte| *byte == 0) { Next::Torn } else { Next::Damaged };
    }
    let Some((body, behind)) = behind.split_at_checked(length) else { return Next::Torn };
    let sound = crc32fast::hash(body) == checksum;
    match Record::decode(body).ok().filter(|_| sound) {
        Some(record) => Next::Record(record, behind),
        None if behind.is_empty() => Next::Torn,
        None => Next::Damaged,
    }
}
