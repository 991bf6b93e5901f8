//! What can go wrong, as one enum: what happened, where, and what the caller can do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::encryption::KeyId;
use crate::feed::FeedKey;
use crate::json::JsonError;
use crate::storage::is_out_of_descriptors;

/// The result of every fallible operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed. Unless a variant says otherwise, nothing was changed and the store
/// stays usable.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A record of a batch is invalid; the whole batch was refused.
    InvalidRecord {
        /// Position of the record in its batch, from 0.
        index: usize,
        /// What is wrong with it.
        reason: RecordError,
    },
    /// A connection, model, variant or sync name is empty, too long, or has a NUL byte.
    InvalidName {
        /// Which name.
        what: &'static str,
        /// The name as given.
        name: String,
    },
    /// A checkpoint or connection metadata is not a JSON object, or is too large.
    InvalidDocument {
        /// Which document.
        what: &'static str,
        /// What is wrong with it.
        reason: RecordError,
    },
    /// An option or argument is outside its range.
    InvalidArgument {
        /// Which argument.
        what: &'static str,
        /// The value as given.
        given: u64,
        /// The smallest allowed value.
        min: u64,
        /// The largest allowed value.
        max: u64,
    },
    /// The text is not a cursor: it is damaged, or something else.
    InvalidCursor,
    /// The cursor belongs to another feed, or to another store.
    ForeignCursor,
    /// The cursor was given out before the feed was replaced or hard-deleted; its history is gone.
    /// Start again without a cursor.
    StaleCursor {
        /// The epoch the cursor was given out in.
        given: u32,
        /// The epoch the feed is in.
        current: u32,
    },
    /// The cursor stands before deletions that were purged since its reader began, so the reader
    /// would miss them. Start again without a cursor.
    CursorExpired,
    /// There is no open deletion window to close.
    NoWindow {
        /// The feed.
        feed: FeedKey,
    },
    /// Closing the deletion window would delete more than allowed. The window stays open; look
    /// whether the provider really lost so much, and force it, or go on fetching.
    SweepRefused {
        /// How many records would be deleted.
        would_delete: u64,
        /// How many live records the feed has.
        live: u64,
    },
    /// The run may not write any more: a reset, or whoever declared it dead, told it to stop.
    RunFenced {
        /// Its number.
        run: u64,
    },
    /// The run has ended; begin another one.
    RunEnded {
        /// Its number.
        run: u64,
    },
    /// Somebody is replacing the feed already.
    ReplaceInProgress {
        /// The feed.
        feed: FeedKey,
    },
    /// What was staged to replace the feed is gone: the feed was hard-deleted meanwhile, or the
    /// replacement is over.
    ReplaceLost {
        /// The feed.
        feed: FeedKey,
    },
    /// The named consumer was removed.
    UnknownConsumer {
        /// Its name.
        name: String,
    },
    /// The checkpoint has another version than the caller expected. Read it again and decide.
    CheckpointConflict {
        /// The version that is stored; `None` when there is no checkpoint.
        found: Option<u64>,
    },
    /// A batch named feeds of different connections, or of another store.
    MixedBatch,
    /// Another process, or another handle in this one, has the store open.
    Locked {
        /// The store's directory.
        path: PathBuf,
        /// The process that holds the lock, when it could be told.
        pid: Option<u32>,
    },
    /// The disk is full. The batch was not written; reads go on, and writes work again as soon as
    /// there is space.
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// The system refused a file operation.
    Io {
        /// What was attempted.
        op: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A file holds something it was not given: a checksum or a cross-reference does not hold.
    /// Other data stays readable.
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where in it, in bytes from the start.
        offset: u64,
        /// What did not hold.
        what: &'static str,
    },
    /// The store was written by a newer version of this crate; it was left untouched.
    UnknownFormat {
        /// The file that says so.
        path: PathBuf,
        /// The format version found.
        found: u32,
        /// The newest version this build reads.
        supported: u32,
    },
    /// The directory holds a backup, a restored or a repaired store that was not finished. Do it
    /// again.
    Unfinished {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds something else than what is to be written there.
    Occupied {
        /// The directory.
        path: PathBuf,
    },
    /// There is no backup in the directory.
    NotABackup {
        /// The directory.
        path: PathBuf,
    },
    /// Something was stored by a build with a feature that this build is without. Everything else can
    /// be read and written.
    MissingFeature {
        /// The cargo feature that reads it.
        feature: &'static str,
        /// The file that it is in.
        path: PathBuf,
    },
    /// The store is encrypted, and was opened without a key; it was left untouched.
    KeyRequired {
        /// A file that says so.
        path: PathBuf,
        /// The key that it needs.
        key: KeyId,
    },
    /// None of the given keys is the one that a file of the store is encrypted under; the store was
    /// left untouched.
    WrongKey {
        /// The file.
        path: PathBuf,
        /// The key that it needs.
        key: KeyId,
    },
    /// The store is not encrypted, but was opened with a key; it was left untouched. To encrypt what
    /// it has, copy the records into a new store.
    NotEncrypted {
        /// A file that says so.
        path: PathBuf,
    },
    /// An earlier write or sync failed, so what is on disk is not known any more. What was
    /// published stays readable; reopen the store to write again.
    Poisoned {
        /// The failure that caused it.
        cause: Arc<Error>,
    },
    /// The catalog could not be read or written. It is derived data: the log has everything, and
    /// the next checkpoint, or a rebuild, writes it again.
    Catalog {
        /// The catalog file.
        path: PathBuf,
        /// What the catalog's engine answered.
        source: Box<redb::Error>,
    },
    /// The store was closed.
    Closed,
    /// Typed data could not be turned into JSON.
    Serialize {
        /// Position of the record in its batch, from 0.
        index: usize,
        /// What the serializer answered.
        source: serde_json::Error,
    },
}

/// What is wrong with a record, or with another JSON document.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordError {
    /// The record has no id field.
    MissingId,
    /// The id is neither a string nor a number.
    IdNotScalar,
    /// The id is empty, or longer than 255 bytes.
    IdLength {
        /// Its length in bytes.
        given: usize,
    },
    /// The id has a NUL byte.
    IdHasNul,
    /// The payload is larger than the store allows.
    TooLarge {
        /// Its size in bytes.
        given: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The text is not JSON.
    Syntax {
        /// What the parser answered.
        message: String,
    },
    /// The text is JSON, but not an object.
    NotAnObject,
    /// A partial update of a record whose payload is opaque bytes.
    NotJson,
}

impl Error {
    pub(crate) fn io(op: &'static str, path: &Path, source: io::Error) -> Self {
        if matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) {
            return Self::DiskFull {
                path: path.to_owned(),
            };
        }
        Self::Io {
            op,
            path: path.to_owned(),
            source,
        }
    }

    /// A failure that leaves it open what is on the disk, whatever reason the system gives: it is
    /// never taken for a [lack](Error::as_lack).
    pub(crate) fn failure(op: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            op,
            path: path.to_owned(),
            source: io::Error::new(source.kind(), source),
        }
    }

    /// The same error once more, if it says that there was no space, or no descriptor for another
    /// file: a lack that may pass.
    pub(crate) fn as_lack(&self) -> Option<Self> {
        match self {
            Self::DiskFull { path } => Some(Self::DiskFull { path: path.clone() }),
            Self::Io { op, path, source } if is_out_of_descriptors(source) => Some(Self::Io {
                op,
                path: path.clone(),
                source: io::Error::from_raw_os_error(source.raw_os_error()?),
            }),
            _ => None,
        }
    }

    pub(crate) fn corrupt(path: &Path, offset: u64, what: &'static str) -> Self {
        Self::Corrupt {
            path: path.to_owned(),
            offset,
            what,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidRecord { index, reason } => {
                write!(f, "record {index} of the batch is invalid: {reason}")
            }
            Self::InvalidName { what, name } => write!(
                f,
                "{what} {name:?} is invalid: names are 1 to 255 bytes of text without NUL"
            ),
            Self::InvalidDocument { what, reason } => write!(f, "{what} is invalid: {reason}"),
            Self::InvalidArgument {
                what,
                given,
                min,
                max,
            } => {
                write!(f, "{what} is {given}, which is outside {min}..={max}")
            }
            Self::InvalidCursor => f.write_str("the text is not a cursor, or it is damaged"),
            Self::ForeignCursor => f.write_str("the cursor belongs to another feed or store"),
            Self::StaleCursor { given, current } => write!(
                f,
                "the cursor is from epoch {given} of the feed, which is now in epoch {current}: \
                 start again without a cursor"
            ),
            Self::CursorExpired => f.write_str(
                "deletions after the cursor were purged since its reader began: start again \
                 without a cursor",
            ),
            Self::NoWindow { feed } => write!(f, "{feed} has no open deletion window"),
            Self::SweepRefused { would_delete, live } => write!(
                f,
                "closing the deletion window would delete {would_delete} of {live} records, which \
                 is more than allowed; nothing was deleted"
            ),
            Self::RunFenced { run } => write!(f, "run {run} was told to stop"),
            Self::RunEnded { run } => write!(f, "run {run} has ended"),
            Self::ReplaceInProgress { feed } => write!(f, "{feed} is being replaced already"),
            Self::ReplaceLost { feed } => {
                write!(f, "what was staged to replace {feed} is gone")
            }
            Self::UnknownConsumer { name } => write!(f, "there is no consumer {name:?}"),
            Self::CheckpointConflict {
                found: Some(version),
            } => {
                write!(
                    f,
                    "the checkpoint was changed by somebody else: it has version {version}"
                )
            }
            Self::CheckpointConflict { found: None } => {
                f.write_str("the checkpoint was expected to exist, but there is none")
            }
            Self::MixedBatch => {
                f.write_str("a batch holds feeds of one connection of one store only")
            }
            Self::Locked {
                path,
                pid: Some(pid),
            } => {
                write!(f, "{} is open in process {pid}", path.display())
            }
            Self::Locked { path, pid: None } => {
                write!(f, "{} is open elsewhere", path.display())
            }
            Self::DiskFull { path } => {
                write!(
                    f,
                    "no space left to write {}; nothing was changed",
                    path.display()
                )
            }
            Self::Io { op, path, source } => {
                write!(f, "could not {op} {}: {source}", path.display())
            }
            Self::Corrupt { path, offset, what } => {
                write!(f, "{} is damaged at byte {offset}: {what}", path.display())
            }
            Self::UnknownFormat {
                path,
                found,
                supported,
            } => write!(
                f,
                "{} has format version {found}; this build reads up to {supported}",
                path.display()
            ),
            Self::Unfinished { path } => write!(
                f,
                "what is in {} was not finished: back up, restore or repair again",
                path.display()
            ),
            Self::Occupied { path } => {
                write!(f, "{} holds something else already", path.display())
            }
            Self::NotABackup { path } => write!(f, "there is no backup in {}", path.display()),
            Self::MissingFeature { feature, path } => write!(
                f,
                "{} holds what only a build with the feature `{feature}` reads",
                path.display()
            ),
            Self::KeyRequired { path, key } => {
                write!(f, "{} is encrypted: it needs the key {key}", path.display())
            }
            Self::WrongKey { path, key } => write!(
                f,
                "{} is encrypted under the key {key}, which was not given",
                path.display()
            ),
            Self::NotEncrypted { path } => {
                write!(
                    f,
                    "{} is not encrypted, but a key was given",
                    path.display()
                )
            }
            Self::Poisoned { cause } => {
                write!(
                    f,
                    "writes are refused until the store is reopened, because: {cause}"
                )
            }
            Self::Catalog { path, source } => write!(f, "catalog {}: {source}", path.display()),
            Self::Closed => f.write_str("the store was closed"),
            Self::Serialize { index, source } => {
                write!(
                    f,
                    "record {index} of the batch cannot be written as JSON: {source}"
                )
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // The text names the immediate cause, so the chain goes on behind it.
            Self::Io { source, .. } => source.source(),
            Self::Poisoned { cause } => cause.source(),
            Self::Catalog { source, .. } => source.source(),
            Self::Serialize { source, .. } => source.source(),
            _ => None,
        }
    }
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingId => f.write_str("it has no id"),
            Self::IdNotScalar => f.write_str("its id is neither a string nor a number"),
            Self::IdLength { given } => {
                write!(f, "its id has {given} bytes; ids have 1 to 255")
            }
            Self::IdHasNul => f.write_str("its id has a NUL byte"),
            Self::TooLarge { given, max } => {
                write!(f, "it has {given} bytes; the limit is {max}")
            }
            Self::Syntax { message } => write!(f, "it is not JSON: {message}"),
            Self::NotAnObject => f.write_str("it is not a JSON object"),
            Self::NotJson => {
                f.write_str("the stored payload is not JSON, so nothing can be merged")
            }
        }
    }
}

impl From<JsonError> for RecordError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Syntax { message } => Self::Syntax { message },
            JsonError::NotAnObject => Self::NotAnObject,
            JsonError::MissingId => Self::MissingId,
            JsonError::InvalidId => Self::IdNotScalar,
        }
    }
}
