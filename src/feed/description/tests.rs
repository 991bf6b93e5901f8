use super::*;
use proptest::prelude::*;

fn author() -> impl Strategy<Value = Author> {
    let ids = prop_oneof![Just((0, 0)), Just((7, 9)), any::<(u64, u64)>()];
    ids.prop_map(|(run, sync)| Author {
        run,
        sync: SyncId(sync),
    })
}

fn origin() -> impl Strategy<Value = Origin> {
    (any::<u64>(), 0..90u32, any::<u64>(), author()).prop_map(|(first, len, time, author)| Origin {
        first,
        end: first.wrapping_add(u64::from(len)),
        time,
        author,
    })
}

/// Which of as many positions something is true of: of none, of all, of few, or of many.
fn choice(len: usize) -> impl Strategy<Value = Vec<bool>> {
    let of = move |part: f64| prop::collection::vec(prop::bool::weighted(part), len);
    prop_oneof![of(0.0), of(1.0), of(0.02), of(0.6)]
}

fn words(bits: &[bool]) -> Box<[u64]> {
    let word = |bits: &[bool]| {
        bits.iter()
            .rev()
            .fold(0, |word, bit| word << 1 | u64::from(*bit))
    };
    bits.chunks(64).map(word).collect()
}

fn frame() -> impl Strategy<Value = FrameRef> {
    let bits = (1..600usize).prop_flat_map(|span| (choice(span), choice(span)));
    let numbers = (
        any::<u32>(),
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
    );
    let packing = prop::option::of((prop::collection::vec(origin(), 0..9), any::<u32>()));
    (bits, numbers, any::<(u32, u32)>(), author(), packing).prop_map(
        |((mut present, live), numbers, (ids_len, bodies_len), author, packing)| {
            let span = present.len() as u32;
            if packing.is_none() {
                present.fill(true);
            }
            let live: Vec<bool> = live.iter().zip(&present).map(|(a, b)| *a && *b).collect();
            let count = |bits: &[bool]| bits.iter().filter(|bit| **bit).count() as u32;
            let (first, time, lsn, segment, offset) = numbers;
            FrameRef {
                first: first.into(),
                span,
                count: count(&present),
                lsn: Lsn(lsn),
                time,
                author,
                segment: SegmentId(segment),
                offset,
                ids_len,
                bodies_len,
                live_count: count(&live),
                live: words(&live),
                packing: packing.map(|(origins, holders)| {
                    Box::new(Packing {
                        present: words(&present),
                        origins: origins.into(),
                        holders,
                    })
                }),
            }
        },
    )
}

proptest! {
    #[test]
    fn frames_come_back_as_they_were(frames in prop::collection::vec(frame(), 0..6)) {
        let bytes = FrameRef::encode_all(&frames);
        prop_assert_eq!(FrameRef::decode_all(&bytes), Some(frames));
        for len in 0..bytes.len() {
            prop_assert_eq!(FrameRef::decode_all(&bytes[..len]), None);
        }
    }

    #[test]
    fn what_is_damaged_is_refused_or_means_something_else(
        frames in prop::collection::vec(frame(), 1..4),
        at: prop::sample::Index,
        flip in 1..=u8::MAX,
    ) {
        let mut bytes = FrameRef::encode_all(&frames);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Some(other) = FrameRef::decode_all(&bytes) {
            // Whatever it is, it is in itself consistent.
            let again = FrameRef::encode_all(&other);
            prop_assert_eq!(FrameRef::decode_all(&again), Some(other));
        }
    }
}

/// What compaction leaves of records that are rarely changed: few of each commit, far apart.
#[test]
fn a_record_takes_about_two_bytes() {
    let (count, gap, each) = (4096, 20, 10);
    let span = count * gap;
    let mut present = vec![false; span as usize];
    present
        .iter_mut()
        .step_by(gap as usize)
        .for_each(|bit| *bit = true);
    let origin = |at: u32| Origin {
        first: u64::from(at * gap * each),
        end: u64::from((at + 1) * gap * each),
        time: 1_700_000_000_000_000 + u64::from(at) * 700,
        author: Author::default(),
    };
    let frame = FrameRef {
        first: 0,
        span,
        count,
        lsn: Lsn(1),
        time: 1_700_000_000_000_000,
        author: Author::default(),
        segment: SegmentId(1),
        offset: 128,
        ids_len: count * 24,
        bodies_len: count * 300,
        live_count: count - 1,
        live: words(&[&[false], &present[1..]].concat()),
        packing: Some(Box::new(Packing {
            present: words(&present),
            origins: (0..count / each).map(origin).collect(),
            holders: 0,
        })),
    };
    let len = FrameRef::encode_all(std::slice::from_ref(&frame)).len();
    assert!(len < 2 * count as usize, "{len}");
    let guess = frame.described_len() as usize;
    assert!((len / 2..2 * len).contains(&guess), "{guess} of {len}");
}
