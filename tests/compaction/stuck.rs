//! A disk that refuses to remove files of the log, and lets somebody in between two reads.

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use highwater::storage::MemoryStorage;

use crate::hooked::{Hook, Hooked, Operation};

/// See the module.
pub type Stuck = Hooked<Sticking>;

#[derive(Clone, Default)]
pub struct Sticking {
    pub refuse: Arc<Mutex<bool>>,
    next: Arc<Mutex<Option<(u64, Action)>>>,
}

type Action = Box<dyn FnOnce() + Send>;

impl Debug for Sticking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sticking")
    }
}

impl Stuck {
    pub fn new(disk: MemoryStorage) -> Self {
        let hook = Sticking::default();
        Self { disk, hook }
    }

    /// Calls `action` before the read after the next `reads`.
    pub fn interrupt(&self, reads: u64, action: impl FnOnce() + Send + 'static) {
        *self.hook.next.lock().unwrap() = Some((reads, Box::new(action)));
    }

    /// Whether the action was not called.
    pub fn is_armed(&self) -> bool {
        self.hook.next.lock().unwrap().take().is_some()
    }
}

impl Sticking {
    /// The action, if it is due at this read.
    fn due(&self) -> Option<Action> {
        let mut next = self.next.lock().unwrap();
        match &mut *next {
            Some((0, _)) => next.take().map(|(_, action)| action),
            Some((reads, _)) => {
                *reads -= 1;
                None
            }
            None => None,
        }
    }
}

impl Hook for Sticking {
    fn before(&self, operation: Operation, path: &Path) -> io::Result<()> {
        match operation {
            Operation::Read => {
                if let Some(action) = self.due() {
                    action();
                }
            }
            Operation::Remove => {
                let is_kept = path.extension().is_some_and(|end| end != "tmp");
                if *self.refuse.lock().unwrap() && is_kept {
                    return Err(io::ErrorKind::PermissionDenied.into());
                }
            }
            _ => {}
        }
        Ok(())
    }
}
