//! Asks everything, and says whether the answers are right.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use highwater::storage::{MemoryStorage, Survivors};
use highwater::{Error, List, Order, Result, Store};

use crate::stores::{FEEDS, STORE, options};

/// How many questions each feed is asked; see [`answers`].
const QUESTIONS: usize = 11;

/// Every question one can ask, each with its answer.
fn answers(store: &Store) -> Vec<Result<String>> {
    fn show<T: std::fmt::Debug>(answer: Result<T>) -> Result<String> {
        answer.map(|answer| format!("{answer:?}"))
    }
    let mut answers = vec![
        show(store.checkpoint("c", "sync", "")),
        show(store.checkpoint("c", "other", "")),
        show(store.connection_metadata("c")),
        show(store.feeds()),
    ];
    for model in FEEDS {
        let feed = match store.feed("c", model) {
            Ok(feed) => feed,
            Err(error) => {
                answers.extend((0..QUESTIONS).map(|_| Err(Error::Closed)));
                *answers.last_mut().unwrap() = Err(error);
                continue;
            }
        };
        answers.push(show(feed.count()));
        answers.push(show(feed.size()));
        answers.push(show(feed.first_cursor()));
        answers.push(show(feed.last_cursor()));
        for list in [
            List::new().limit(3),
            List::new(),
            List::new().order(Order::Descending),
            List::new().metadata_only(true),
            List::new().ids(["1", "5", "7", "acme", "blob-2", "nobody"]),
        ] {
            let page = feed.list(&list);
            answers.push(show(page.map(|page| {
                let records: Vec<_> = page.iter().map(|record| record.to_owned()).collect();
                (records, page.resume_cursor(), page.has_more())
            })));
        }
        answers.push(show(feed.records(None).collect::<Result<Vec<_>>>()));
        let page = feed.get(&["blob-4", "8", "3", "5", "nobody", "acme"]);
        let owned = page.map(|page| page.iter().map(|r| r.to_owned()).collect::<Vec<_>>());
        answers.push(show(owned));
    }
    answers
}

/// Whether an error says what damage looks like.
pub fn names_damage(error: &Error) -> bool {
    match error {
        Error::Corrupt { path, .. } | Error::UnknownFormat { path, .. } => path.starts_with(STORE),
        _ => false,
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs something that may panic, without the message and without ending the test.
pub fn quietly<T>(run: impl FnOnce() -> T) -> std::thread::Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    QUIET.set(false);
    result
}

pub struct Examiner {
    pub right: Vec<String>,
    pub refused: usize,
    pub partial: usize,
    pub unharmed: usize,
    pub faults: Vec<String>,
}

impl Examiner {
    pub fn new(disk: &MemoryStorage) -> Self {
        let store = options(&disk.crash(Survivors::All)).open(STORE).unwrap();
        Self::right(answers(&store).into_iter().map(Result::unwrap).collect())
    }

    pub fn right(right: Vec<String>) -> Self {
        Self {
            right,
            refused: 0,
            partial: 0,
            unharmed: 0,
            faults: Vec::new(),
        }
    }

    /// Opens a damaged copy and asks everything.
    pub fn examine(&mut self, disk: &MemoryStorage, what: &str) {
        let run = || {
            let answers = options(disk).open(STORE).map(|store| answers(&store));
            // The copy is thrown away: closing it need not write anything.
            disk.stop_at(disk.operations());
            answers
        };
        match quietly(run) {
            Ok(Ok(answers)) => self.compare(answers, what),
            Ok(Err(error)) => {
                self.refused += 1;
                self.expect_damage(&error, what);
            }
            Err(_) => self.faults.push(format!("{what}: panicked")),
        }
    }

    pub fn compare(&mut self, answers: Vec<Result<String>>, what: &str) {
        assert_eq!(answers.len(), self.right.len());
        let mut harmed = false;
        for (at, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(answer) if answer == self.right[at] => {}
                Ok(answer) => {
                    let right = &self.right[at];
                    self.faults
                        .push(format!("{what}: wrong: {answer}, right: {right}"));
                }
                Err(Error::Closed) => {}
                Err(error) => {
                    harmed = true;
                    self.expect_damage(&error, what);
                }
            }
        }
        let counter = if harmed {
            &mut self.partial
        } else {
            &mut self.unharmed
        };
        *counter += 1;
    }

    pub fn expect_damage(&mut self, error: &Error, what: &str) {
        if !names_damage(error) {
            self.faults.push(format!("{what}: {error:?}"));
        }
    }

    pub fn finish(self, name: &str) {
        let shown: Vec<_> = self.faults.iter().take(20).collect();
        assert!(
            self.faults.is_empty(),
            "{name}: {} faults, the first ones: {shown:#?}",
            self.faults.len()
        );
        println!(
            "{name}: {} refused, {} served in part, {} unharmed",
            self.refused, self.partial, self.unharmed
        );
    }
}
