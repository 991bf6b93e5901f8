//! Reading ahead: small commits leave small frames, and a read of the system costs more than what
//! there is to read in one. So frames that follow each other in their file share one read.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::feed::read::Span;

/// So much is read at once. Larger frames are not read ahead.
const AHEAD_MAX: u64 = 64 << 10;
/// Frames this far apart share a read: others stand between them.
const AHEAD_GAP_MAX: u64 = 4 << 10;

/// Bytes of a segment.
#[derive(Clone)]
pub(crate) struct Ahead {
    bytes: Arc<Vec<u8>>,
    offset: u64,
}

impl Ahead {
    /// The `len` bytes at `offset` of the segment, if they are here.
    pub(crate) fn get(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        self.bytes.get(start..start.checked_add(len)?)
    }
}

/// Reads the first of some spans, and with it those after it that are near; nothing when it has
/// been read with an earlier one, or when too little is wanted of it.
pub(crate) fn read(spans: &mut [Span]) -> Result<()> {
    let Some((first, rest)) = spans.split_first() else {
        return Ok(());
    };
    if first.ahead.is_some() || !is_worth_it(first) {
        return Ok(());
    }
    let (from, mut to) = (first.content().start, first.content().end);
    let mut count = 1;
    for span in rest {
        let content = span.content();
        let near = content.start >= to
            && content.start - to <= AHEAD_GAP_MAX
            && content.end - from <= AHEAD_MAX
            && span.is_beside(first);
        if !near || !is_worth_it(span) {
            break;
        }
        to = content.end;
        count += 1;
    }
    let mut bytes = vec![0; (to - from) as usize];
    match first.read(&mut bytes, from) {
        Ok(()) => {}
        // Whoever needs what the file does not have says where that is.
        Err(Error::Corrupt { .. }) => return Ok(()),
        Err(error) => return Err(error),
    }
    let bytes = Arc::new(bytes);
    for span in &mut spans[..count] {
        let (bytes, offset) = (bytes.clone(), from);
        span.ahead = Some(Ahead { bytes, offset });
    }
    Ok(())
}

/// Whether a frame is small, and at least half of its records are wanted.
fn is_worth_it(span: &Span) -> bool {
    let content = span.content();
    content.end - content.start <= AHEAD_MAX && span.is_mostly_wanted()
}
