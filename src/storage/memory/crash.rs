//! What is left of a disk after the process or the power is gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Survivors;
use super::disk::{Contents, Directory, Disk, Entry, Inode, NameChange, Names, Op};
use super::faults::Rng;
use super::image::Image;

/// What a device writes completely or not at all.
const SECTOR: u64 = 512;

/// The disk that `survivors` leaves of `disk`, with nothing open, locked, armed or counted.
pub(super) fn crash(disk: &Disk, survivors: Survivors) -> Disk {
    match survivors {
        Survivors::All => restart(disk),
        Survivors::Synced => power_loss(disk, Fate::Cut { seq: 0, bytes: 0 }),
        Survivors::Prefix(limit) => power_loss(disk, cut_at(disk, limit)),
        Survivors::Suffix(limit) => {
            let before = unsynced_bytes(disk).saturating_sub(limit);
            power_loss(disk, cut_at(disk, before).reversed())
        }
        Survivors::Sectors(seed) => power_loss(disk, Fate::Coins(Coins::new(seed, SECTOR))),
        Survivors::HalfSectors(seed) => power_loss(disk, Fate::Coins(Coins::new(seed, SECTOR / 2))),
        Survivors::Names => power_loss(disk, Fate::kinds(true, false, false)),
        Survivors::Contents => power_loss(disk, Fate::kinds(false, true, true)),
        Survivors::Lengths => power_loss(disk, Fate::kinds(true, true, false)),
        Survivors::Data => power_loss(disk, Fate::kinds(true, false, true)),
    }
}

/// Whether both disks have the same files, and nothing pending.
pub(super) fn is_same(one: &Disk, other: &Disk) -> bool {
    let (ours, theirs) = (one.directories.iter(), other.directories.iter());
    one.directories.len() == other.directories.len()
        && ours
            .zip(theirs)
            .all(|((path, dir), (their_path, their_dir))| {
                let same = |((name, inode), (their_name, their_inode)): (_, (_, &Arc<Inode>))| {
                    name == their_name && is_same_file(inode, their_inode)
                };
                let settled = dir.pending.is_empty() && their_dir.pending.is_empty();
                path == their_path
                    && settled
                    && dir.current.len() == their_dir.current.len()
                    && dir.current.iter().zip(&their_dir.current).all(same)
            })
}

fn is_same_file(one: &Arc<Inode>, other: &Arc<Inode>) -> bool {
    if Arc::ptr_eq(one, other) {
        return one.contents.lock().pending.is_empty();
    }
    let (one, other) = (one.contents.lock(), other.contents.lock());
    let settled = one.pending.is_empty() && other.pending.is_empty();
    settled && one.current == other.current && one.durable == other.durable
}

/// How many bytes the pending writes of all files hold that a crash could bring back.
pub(super) fn unsynced_bytes(disk: &Disk) -> u64 {
    pending_writes(disk).into_iter().map(|(_, len)| len).sum()
}

/// What happens to the pending changes.
enum Fate {
    /// Everything issued before `seq` survives, and the first `bytes` bytes of the write `seq`.
    Cut { seq: u64, bytes: usize },
    /// What a cut leaves is lost, and the rest survives.
    Rest { seq: u64, bytes: usize },
    /// Everything survives or not by chance.
    Coins(Coins),
    /// Changes of some kinds survive.
    Kinds {
        names: bool,
        lengths: bool,
        data: bool,
    },
}

impl Fate {
    fn kinds(names: bool, lengths: bool, data: bool) -> Self {
        Fate::Kinds {
            names,
            lengths,
            data,
        }
    }

    fn reversed(self) -> Self {
        match self {
            Fate::Cut { seq, bytes } => Fate::Rest { seq, bytes },
            other => other,
        }
    }

    fn names(&mut self, dir: &Directory) -> Names {
        let mut names = dir.durable.clone();
        for change in &dir.pending {
            let survives = match self {
                Fate::Cut { seq, .. } => change.seq < *seq,
                Fate::Rest { seq, .. } => change.seq > *seq,
                Fate::Coins(coins) => coins.flip(),
                Fate::Kinds { names, .. } => *names,
            };
            if survives {
                change.apply(&mut names);
            }
        }
        names
    }

    fn image(&mut self, contents: &Contents) -> Image {
        match self {
            Fate::Cut { seq, bytes } => cut_image(contents, *seq, *bytes),
            Fate::Rest { seq, bytes } => rest_image(contents, *seq, *bytes),
            Fate::Coins(coins) => coins.image(contents),
            Fate::Kinds { lengths, data, .. } => kinds_image(contents, *lengths, *data),
        }
    }
}

fn cut_image(contents: &Contents, cut: u64, bytes: usize) -> Image {
    let mut image = contents.durable.clone();
    for (seq, op) in &contents.pending {
        match op {
            _ if *seq < cut => op.apply(&mut image),
            Op::Write { offset, data } if *seq == cut => image.write(&data[..bytes], *offset),
            _ => break,
        }
    }
    image
}

fn rest_image(contents: &Contents, cut: u64, bytes: usize) -> Image {
    let mut image = contents.durable.clone();
    for (seq, op) in &contents.pending {
        match op {
            _ if *seq > cut => op.apply(&mut image),
            Op::Write { offset, data } if *seq == cut => {
                image.write(&data[bytes..], offset + bytes as u64);
            }
            _ => {}
        }
    }
    image
}

fn kinds_image(contents: &Contents, lengths: bool, data: bool) -> Image {
    let mut image = contents.durable.clone();
    for (_, op) in &contents.pending {
        match op {
            Op::Write {
                offset,
                data: bytes,
            } => {
                if lengths {
                    image.grow(offset + bytes.len() as u64);
                }
                if data {
                    image.put(bytes, *offset);
                }
            }
            Op::SetLen(_) | Op::Grow(_) if lengths => op.apply(&mut image),
            Op::SetLen(_) | Op::Grow(_) => {}
        }
    }
    image.clip();
    image
}

/// Chance, with one weight for a whole crash, so that some crashes lose little and some nearly all.
struct Coins {
    rng: Rng,
    /// Out of 8 flips this many say that a change survives.
    weight: u64,
    /// What reaches the device as a whole, in bytes.
    unit: u64,
}

impl Coins {
    fn new(seed: u64, unit: u64) -> Self {
        let mut rng = Rng::new(seed);
        let weight = 1 + rng.next() % 7;
        Self { rng, weight, unit }
    }

    fn flip(&mut self) -> bool {
        self.rng.next() % 8 < self.weight
    }

    /// Replays the pending changes on a page cache, and after each one lets sectors it touched
    /// reach the device. A sector always goes as a whole, with everything written to it until then.
    fn image(&mut self, contents: &Contents) -> Image {
        let mut device = contents.durable.clone();
        if contents.pending.is_empty() {
            return device;
        }
        let mut cache = contents.durable.clone();
        for (_, op) in &contents.pending {
            let len = cache.len();
            op.apply(&mut cache);
            let Op::Write { offset, data } = op else {
                if self.flip() {
                    op.apply(&mut device);
                }
                continue;
            };
            let end = offset + data.len() as u64;
            if end > len && self.flip() {
                device.grow(end);
            }
            let unit = self.unit;
            for at in offset / unit..end.div_ceil(unit) {
                if self.flip() {
                    let mut bytes = [0; SECTOR as usize];
                    let bytes = bytes.split_at_mut(unit as usize).0;
                    cache.read(bytes, at * unit);
                    device.put(bytes, at * unit);
                }
            }
        }
        device.clip();
        device
    }
}

fn power_loss(disk: &Disk, mut fate: Fate) -> Disk {
    let mut after = Disk::new();
    let mut inodes = BTreeMap::new();
    for (path, dir) in &disk.directories {
        let mut names = fate.names(dir);
        for inode in names.values_mut() {
            let survivor = inodes.entry(inode.id).or_insert_with(|| {
                let image = fate.image(&inode.contents.lock());
                let durable = image.clone();
                Inode::new(
                    inode.id,
                    Contents {
                        current: image,
                        durable,
                        pending: Vec::new(),
                    },
                )
            });
            *inode = Arc::clone(survivor);
        }
        let dir = Directory {
            current: names.clone(),
            durable: names,
            pending: Vec::new(),
        };
        after.directories.insert(path.clone(), dir);
    }
    after.next_inode = disk.next_inode;
    after
}

/// The process is gone, the page cache is not: what was pending still is.
fn restart(disk: &Disk) -> Disk {
    let mut after = Disk::new();
    let mut inodes = BTreeMap::new();
    let mut copy = |inode: &Arc<Inode>| {
        let copy = inodes
            .entry(inode.id)
            .or_insert_with(|| Inode::new(inode.id, inode.contents.lock().clone()));
        Arc::clone(copy)
    };
    for (path, dir) in &disk.directories {
        let mut dir = dir.clone();
        let names = dir.current.values_mut().chain(dir.durable.values_mut());
        names.for_each(|inode| *inode = copy(inode));
        for NameChange { unlink, link, .. } in &mut dir.pending {
            for Entry { inode, .. } in unlink.iter_mut().chain(link) {
                *inode = copy(inode);
            }
        }
        after.directories.insert(path.clone(), dir);
    }
    after.next_inode = disk.next_inode;
    after.next_seq = disk.next_seq;
    after
}

/// Finds the write that crosses `limit`.
fn cut_at(disk: &Disk, limit: u64) -> Fate {
    let mut left = limit;
    for (seq, len) in pending_writes(disk) {
        if len > left {
            return Fate::Cut {
                seq,
                bytes: left as usize,
            };
        }
        left -= len;
    }
    Fate::Cut {
        seq: u64::MAX,
        bytes: 0,
    }
}

/// Sequence number and length of every pending write to a file that a crash could bring back, in
/// the order they were issued.
fn pending_writes(disk: &Disk) -> Vec<(u64, u64)> {
    let mut inodes = BTreeMap::new();
    for dir in disk.directories.values() {
        let linked = dir.pending.iter().filter_map(|change| change.link.as_ref());
        for inode in linked.map(|entry| &entry.inode).chain(dir.durable.values()) {
            inodes.insert(inode.id, inode);
        }
    }
    let mut writes = Vec::new();
    for inode in inodes.into_values() {
        for (seq, op) in &inode.contents.lock().pending {
            if let Op::Write { data, .. } = op {
                writes.push((*seq, data.len() as u64));
            }
        }
    }
    writes.sort_unstable();
    writes
}
