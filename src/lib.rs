//! Highwater is an embedded records cache: it keeps copies of records that come from other
//! people's APIs, tells what was added, updated and deleted since last time, and serves those
//! changes as a feed that is read by cursor and never loses one.
//!
//! ```
//! use highwater::{List, Store};
//! use serde_json::json;
//!
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path();
//! let store = Store::open(path)?;
//! let contacts = store.feed("conn-42", "Contact")?;
//!
//! // A sync run saves what it fetched; most of it is unchanged next time.
//! contacts.batch_save(&[json!({"id": 1, "name": "Ada"}), json!({"id": 2, "name": "Bob"})])?;
//! let applied = contacts.batch_save(&[json!({"name": "Ada", "id": 1}), json!({"id": 3})])?;
//! assert_eq!((applied.totals.added, applied.totals.unchanged), (1, 1));
//!
//! // An app reads the changes, remembers the cursor, and goes on from there next time.
//! let page = contacts.list(&List::new())?;
//! assert_eq!(page.len(), 3);
//! let cursor = page.resume_cursor().to_string();
//!
//! contacts.batch_delete(&["2"])?;
//! let page = contacts.list(&List::new().after(cursor.parse::<highwater::Cursor>()?))?;
//! let change = page.get(0).expect("one change");
//! assert_eq!((change.id, change.last_action.as_str()), ("2", "DELETED"));
//! # Ok::<(), highwater::Error>(())
//! ```
//!
//! # The story in the code
//!
//! Records come in and are hashed (`hash`), compared with the index and classified
//! (`write`), framed and appended to the log in groups (`log`), published under a cursor
//! (`publish`), and read back as pages (`feed`). The catalog saves where everything is, and
//! `recovery` opens a store after whatever happened to it.

mod background;
mod backup;
mod branch;
mod budget;
mod catalog;
mod checksum;
mod closing;
mod codec;
mod compaction;
mod compression;
mod consumers;
mod cursor;
mod defects;
mod documents;
mod encryption;
mod engine;
mod error;
mod events;
mod feed;
#[cfg(feature = "simulate")]
#[doc(hidden)]
pub mod fuzzing;
mod hash;
mod index;
mod intrinsics;
mod json;
mod log;
mod options;
mod pool;
mod positions;
mod primitives;
mod publish;
mod record;
mod recovery;
mod repair;
mod replace;
mod retention;
mod runs;
mod state;
mod stats;
pub mod storage;
mod store;
#[cfg(feature = "sync")]
pub mod sync;
mod verify;
mod windows;
mod write;

pub use backup::BackedUp;
pub use backup::restore::Restored;
pub use compaction::Compacted;
pub use compression::Compression;
pub use consumers::{Consumer, ConsumerInfo};
pub use cursor::Cursor;
#[cfg(feature = "simulate")]
#[doc(hidden)]
pub use defects::Defect;
pub use documents::{Checkpoint, Expected};
pub use encryption::KeyId;
#[cfg(feature = "encryption")]
pub use encryption::{Encryption, Key};
pub use error::{Error, RecordError, Result};
pub use events::{CommitEvent, Event, Subscription};
#[cfg(feature = "async")]
pub use feed::Changed;
pub use feed::page::{List, Order, Page};
pub use feed::{Feed, FeedKey, Records};
pub use options::{Durability, FeedOptions, Options};
pub use record::{
    Action, Actions, Applied, Outcome, OwnedRecord, ParseActionsError, Record, Timestamp, Totals,
};
pub use repair::report::{Lost, Repaired};
pub use replace::{Replaced, Replacement};
pub use retention::maintain::{Maintained, Retention};
pub use retention::{Oldest, Removed};
pub use runs::{Run, RunOptions, RunReport, RunStatus, SyncKey};
pub use stats::{FeedInfo, FeedStats, StoreStats};
pub use store::Store;
pub use verify::{Affected, VerifyOptions, VerifyReport};
pub use windows::{Sweep, Swept};
pub use write::batch::WriteBatch;

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// So are those of the page on encryption.
#[cfg(all(doctest, feature = "encryption"))]
#[doc = include_str!("../docs/encryption.md")]
struct EncryptionPage;
