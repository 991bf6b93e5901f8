//! Copying files byte by byte, and without that where a link will do.

use std::io;
use std::path::Path;

use super::{OpenMode, Storage, StorageFile};

/// So much is read and written at once.
const BUFFER: u64 = 1 << 20;

/// Makes a file of the first `len` bytes of another one, and puts it on stable storage; its name is
/// still pending.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`] when there are not that many.
pub(crate) fn copy(
    storage: &dyn Storage,
    from: &dyn StorageFile,
    len: u64,
    to: &Path,
) -> io::Result<()> {
    let file = storage.open(to, OpenMode::CreateNew)?;
    let mut buffer = vec![0; len.min(BUFFER) as usize];
    let mut at = 0;
    while at < len {
        let piece = &mut buffer[..(len - at).min(BUFFER) as usize];
        from.read_exact_at(piece, at)?;
        file.write_all_at(&[piece], at)?;
        at += piece.len() as u64;
    }
    file.sync_data()
}

/// Gives a file a second name, if it is there and can have one.
pub(crate) fn try_link(storage: &dyn Storage, from: &Path, to: &Path) -> io::Result<bool> {
    use io::ErrorKind::{CrossesDevices, NotFound, PermissionDenied, TooManyLinks, Unsupported};
    match storage.link(from, to) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            CrossesDevices | NotFound | PermissionDenied | TooManyLinks | Unsupported => Ok(false),
            _ => Err(error),
        },
    }
}
