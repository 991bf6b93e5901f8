//! The faults that are waiting to happen, and the only randomness of the simulated disk.

use std::io;

use super::Fault;

/// SplitMix64: the same seed gives the same disk on every machine.
#[derive(Clone)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

/// One slot for each kind of fault; a countdown of 0 strikes next.
#[derive(Default)]
pub(super) struct Faults {
    write: Option<u64>,
    sync: Option<(u64, bool)>,
    sync_dir: Option<u64>,
    read: Option<u64>,
    misdirected: Option<(u64, u64)>,
    lost_syncs: Option<(Rng, u64)>,
    /// The most bytes all files may hold together.
    pub(super) capacity: Option<u64>,
    short_reads: Option<Rng>,
}

impl Faults {
    /// Arms `fault` on a disk that holds `total` bytes.
    pub(super) fn arm(&mut self, fault: Fault, total: u64) {
        match fault {
            Fault::Write { after } => self.write = Some(after),
            Fault::Sync { after, dropped } => self.sync = Some((after, dropped)),
            Fault::SyncDir { after } => self.sync_dir = Some(after),
            Fault::Read { after } => self.read = Some(after),
            Fault::LostSyncs { seed, percent } => {
                self.lost_syncs = Some((Rng::new(seed), percent));
            }
            Fault::Misdirected { after, by } => self.misdirected = Some((after, by)),
            Fault::Full { bytes } => self.capacity = Some(total.saturating_add(bytes)),
            Fault::ShortReads { seed } => self.short_reads = Some(Rng::new(seed)),
        }
    }

    /// Whether the write that is about to happen fails. Once one does, they all do.
    pub(super) fn write_fails(&mut self) -> bool {
        match &mut self.write {
            None => false,
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }

    /// Whether the sync that is about to happen fails, and if so whether it drops the data.
    pub(super) fn sync_fails(&mut self) -> Option<bool> {
        let (left, dropped) = self.sync?;
        self.sync = left.checked_sub(1).map(|left| (left, dropped));
        (left == 0).then_some(dropped)
    }

    pub(super) fn sync_dir_fails(&mut self) -> bool {
        strikes(&mut self.sync_dir)
    }

    /// Whether the sync that is about to happen does nothing.
    pub(super) fn sync_is_lost(&mut self) -> bool {
        let lost = self.lost_syncs.as_mut();
        lost.is_some_and(|(rng, percent)| rng.next() % 100 < *percent)
    }

    /// How far off the write that is about to happen lands, if it does.
    pub(super) fn misdirection(&mut self) -> Option<u64> {
        let (left, by) = self.misdirected?;
        self.misdirected = left.checked_sub(1).map(|left| (left, by));
        (left == 0).then_some(by)
    }

    pub(super) fn read_fails(&mut self) -> bool {
        strikes(&mut self.read)
    }

    /// How many of `wanted` bytes the system chooses to read.
    pub(super) fn read_len(&mut self, wanted: usize) -> io::Result<usize> {
        let Some(rng) = &mut self.short_reads else {
            return Ok(wanted);
        };
        if wanted == 0 {
            return Ok(0);
        }
        match rng.next() % 8 {
            0 => Err(io::ErrorKind::Interrupted.into()),
            1..4 => Ok(1 + (rng.next() % wanted as u64) as usize),
            _ => Ok(wanted),
        }
    }
}

/// Counts a fault down; it strikes once.
fn strikes(countdown: &mut Option<u64>) -> bool {
    let Some(left) = *countdown else { return false };
    *countdown = left.checked_sub(1);
    left == 0
}

/// What the kernel reports as `EIO`.
pub(super) fn io_error(what: &str) -> io::Error {
    io::Error::other(format!("simulated I/O error: {what}"))
}
