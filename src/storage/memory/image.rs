//! The bytes of one file, as pages that copies share until one of them writes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

const PAGE: usize = 4096;

/// A file's length and bytes. Absent pages are zeros, so a reserved span costs nothing; a clone
/// shares every page.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Image {
    len: u64,
    pages: Arc<BTreeMap<u64, Arc<[u8; PAGE]>>>,
}

impl Image {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `buf` from `offset` as far as the file goes.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let count = self.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        let mut rest = buf.split_at_mut(count).0;
        let mut at = offset;
        while !rest.is_empty() {
            let start = (at % PAGE as u64) as usize;
            let (part, tail) = rest.split_at_mut(rest.len().min(PAGE - start));
            match self.pages.get(&(at / PAGE as u64)) {
                Some(page) => part.copy_from_slice(&page[start..start + part.len()]),
                None => part.fill(0),
            }
            at += part.len() as u64;
            rest = tail;
        }
        count
    }

    /// Every byte of the file.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len as usize];
        self.read(&mut bytes, 0);
        bytes
    }

    /// Writes `data` at `offset`, extending the file if it ends before.
    pub(super) fn write(&mut self, data: &[u8], offset: u64) {
        if !data.is_empty() {
            self.put(data, offset);
            self.grow(offset + data.len() as u64);
        }
    }

    /// Writes `data` at `offset` and leaves the length as it is: bytes past it stay unseen until
    /// the file grows over them, or until [`Self::clip`] clears them.
    pub(super) fn put(&mut self, data: &[u8], offset: u64) {
        let pages = Arc::make_mut(&mut self.pages);
        let mut rest = data;
        let mut at = offset;
        while !rest.is_empty() {
            let start = (at % PAGE as u64) as usize;
            let (part, tail) = rest.split_at(rest.len().min(PAGE - start));
            let page = pages
                .entry(at / PAGE as u64)
                .or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[start..start + part.len()].copy_from_slice(part);
            at += part.len() as u64;
            rest = tail;
        }
    }

    /// Clears the bytes of a span, and leaves the length as it is.
    pub(super) fn clear(&mut self, span: Range<u64>) {
        let page_len = PAGE as u64;
        let touched = span.start / page_len..span.end.div_ceil(page_len);
        if self.pages.range(touched.clone()).next().is_none() {
            return;
        }
        for (number, page) in Arc::make_mut(&mut self.pages).range_mut(touched) {
            let place = |at: u64| at.saturating_sub(number * page_len).min(page_len) as usize;
            Arc::make_mut(page)[place(span.start)..place(span.end)].fill(0);
        }
    }

    /// Makes the file at least `len` bytes long.
    pub(super) fn grow(&mut self, len: u64) {
        self.len = self.len.max(len);
    }

    /// Makes the file `len` bytes long.
    pub(super) fn set_len(&mut self, len: u64) {
        let shrinks = len < self.len;
        self.len = len;
        if shrinks {
            self.clip();
        }
    }

    /// Clears every byte past the length.
    pub(super) fn clip(&mut self) {
        let first_past = self.len.div_ceil(PAGE as u64);
        if self
            .pages
            .last_key_value()
            .is_some_and(|(&page, _)| page >= first_past)
        {
            Arc::make_mut(&mut self.pages).split_off(&first_past);
        }
        let (last, end) = (self.len / PAGE as u64, (self.len % PAGE as u64) as usize);
        if end != 0
            && self.pages.contains_key(&last)
            && let Some(page) = Arc::make_mut(&mut self.pages).get_mut(&last)
        {
            Arc::make_mut(page)[end..].fill(0);
        }
    }
}

impl From<&[u8]> for Image {
    fn from(bytes: &[u8]) -> Self {
        let mut image = Self::default();
        image.write(bytes, 0);
        image
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u16, Vec<u8>),
        SetLen(u16),
        Clear(u16, u16),
        Grow(u16),
        Fork,
    }

    fn step() -> impl Strategy<Value = Step> {
        let place = 0..20_000_u16;
        prop_oneof![
            4 => (place.clone(), prop::collection::vec(1..255_u8, 0..9000))
                .prop_map(|(offset, data)| Step::Write(offset, data)),
            2 => place.clone().prop_map(Step::SetLen),
            2 => (place.clone(), 0..9000_u16).prop_map(|(from, len)| Step::Clear(from, len)),
            1 => place.prop_map(Step::Grow),
            1 => Just(Step::Fork),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn image_is_a_byte_vector(
            steps in prop::collection::vec(step(), 1..25),
            at in 0..30_000_usize,
            len in 0..9000_usize,
        ) {
            let (mut image, mut model) = (Image::default(), Vec::new());
            let mut forks = Vec::new();
            for step in steps {
                match step {
                    Step::Write(offset, data) => {
                        let (start, end) = (usize::from(offset), usize::from(offset) + data.len());
                        if !data.is_empty() {
                            model.resize(model.len().max(end), 0);
                            model[start..end].copy_from_slice(&data);
                        }
                        image.write(&data, u64::from(offset));
                    }
                    Step::SetLen(len) => {
                        model.resize(usize::from(len), 0);
                        image.set_len(u64::from(len));
                    }
                    Step::Clear(from, len) => {
                        let span = usize::from(from)..usize::from(from) + usize::from(len);
                        let cleared = model.iter_mut().take(span.end).skip(span.start);
                        cleared.for_each(|byte| *byte = 0);
                        image.clear(span.start as u64..span.end as u64);
                    }
                    Step::Grow(len) => {
                        model.resize(model.len().max(usize::from(len)), 0);
                        image.grow(u64::from(len));
                    }
                    Step::Fork => forks.push((image.clone(), model.clone())),
                }
            }
            let mut part = vec![7; len];
            let count = image.read(&mut part, at as u64);
            let expected = model.get(at..).unwrap_or_default();
            prop_assert_eq!(&part[..count], &expected[..len.min(expected.len())]);
            forks.push((image, model));
            for (image, model) in forks {
                prop_assert_eq!(image.len(), model.len() as u64);
                prop_assert_eq!(image.to_vec(), model);
            }
        }
    }
}
