//! Memory that is used again: fresh from the system it costs a page fault every 4 KiB, which for a
//! page of records is more than reading them.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::primitives::Mutex;

/// How many values a pool keeps, and up to how many bytes each.
const KEPT_MAX: usize = 4;
const KEPT_BYTES_MAX: usize = 4 << 20;

/// What a pool can keep.
pub(crate) trait Reusable: Default {
    /// Forgets what it holds, and keeps the memory.
    fn clear(&mut self);

    /// Memory held, in bytes.
    fn capacity(&self) -> usize;
}

/// Values that are not used right now. Clones are the same pool.
pub(crate) struct Pool<T>(Arc<Mutex<Vec<T>>>);

/// A value of a pool, which it goes back to when it is dropped.
pub(crate) struct Pooled<T: Reusable> {
    value: T,
    pool: Pool<T>,
}

impl<T: Reusable> Pool<T> {
    /// An empty value.
    pub(crate) fn take(&self) -> Pooled<T> {
        Pooled {
            value: self.0.lock().pop().unwrap_or_default(),
            pool: self.clone(),
        }
    }

    fn put_back(&self, mut value: T) {
        if value.capacity() > KEPT_BYTES_MAX {
            return;
        }
        value.clear();
        let mut kept = self.0.lock();
        if kept.len() < KEPT_MAX {
            kept.push(value);
        }
    }
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Reusable> Drop for Pooled<T> {
    fn drop(&mut self) {
        self.pool.put_back(std::mem::take(&mut self.value));
    }
}

impl<T: Reusable> Deref for Pooled<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Reusable> DerefMut for Pooled<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: Reusable + Clone> Clone for Pooled<T> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            pool: self.pool.clone(),
        }
    }
}

impl<T: Reusable + fmt::Debug> fmt::Debug for Pooled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Reusable for Vec<u8> {
        fn clear(&mut self) {
            self.clear();
        }

        fn capacity(&self) -> usize {
            self.capacity()
        }
    }

    #[test]
    fn values_come_back_empty_with_their_memory() {
        let pool = Pool::<Vec<u8>>::default();
        let mut value = pool.take();
        value.resize(1000, 1);
        drop(value);
        let again = pool.take();
        assert!(again.is_empty() && again.value.capacity() >= 1000);
        assert_eq!(pool.take().value.capacity(), 0, "there was only one");
    }

    #[test]
    fn neither_many_nor_large_values_are_kept() {
        let pool = Pool::<Vec<u8>>::default();
        let mut values: Vec<_> = (0..KEPT_MAX + 3).map(|_| pool.take()).collect();
        values.iter_mut().for_each(|value| value.push(1));
        drop(values);
        assert_eq!(pool.0.lock().len(), KEPT_MAX);
        pool.take().reserve(KEPT_BYTES_MAX + 1);
        assert_eq!(pool.0.lock().len(), KEPT_MAX - 1);
    }
}
