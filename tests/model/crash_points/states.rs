//! The states in which a crash may leave the disk.

use highwater::storage::{MemoryStorage, Survivors};

/// The distinct disks that a crash can make of this one, with what survived on each. Random
/// subsets of sectors depend on `seed`, and there are `subsets` of them.
pub fn states(disk: &MemoryStorage, seed: u64, subsets: u64) -> Vec<(Survivors, MemoryStorage)> {
    let unsynced = disk.unsynced_bytes();
    let but_one = unsynced.saturating_sub(1);
    let mut kinds = vec![
        Survivors::All,
        Survivors::Synced,
        Survivors::Prefix(unsynced),
        Survivors::Names,
        Survivors::Contents,
        Survivors::Lengths,
        Survivors::Data,
    ];
    kinds.extend([1, unsynced / 2, but_one].map(Survivors::Prefix));
    kinds.extend([1, unsynced / 2, but_one].map(Survivors::Suffix));
    let seeds = (0..subsets).map(|at| seed * 1000 + at);
    kinds.extend(seeds.clone().map(Survivors::Sectors));
    kinds.extend(seeds.map(Survivors::HalfSectors));
    let mut states: Vec<(Survivors, MemoryStorage)> = Vec::new();
    for survivors in kinds {
        let state = disk.crash(survivors);
        if !states.iter().any(|(_, known)| known.is_same(&state)) {
            states.push((survivors, state));
        }
    }
    states
}
