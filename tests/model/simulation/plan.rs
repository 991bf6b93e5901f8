//! What a seed decides once, for its whole history. Each history has only some of the operations and
//! some of the faults, so that the others do not hide what those bring about (swarm testing).

use highwater::Options;

use super::dice::Dice;
use super::steps::Kind;
use crate::driver::Driver;

/// See the module.
#[derive(Clone, Debug)]
pub struct Plan {
    pub options: Options,
    pub steps: u64,
    /// How many records there are in each feed at most, and in a batch.
    pub ids: u64,
    pub batch: u64,
    /// How often each kind of operation comes.
    pub kinds: Vec<(u64, Kind)>,
    /// Of a hundred steps, so many fail, or lose the power on the way.
    pub failing: u64,
    pub failures: Vec<(u64, Failure)>,
    pub power_cuts: u64,
    pub short_reads: bool,
    /// What the disk does behind everybody's back, from which step on.
    pub betrayal: Option<(u64, Betrayal)>,
}

/// What fails in a step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Failure {
    Write,
    Sync,
    SyncDropped,
    SyncDir,
    Read,
    Full,
}

/// What the disk does without saying so.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Betrayal {
    LostSyncs,
    FlippedBit,
    MisdirectedWrite,
}

impl Plan {
    pub fn new(dice: &mut Dice) -> Self {
        let mut kinds = Kind::WEIGHTS.to_vec();
        let spared = dice.between(0, 50);
        kinds.retain(|(_, kind)| !dice.percent(spared) || *kind == Kind::Commit);
        for (weight, _) in &mut kinds {
            *weight *= dice.between(1, 4);
        }
        let all = [
            Failure::Write,
            Failure::Sync,
            Failure::SyncDropped,
            Failure::SyncDir,
            Failure::Read,
            Failure::Full,
        ];
        let mut failures: Vec<_> = all.into_iter().map(|of| (dice.between(1, 4), of)).collect();
        failures.retain(|_| dice.percent(60));
        let betrayals = [
            Betrayal::LostSyncs,
            Betrayal::FlippedBit,
            Betrayal::FlippedBit,
            Betrayal::MisdirectedWrite,
        ];
        let steps = dice.weighted(&[(60, 20), (30, 50), (8, 120), (1, 400)]);
        let steps = dice.between(steps / 3, steps);
        let betrayed = dice.percent(25);
        let betrayal = (dice.between(1, steps), dice.pick(&betrayals));
        let failing = dice.pick(&[0, 4, 12, 25]);
        // With few records they change often; with many, pages are long enough to be followed.
        let (ids, batch) = dice.pick(&[(3, 8), (3, 40), (12, 12), (24, 8), (24, 60), (90, 60)]);
        Self {
            options: options(dice),
            steps,
            ids,
            batch,
            kinds,
            failing: if failures.is_empty() { 0 } else { failing },
            failures,
            power_cuts: dice.pick(&[0, 2, 8, 20]),
            short_reads: dice.percent(30),
            betrayal: Some(betrayal).filter(|_| betrayed),
        }
    }
}

fn options(dice: &mut Dice) -> Options {
    let mut options = Options::new().runs_kept(100_000);
    if dice.percent(50) {
        options = options.durability(Driver::relaxed());
    }
    options = options.segment_size(dice.pick(&[4096, 4096, 16 << 10, 64 << 20]));
    options = match dice.below(3) {
        0 => options,
        1 => options.index_budget(0).index_limits_of(400, 200),
        _ => options.index_budget(4000).index_limits_of(2000, 600),
    };
    options = options.eager_compaction(dice.percent(60));
    compressing(options, dice.percent(30))
}

#[cfg(feature = "zstd")]
fn compressing(options: Options, compresses: bool) -> Options {
    match compresses {
        true => crate::histories::compressing(options),
        false => options,
    }
}

/// Without the feature a seed's history is another one; nothing else depends on it.
#[cfg(not(feature = "zstd"))]
fn compressing(options: Options, _: bool) -> Options {
    options
}
