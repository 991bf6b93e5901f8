//! Decides whether a history of calls on one feed is linearizable: whether every call can have taken
//! effect at one moment between its beginning and its end.
//!
//! In general that is a search. Here the feed gives the order of its commits away: each one's changes
//! have positions, and positions rise in commit order. So the commits are replayed in that order,
//! and what remains is to find for every read how many commits it had seen. It must have seen those
//! that had ended when it began and none that began when it had ended, and no less than a read that
//! had ended when it began. The least numbers that satisfy the lower bounds are found in one pass, in
//! the order in which reads began; if those break an upper bound, greater ones do too. The check is
//! exact therefore: it accepts a history if and only if there is an order that explains it.

use std::collections::BTreeMap;
use std::fmt::Debug;

use highwater::{Action, Outcome};

pub type Id = u8;
pub type Value = u8;

/// A call, and when it began and ended: numbers of one counter that all threads share.
#[derive(Clone, Debug)]
pub struct Event {
    pub begun: u64,
    pub ended: u64,
    pub call: Call,
    /// Which commit of several feeds this is a part of.
    pub joint: Option<usize>,
}

/// What was asked, and what the answer was.
#[derive(Clone, Debug)]
pub enum Call {
    /// Values to save, or `None` to delete; ids differ.
    Write {
        records: Vec<(Id, Option<Value>)>,
        outcomes: Vec<Outcome>,
        /// The position of the last change.
        last: Option<u64>,
    },
    List {
        after: u64,
        limit: usize,
        page: Vec<Version>,
        resume: u64,
        more: bool,
    },
    Get {
        ids: Vec<Id>,
        found: Vec<Version>,
    },
    Count(u64),
}

/// The newest version of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version {
    pub id: Id,
    pub position: u64,
    pub action: Action,
    /// That of a deleted record is the last it had.
    pub value: Value,
}

/// What a feed holds after some number of commits.
#[derive(Clone, Default, PartialEq, Debug)]
struct State {
    records: BTreeMap<Id, Version>,
    tail: u64,
}

/// An order that explains a history.
#[derive(Debug)]
pub struct Order {
    /// The events that changed something.
    pub commits: Vec<usize>,
    /// Every other event, and how many commits it had seen, at least.
    pub reads: Vec<(usize, usize)>,
}

impl State {
    /// Writes as the contract says; the changes get the positions that end with `last`.
    fn write(&mut self, records: &[(Id, Option<Value>)], last: u64) -> Vec<Outcome> {
        let outcome = |&(id, value): &(Id, Option<Value>)| {
            let old = self.records.get(&id);
            match (old, value) {
                (None, None) => Outcome::NotFound,
                (Some(old), None) if old.action == Action::Deleted => Outcome::Unchanged,
                (Some(_), None) => Outcome::Deleted,
                (Some(old), Some(new)) if old.action != Action::Deleted => {
                    if old.value == new {
                        Outcome::Unchanged
                    } else {
                        Outcome::Updated
                    }
                }
                (_, Some(_)) => Outcome::Added,
            }
        };
        let outcomes: Vec<Outcome> = records.iter().map(outcome).collect();
        let changes = outcomes.iter().filter(|outcome| outcome.is_change());
        let mut position = last.saturating_sub(changes.count() as u64);
        for (&(id, value), outcome) in records.iter().zip(&outcomes) {
            let action = match outcome {
                Outcome::Added => Action::Added,
                Outcome::Updated => Action::Updated,
                Outcome::Deleted => Action::Deleted,
                _ => continue,
            };
            position += 1;
            let old = self.records.get(&id).map_or(0, |old| old.value);
            let version = Version {
                id,
                position,
                action,
                value: value.unwrap_or(old),
            };
            self.records.insert(id, version);
            self.tail = position;
        }
        outcomes
    }

    /// Whether a call that changes nothing may be answered like this.
    fn explains(&self, call: &Call) -> bool {
        match call {
            Call::Write {
                records, outcomes, ..
            } => self.clone().write(records, self.tail) == *outcomes,
            Call::List {
                after,
                limit,
                page,
                resume,
                more,
            } => {
                let mut left: Vec<Version> = self.records.values().copied().collect();
                left.retain(|version| version.position > *after);
                left.sort_by_key(|version| version.position);
                let seen = page.last().map_or(*after, |version| version.position);
                let next = left.get(*limit).map(|version| version.position);
                let resumes_right = match next {
                    Some(next) => (seen..next).contains(resume),
                    None => *resume == self.tail.max(*after),
                };
                left.truncate(*limit);
                left == *page && next.is_some() == *more && resumes_right
            }
            Call::Get { ids, found } => {
                let known = ids.iter().filter_map(|id| self.records.get(id));
                known.eq(found)
            }
            Call::Count(count) => {
                let live = |version: &&Version| version.action != Action::Deleted;
                self.records.values().filter(live).count() as u64 == *count
            }
        }
    }
}

/// An order that explains `history`, or what cannot be explained.
pub fn check(history: &[Event]) -> Result<Order, String> {
    let (commits, states) = replay(history)?;
    let began = |commit: usize| history[commits[commit]].begun;
    // The order of commits is given; it must be one that their times allow.
    let mut newest_begin = 0;
    for &commit in &commits {
        newest_begin = history[commit].begun.max(newest_begin);
        if history[commit].ended < newest_begin {
            return Err(told(
                "a commit is behind one that began later",
                history,
                commit,
            ));
        }
    }
    let mut reads: Vec<usize> = (0..history.len())
        .filter(|n| !changes(history, *n))
        .collect();
    reads.sort_by_key(|read| history[*read].begun);
    let mut placed: Vec<(usize, usize)> = Vec::new();
    for read in reads {
        let (begun, ended) = (history[read].begun, history[read].ended);
        let over = |commit: usize| history[commits[commit]].ended < begun;
        let committed = (0..commits.len()).rfind(|commit| over(*commit));
        let earlier = placed
            .iter()
            .filter(|(other, _)| history[*other].ended < begun);
        let least = earlier.map(|(_, seen)| *seen).max().unwrap_or(0);
        let least = least.max(committed.map_or(0, |commit| commit + 1));
        let most = (0..commits.len()).find(|commit| began(*commit) > ended);
        let most = most.unwrap_or(commits.len());
        let found = (least..=most).find(|seen| states[*seen].explains(&history[read].call));
        match found {
            Some(seen) => placed.push((read, seen)),
            None => {
                let states: Vec<_> = states.get(least..=most).unwrap_or_default().to_vec();
                let what = format!("no state from {least} to {most} explains it: {states:#?}");
                return Err(told(&what, history, read));
            }
        }
    }
    Ok(Order {
        commits,
        reads: placed,
    })
}

/// The events that changed something, in the order of their positions, and the states between them.
fn replay(history: &[Event]) -> Result<(Vec<usize>, Vec<State>), String> {
    let last = |event: usize| match history[event].call {
        Call::Write { last, .. } => last,
        _ => None,
    };
    let mut commits: Vec<usize> = (0..history.len())
        .filter(|n| changes(history, *n))
        .collect();
    commits.sort_by_key(|commit| last(*commit));
    let mut states = vec![State::default()];
    let mut state = State::default();
    for &commit in &commits {
        let Call::Write {
            records,
            outcomes,
            last: Some(last),
        } = &history[commit].call
        else {
            continue;
        };
        let before = state.clone();
        if state.write(records, *last) != *outcomes {
            let what = format!("the outcomes are not those of a write to {before:?}");
            return Err(told(&what, history, commit));
        }
        let changed = outcomes.iter().filter(|outcome| outcome.is_change());
        if *last != before.tail + changed.count() as u64 {
            return Err(told("positions are not consecutive", history, commit));
        }
        states.push(state.clone());
    }
    Ok((commits, states))
}

fn changes(history: &[Event], event: usize) -> bool {
    matches!(history[event].call, Call::Write { last: Some(_), .. })
}

fn told(what: &str, history: &[Event], event: usize) -> String {
    let event = &history[event];
    let mut around: Vec<&Event> = history.iter().collect();
    around.retain(|other| other.begun <= event.ended && other.ended + 60 >= event.begun);
    around.sort_by_key(|other| other.begun);
    format!("{event:?}\n{what}\namong {around:#?}")
}

/// The same for several feeds that have some commits together: whoever saw a commit in one of them
/// must see it in the others.
pub fn check_together(histories: &mut [Vec<Event>]) -> Result<(), String> {
    // What a read saw was over when it ended, in every feed; once more for what that implies.
    for _ in 0..2 {
        let mut over: BTreeMap<usize, u64> = BTreeMap::new();
        for history in histories.iter() {
            let order = check(history)?;
            for (read, seen) in order.reads {
                for &commit in &order.commits[..seen] {
                    if let Some(joint) = history[commit].joint {
                        let ended = over.entry(joint).or_insert(u64::MAX);
                        *ended = history[read].ended.min(*ended);
                    }
                }
            }
        }
        for event in histories.iter_mut().flatten() {
            if let Some(ended) = event.joint.and_then(|joint| over.get(&joint)) {
                event.ended = event.ended.min(*ended);
            }
        }
    }
    histories
        .iter()
        .try_for_each(|history| check(history).map(drop))
}
