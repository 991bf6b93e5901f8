//! The next operation of a history: one of the actors does something. Writers, runs, readers and
//! consumers take turns as the dice say, each in the middle of what it is about.

use highwater::storage::{Fault, Survivors};

use super::dice::Dice;
use super::plan::{Failure, Plan};
use crate::driver::{FEEDS, SYNCS};
use crate::operations::{Begin, End, LetGo};
use crate::recovering::Interruption;
use crate::reference::{Doc, FeedNo, Write};
use crate::step::{Step, Who};

/// A kind of operation.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    Commit,
    CommitSeveral,
    CommitBy,
    Batch,
    Runs,
    Windows,
    Bookmark,
    LetGo,
    HardDeleteAll,
    Acknowledge,
    Consume,
    Replace,
    Read,
    Check,
    Flush,
    SaveCatalog,
    Compact,
    OpenTwice,
    Reopen,
    Rebuild,
    Crash,
    Clock,
}

impl Kind {
    pub const WEIGHTS: [(u64, Self); 22] = [
        (12, Self::Commit),
        (5, Self::CommitSeveral),
        (8, Self::CommitBy),
        (6, Self::Batch),
        (6, Self::Runs),
        (8, Self::Windows),
        (3, Self::Bookmark),
        (5, Self::LetGo),
        (1, Self::HardDeleteAll),
        (1, Self::Acknowledge),
        (3, Self::Consume),
        (6, Self::Replace),
        (9, Self::Read),
        (1, Self::Check),
        (1, Self::Flush),
        (2, Self::SaveCatalog),
        (3, Self::Compact),
        (1, Self::OpenTwice),
        (1, Self::Reopen),
        (1, Self::Rebuild),
        (3, Self::Crash),
        (1, Self::Clock),
    ];
}

/// How many writers have batches of their own open.
const WRITERS: usize = 3;

impl Dice {
    pub fn step(&mut self, plan: &Plan) -> Step {
        match self.weighted(&plan.kinds) {
            Kind::Commit => Step::Commit(vec![(self.feed(), self.write(plan))], None),
            Kind::CommitSeveral => {
                let writes = (0..self.between(1, 3)).map(|_| (self.feed(), self.write(plan)));
                let writes = writes.collect();
                Step::Commit(writes, self.checkpoint(50))
            }
            Kind::CommitBy => {
                let (who, merging) = (self.who(), self.percent(50));
                let writes = (0..self.between(1, 2)).map(|_| (self.feed(), self.write(plan)));
                let writes = writes.collect();
                Step::CommitBy(who, merging, writes, self.checkpoint(30))
            }
            Kind::Batch => match self.below(3) {
                0 => Step::CommitBatch(self.index(WRITERS)),
                _ => {
                    let (writer, who) = (self.index(WRITERS), self.who());
                    Step::AddToBatch(writer, who, (self.feed(), self.write(plan)))
                }
            },
            Kind::Runs => self.run(),
            Kind::Windows => match self.below(9) {
                0..4 => Step::OpenWindow(self.who(), self.feed()),
                _ => {
                    let (who, feed, own) = (self.who(), self.feed(), self.percent(50));
                    let max = self.pick(&[u64::MAX, u64::MAX, 0, 2, 5]);
                    Step::Sweep(who, feed, own, max)
                }
            },
            Kind::Bookmark => Step::Bookmark(self.feed()),
            Kind::LetGo => {
                let what = self.pick(&[
                    LetGo::Prune,
                    LetGo::Prune,
                    LetGo::HardDelete,
                    LetGo::Purge,
                    LetGo::Purge,
                ]);
                let (feed, marked) = (self.feed(), self.percent(50));
                Step::LetGo(what, feed, marked, self.between(1, 12))
            }
            Kind::HardDeleteAll => Step::HardDeleteAll(self.feed()),
            Kind::Acknowledge => Step::Acknowledge(self.feed()),
            Kind::Consume => Step::Consume(self.feed(), self.limit()),
            Kind::Replace => match self.below(9) {
                0..2 => Step::Stage(self.feed()),
                2..6 => Step::WriteStaged(self.write(plan)),
                6 => Step::WindowStaged(self.percent(50)),
                _ => Step::EndStaged(self.percent(70)),
            },
            Kind::Read => Step::Read {
                reader: self.index(1 << 20),
                limit: self.limit(),
            },
            Kind::Check => Step::Check,
            Kind::Flush => Step::Flush,
            Kind::SaveCatalog => Step::SaveCatalog,
            Kind::Compact => Step::Compact,
            Kind::OpenTwice => Step::OpenTwice,
            Kind::Reopen => Step::Reopen,
            Kind::Rebuild => Step::Rebuild,
            Kind::Crash => match self.percent(40) {
                true => Step::CrashThrough(self.survivors(), self.interruptions(plan)),
                false => Step::Crash(self.survivors()),
            },
            Kind::Clock => Step::Clock(self.clock()),
        }
    }

    fn run(&mut self) -> Step {
        let sync = self.index(SYNCS.len());
        match self.below(3) {
            0 => {
                let ends = [
                    End::Succeed,
                    End::Succeed,
                    End::Fail,
                    End::Interrupt,
                    End::Drop,
                ];
                Step::EndRun(sync, self.pick(&ends))
            }
            _ => {
                let (reset, replace) = (self.percent(20), self.percent(30));
                Step::BeginRun(sync, Begin { reset, replace })
            }
        }
    }

    fn feed(&mut self) -> FeedNo {
        self.index(FEEDS)
    }

    fn who(&mut self) -> Who {
        let sync = self.index(SYNCS.len());
        Some(sync).filter(|_| self.percent(70))
    }

    fn limit(&mut self) -> usize {
        self.pick(&[1, 2, 3, 7, 20, 1000])
    }

    fn checkpoint(&mut self, percent: u64) -> Option<u64> {
        let at = self.below(1000);
        Some(at).filter(|_| self.percent(percent))
    }

    /// Jumps of seconds mostly, and of ten years now and then.
    fn clock(&mut self) -> i64 {
        let most = self.pick(&[2_000_000, 2_000_000, 315_360_000_000_000]);
        self.below(2 * most) as i64 - most as i64
    }

    fn id(&mut self, plan: &Plan) -> String {
        format!("r{}", self.below(plan.ids))
    }

    fn write(&mut self, plan: &Plan) -> Write {
        match self.below(12) {
            0..4 => {
                let len = self.below(plan.batch + 1);
                let record = |_| (self.id(plan), self.below(4) as u8, self.below(4) as u8);
                Write::SaveJson((0..len).map(record).collect())
            }
            // A provider's page: neighbours, most of which are as they were.
            4..7 => {
                let (from, version) = (self.below(plan.ids), self.below(4) as u8);
                let changed = self.between(2, 40);
                let to = (from + plan.batch).min(plan.ids);
                let record = |id: u64| {
                    let other = self.below(changed) == 0;
                    (format!("r{id}"), version + u8::from(other), 0)
                };
                Write::SaveJson((from..to).map(record).collect())
            }
            7 => {
                let most = self.pick(&[40, 40, 1500]);
                let len = self.below(6);
                let body = |dice: &mut Self| {
                    let len = dice.below(most);
                    (0..len).map(|_| dice.number() as u8).collect()
                };
                let record = |_| (self.id(plan), body(self));
                Write::SaveRaw((0..len).map(record).collect())
            }
            8..10 => {
                let len = self.below(4);
                Write::Update((0..len).map(|_| self.partial(plan)).collect())
            }
            _ => {
                let len = self.below(plan.batch.min(8) + 1);
                Write::Delete((0..len).map(|_| self.id(plan)).collect())
            }
        }
    }

    fn partial(&mut self, plan: &Plan) -> (String, Doc) {
        let (id, n) = (self.id(plan), self.below(4));
        let value = match self.percent(50) {
            true => serde_json::json!({"id": id, "x": {(n.to_string()): n}}),
            false => serde_json::json!({"id": id, "v": n}),
        };
        let serde_json::Value::Object(map) = value else {
            unreachable!("an object literal")
        };
        (id, Doc(map))
    }

    pub fn survivors(&mut self) -> Survivors {
        match self.below(6) {
            0 => Survivors::Synced,
            1 => Survivors::All,
            2 => Survivors::Prefix(self.below(20_000)),
            3 => Survivors::Prefix(self.below(600)),
            _ => Survivors::Sectors(self.number()),
        }
    }

    /// Opens that come to no end, up to three in a row.
    pub fn interruptions(&mut self, plan: &Plan) -> Vec<Interruption> {
        let count = self.pick(&[0, 1, 1, 2, 3]);
        let interrupted = |_| match self.percent(60) || plan.failures.is_empty() {
            true => Interruption::Power(self.below(25), self.survivors()),
            false => Interruption::Fault(self.fault(plan)),
        };
        (0..count).map(interrupted).collect()
    }

    /// A fault of one of the kinds that the history has.
    pub fn fault(&mut self, plan: &Plan) -> Fault {
        match self.weighted(&plan.failures) {
            Failure::Write => Fault::Write {
                after: self.below(8),
            },
            failure @ (Failure::Sync | Failure::SyncDropped) => Fault::Sync {
                after: self.below(6),
                dropped: failure == Failure::SyncDropped,
            },
            Failure::SyncDir => Fault::SyncDir {
                after: self.below(3),
            },
            Failure::Read => Fault::Read {
                after: self.below(30),
            },
            Failure::Full => Fault::Full {
                bytes: self.pick(&[0, 500, 4096, 20_000]),
            },
        }
    }
}
