//! What the store's state holds of syncs and runs.

use crate::codec::{Decoder, Encoder};
use crate::record::Timestamp;
use crate::runs::report::{Models, RunReport, RunStatus, SyncKey, encode_models, take_models};

/// What is known of a sync.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct SyncRow {
    /// The number of the newest run; 0 when there never was one.
    pub(crate) last_run: u64,
    /// Runs with smaller numbers may not write any more.
    pub(crate) fenced_below: u64,
    /// Model and variant of the feeds in which the sync has an open deletion window.
    pub(crate) windows: Vec<(String, String)>,
}

impl SyncRow {
    /// Reads a state value; a sync that is not known has had no runs.
    pub(crate) fn read(value: Option<&[u8]>) -> Self {
        value.and_then(Self::decode).unwrap_or_default()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let encoder = Encoder::default()
            .u64(self.last_run)
            .u64(self.fenced_below)
            .u32(self.windows.len() as u32);
        let windows = self.windows.iter();
        let encoder = windows.fold(encoder, |encoder, (model, variant)| {
            encoder.bytes(model.as_bytes()).bytes(variant.as_bytes())
        });
        encoder.finish()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Decoder::new(bytes);
        let (last_run, fenced_below) = (fields.u64()?, fields.u64()?);
        let mut windows = Vec::new();
        for _ in 0..fields.u32()? {
            windows.push((fields.string()?, fields.string()?));
        }
        fields.is_empty().then_some(Self {
            last_run,
            fenced_below,
            windows,
        })
    }
}

/// What is known of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RunRow {
    pub(crate) status: RunStatus,
    pub(crate) started: Timestamp,
    pub(crate) ended: Option<Timestamp>,
    pub(crate) error: Option<String>,
    pub(crate) checkpoint_from: Option<Vec<u8>>,
    pub(crate) checkpoint_to: Option<Vec<u8>>,
    /// Empty until the run ends: before that, its tally is a value of its own.
    pub(crate) models: Models,
}

impl RunRow {
    pub(crate) fn begun(started: Timestamp, checkpoint_from: Option<Vec<u8>>) -> Self {
        Self {
            status: RunStatus::Running,
            started,
            ended: None,
            error: None,
            checkpoint_from,
            checkpoint_to: None,
            models: Models::new(),
        }
    }

    pub(crate) fn is_running(value: &[u8]) -> bool {
        value.first() == Some(&0)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let status = match self.status {
            RunStatus::Running => 0,
            RunStatus::Succeeded => 1,
            RunStatus::Failed => 2,
            RunStatus::Interrupted => 3,
        };
        let ended = self.ended.map_or(0, Timestamp::as_micros);
        let encoder = Encoder::default()
            .u8(status)
            .u64(self.started.as_micros())
            .u64(ended);
        let error = self.error.as_deref().map(str::as_bytes);
        let texts = [
            error,
            self.checkpoint_from.as_deref(),
            self.checkpoint_to.as_deref(),
        ];
        let encoder = texts.into_iter().fold(encoder, |encoder, text| match text {
            Some(text) => encoder.u8(1).bytes(text),
            None => encoder.u8(0),
        });
        encode_models(encoder, &self.models).finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Decoder::new(bytes);
        let status = match fields.u8()? {
            0 => RunStatus::Running,
            1 => RunStatus::Succeeded,
            2 => RunStatus::Failed,
            3 => RunStatus::Interrupted,
            _ => return None,
        };
        let started = Timestamp::from_micros(fields.u64()?);
        let ended = fields.u64()?;
        let mut text = || -> Option<Option<Vec<u8>>> {
            match fields.u8()? {
                0 => Some(None),
                1 => Some(Some(fields.bytes()?.to_vec())),
                _ => None,
            }
        };
        let (error, checkpoint_from, checkpoint_to) = (text()?, text()?, text()?);
        let models = take_models(&mut fields)?;
        fields.is_empty().then_some(Self {
            status,
            started,
            ended: (status != RunStatus::Running).then_some(Timestamp::from_micros(ended)),
            error: error.map(String::from_utf8).transpose().ok()?,
            checkpoint_from,
            checkpoint_to,
            models,
        })
    }

    pub(crate) fn report(self, sync: SyncKey, run: u64) -> RunReport {
        // Checkpoints are JSON, so they are text.
        let text = |json: Vec<u8>| String::from_utf8(json).unwrap_or_default();
        RunReport {
            sync,
            run,
            status: self.status,
            models: self.models,
            checkpoint_from: self.checkpoint_from.map(text),
            checkpoint_to: self.checkpoint_to.map(text),
            started: self.started,
            ended: self.ended,
            error: self.error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Totals;

    #[test]
    fn rows_round_trip() {
        let sync = SyncRow {
            last_run: 7,
            fenced_below: 3,
            windows: vec![("Contact".to_owned(), "base".to_owned())],
        };
        assert_eq!(SyncRow::read(Some(&sync.encode())), sync);
        let mut run = RunRow::begun(Timestamp::from_micros(5), Some(b"{}".to_vec()));
        assert_eq!(RunRow::decode(&run.encode()), Some(run.clone()));
        assert!(RunRow::is_running(&run.encode()));
        run.status = RunStatus::Failed;
        run.ended = Some(Timestamp::from_micros(9));
        run.error = Some("no".to_owned());
        let totals = Totals {
            skipped: 4,
            ..Totals::default()
        };
        run.models.insert("Contact".to_owned(), totals);
        let bytes = run.encode();
        assert_eq!(RunRow::decode(&bytes), Some(run));
        for len in 0..bytes.len() {
            assert_eq!(RunRow::decode(&bytes[..len]), None);
        }
    }
}
