//! The data folder: every change of the node's state is appended to one file before anyone is told of it.
//!
//! In come [`Record`]s from the [node](crate::node), out they come again at the next start. The file is written anew,
//! beside the old one and then in its place, when it is opened and when it has grown far beyond what it says. A
//! killed process loses nothing; the disk is not waited for, so that a machine which loses its power may lose the
//! last moments. One process at a time may have the folder.

mod frame;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::pb::journal::Record;

/// Below this a file is not written anew for its size.
const SMALL: u64 = 4 * 1024 * 1024;

/// The file that is appended to.
#[derive(Debug)]
pub(crate) struct Journal {
    folder: PathBuf,
    file: File,
    length: u64,
    /// The length when it was last written anew.
    base: u64,
    /// Locked as long as this lives.
    _lock: File,
}

impl Journal {
    /// Opens a folder, which is made if it is not there; gives what was written to it, nothing at the first time.
    /// [`rewrite`](Self::rewrite) must follow.
    ///
    /// # Errors
    /// When it cannot be read or written, another process has it, or it is damaged.
    pub(crate) fn open(folder: &Path) -> io::Result<(Self, Vec<Record>)> {
        private_folder(folder)?;
        let lock = private(OpenOptions::new().create(true).truncate(false)).open(folder.join("lock"))?;
        fs4::FileExt::try_lock(&lock).map_err(|_| {
            io::Error::new(io::ErrorKind::ResourceBusy, "another process has this data folder; end it first")
        })?;
        let path = folder.join("journal");
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => frame::HEADER.to_vec(),
            read => read?,
        };
        let contents = frame::decode(&bytes).map_err(|at| {
            let text = format!(
                "{} is damaged at byte {at} of {}; restore it, or move it away to start empty",
                path.display(),
                bytes.len()
            );
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?;
        if contents.sound < bytes.len() {
            tracing::warn!(
                file = %path.display(),
                kept = contents.sound,
                cut = bytes.len() - contents.sound,
                "embedded etcd: the last record was torn by a crash, and is cut off"
            );
        }
        let file = private(OpenOptions::new().create(true).append(true)).open(&path)?;
        let journal = Self { folder: folder.to_owned(), file, length: 0, base: 0, _lock: lock };
        Ok((journal, contents.records))
    }

    /// Writes records behind those that are there, all of them or, after a crash, the first of them.
    pub(crate) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let mut buffer = Vec::new();
        for record in records {
            frame::encode(record, &mut buffer);
        }
        self.file.write_all(&buffer)?;
        self.length += buffer.len() as u64;
        Ok(())
    }

    /// Puts a file with these records alone in the place of the old one, whole or not at all.
    pub(crate) fn rewrite(&mut self, records: &[Record]) -> io::Result<()> {
        let (new, path) = (self.folder.join("journal.new"), self.folder.join("journal"));
        let mut buffer = frame::HEADER.to_vec();
        for record in records {
            frame::encode(record, &mut buffer);
        }
        let mut file = private(OpenOptions::new().create(true).truncate(true)).open(&new)?;
        file.write_all(&buffer)?;
        // The new file must be on the disk before its name is.
        file.sync_all()?;
        drop(file);
        fs::rename(&new, &path)?;
        self.file = private(OpenOptions::new().append(true)).open(&path)?;
        self.length = buffer.len() as u64;
        self.base = self.length;
        Ok(())
    }

    /// Whether most of the file is likely to be of the past.
    pub(crate) fn has_grown(&self) -> bool {
        self.length > SMALL && self.length / 4 > self.base
    }
}

/// It holds what users may not read, and hashes of passwords: its owner's alone.
#[cfg(unix)]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.write(true).mode(0o600)
}

#[cfg(not(unix))]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options.write(true)
}

#[cfg(unix)]
fn private_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn private_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

#[cfg(test)]
mod tests;
