//! Reading what the user gives: files or standard input, plain or gzip, line by line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, bail};
use flate2::read::MultiGzDecoder;
use indicatif::ProgressBar;

use crate::terminal::byte_progress;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// A line holds one record. Whatever is much longer than the largest payload is not NDJSON, and
/// must not fill the memory.
const LINE_MAX: u64 = 32 << 20;

/// An open input.
pub(crate) struct Input {
    /// How messages name it.
    pub(crate) name: String,
    pub(crate) reader: Box<dyn Read>,
    /// Counts the bytes as they come in, before decompression.
    pub(crate) progress: ProgressBar,
}

/// Opens a file, or standard input for `-`.
pub(crate) fn open(path: &Path) -> anyhow::Result<Input> {
    if path == Path::new("-") {
        let progress = byte_progress(None)?;
        let reader = unzipped(progress.wrap_read(io::stdin())).context("standard input")?;
        let name = "standard input".to_owned();
        return Ok(Input {
            name,
            reader,
            progress,
        });
    }
    let name = path.display().to_string();
    let file = open_file(path).with_context(|| format!("cannot open {name}"))?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        bail!("{name} is a directory");
    }
    // A pipe or a device has no length.
    let progress = byte_progress(metadata.is_file().then_some(metadata.len()))?;
    let reader = unzipped(progress.wrap_read(file)).with_context(|| name.clone())?;
    Ok(Input {
        name,
        reader,
        progress,
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "the user's input is no part of the store"
)]
fn open_file(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// Decompresses what starts as gzip does; anything else comes as it is.
pub(crate) fn unzipped(mut reader: impl Read + 'static) -> io::Result<Box<dyn Read>> {
    let mut head = Vec::with_capacity(GZIP_MAGIC.len());
    // A pipe may give less than was asked for; `take` goes on until it has both bytes.
    let wanted = GZIP_MAGIC.len() as u64;
    reader.by_ref().take(wanted).read_to_end(&mut head)?;
    let zipped = head == GZIP_MAGIC;
    let whole = io::Cursor::new(head).chain(reader);
    Ok(match zipped {
        true => Box::new(MultiGzDecoder::new(BufReader::new(whole))),
        false => Box::new(whole),
    })
}

/// The lines of an input, with their numbers. Blank ones are left out.
pub(crate) struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    number: u64,
}

impl<R: Read> Lines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self {
            reader: BufReader::with_capacity(1 << 18, reader),
            line: Vec::new(),
            number: 0,
        }
    }

    /// The next line that is not blank, and its number, from 1.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<(u64, &[u8])>> {
        loop {
            self.number += 1;
            self.line.clear();
            let mut limited = self.reader.by_ref().take(LINE_MAX);
            let read = limited
                .read_until(b'\n', &mut self.line)
                .with_context(|| format!("cannot read line {}", self.number))?;
            if read == 0 {
                return Ok(None);
            }
            if read as u64 == LINE_MAX && self.line.last() != Some(&b'\n') {
                bail!("line {} is longer than {LINE_MAX} bytes", self.number);
            }
            if self.line.trim_ascii().is_empty() {
                continue;
            }
            let line = self.line.as_slice();
            let line = match self.number {
                1 => line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line),
                _ => line,
            };
            return Ok(Some((self.number, line)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_numbers() {
        let text: &[u8] = b"\xef\xbb\xbfa\n\n  \r\nb\nc";
        let mut lines = Lines::new(text);
        let mut found = Vec::new();
        while let Some((number, line)) = lines.next().unwrap() {
            found.push((number, line.trim_ascii().to_vec()));
        }
        assert_eq!(
            found,
            [(1, b"a".to_vec()), (4, b"b".to_vec()), (5, b"c".to_vec())]
        );
    }

    #[test]
    fn short_inputs_are_not_gzip() {
        for text in ["", "\x1f", "{}"] {
            let mut read = String::new();
            let mut reader = unzipped(text.as_bytes()).unwrap();
            reader.read_to_string(&mut read).unwrap();
            assert_eq!(read, text);
        }
    }
}
