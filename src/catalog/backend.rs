//! redb's view of a file: through the store's [`Storage`], so that a simulated disk covers the
//! catalog as well.

use std::io;
use std::sync::Arc;

use redb::StorageBackend;

use crate::storage::StorageFile;

/// A catalog file.
#[derive(Debug)]
pub(crate) struct Backend(pub(crate) Arc<dyn StorageFile>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(&[data], offset)
    }
}
