//! Scripted histories, one for each kind of operation, that crashes and errors are put into at every
//! place.
//!
//! * [`view`]: everything that a store shows
//! * [`steps`]: what scripts consist of
//! * [`play`]: playing one on a simulated disk
//! * [`writing`], [`syncing`], [`letting_go`], [`compacting`], [`indexing`]: the scripts

mod compacting;
mod indexing;
mod letting_go;
pub mod play;
pub mod steps;
mod syncing;
pub mod view;
mod writing;

use highwater::Options;

use crate::scripts::steps::Step;

/// A history.
pub struct Script {
    pub name: &'static str,
    pub steps: fn() -> Vec<Step>,
    /// What the script is about may need options of its own. They change nothing that is shown.
    pub options: fn(Options) -> Options,
}

impl Script {
    const fn new(name: &'static str, steps: fn() -> Vec<Step>) -> Self {
        Self {
            name,
            steps,
            options: |options| options,
        }
    }

    const fn with(self, options: fn(Options) -> Options) -> Self {
        Self { options, ..self }
    }

    /// How many times it compacts.
    pub fn compactions(&self) -> usize {
        let compacts = |step: &&Step| matches!(step, Step::Compact | Step::CompactDuring(_));
        (self.steps)().iter().filter(compacts).count()
    }
}

pub static OPENING: Script = Script::new("opening", writing::opening);
pub static WRITING: Script = Script::new("writing", writing::writing);
pub static ROLLING: Script = Script::new("rolling", writing::rolling);
pub static CATALOGUING: Script = Script::new("cataloguing", writing::cataloguing);
pub static REOPENING: Script = Script::new("reopening", writing::reopening);
pub static SYNCING: Script = Script::new("syncing", syncing::syncing);
pub static CONSUMING: Script = Script::new("consuming", syncing::consuming);
pub static LETTING_GO: Script = Script::new("letting go", letting_go::letting_go);
pub static PURGING: Script = Script::new("purging", letting_go::purging);
pub static REPLACING: Script = Script::new("replacing", letting_go::replacing);
pub static COMPACTING: Script = Script::new("compacting", compacting::compacting);
pub static COMPACTING_ALL: Script =
    Script::new("compacting all", compacting::compacting).with(eager);
pub static COMPACTING_PACKS: Script =
    Script::new("compacting packs", compacting::packs).with(eager);
pub static COMPACTING_WHILE_WRITING: Script =
    Script::new("compacting while writing", compacting::while_writing).with(eager);
pub static RECYCLING: Script = Script::new("recycling", compacting::recycling).with(eager);
pub static INDEXING: Script = Script::new("indexing", indexing::indexing).with(small_runs);
#[cfg(feature = "zstd")]
pub static WRITING_COMPRESSED: Script =
    Script::new("writing, compressed", writing::writing).with(crate::histories::compressing);
#[cfg(feature = "zstd")]
pub static LETTING_GO_COMPRESSED: Script =
    Script::new("letting go, compressed", letting_go::letting_go)
        .with(crate::histories::compressing);
#[cfg(feature = "zstd")]
pub static COMPACTING_COMPRESSED: Script =
    Script::new("compacting, compressed", compacting::compacting)
        .with(|options| crate::histories::compressing(eager(options)));

#[cfg(feature = "encryption")]
pub static WRITING_ENCRYPTED: Script =
    Script::new("writing, encrypted", writing::writing).with(crate::histories::encrypting);
#[cfg(feature = "encryption")]
pub static COMPACTING_ENCRYPTED: Script =
    Script::new("compacting, encrypted", compacting::compacting)
        .with(|options| crate::histories::encrypting(eager(options)));

fn eager(options: Options) -> Options {
    options.eager_compaction(true)
}

/// Indexes of more than a few records go into files.
fn small_runs(options: Options) -> Options {
    options.index_limits_of(600, 300)
}

/// Makes a test of a function for each script and durability, and says how many those are.
macro_rules! each_script {
    ($enumerate:ident) => {
        each_script! {
            @tests $enumerate
            OPENING: opening, opening_relaxed;
            WRITING: writing, writing_relaxed;
            ROLLING: rolling, rolling_relaxed;
            CATALOGUING: cataloguing, cataloguing_relaxed;
            REOPENING: reopening, reopening_relaxed;
            SYNCING: syncing, syncing_relaxed;
            CONSUMING: consuming, consuming_relaxed;
            LETTING_GO: letting_go, letting_go_relaxed;
            PURGING: purging, purging_relaxed;
            REPLACING: replacing, replacing_relaxed;
            COMPACTING: compacting, compacting_relaxed;
            COMPACTING_ALL: compacting_all, compacting_all_relaxed;
            COMPACTING_PACKS: compacting_packs, compacting_packs_relaxed;
            COMPACTING_WHILE_WRITING: compacting_while_writing, compacting_while_writing_relaxed;
            RECYCLING: recycling, recycling_relaxed;
            INDEXING: indexing, indexing_relaxed;
            #[cfg(feature = "zstd")]
            WRITING_COMPRESSED: writing_compressed, writing_compressed_relaxed;
            #[cfg(feature = "zstd")]
            LETTING_GO_COMPRESSED: letting_go_compressed, letting_go_compressed_relaxed;
            #[cfg(feature = "zstd")]
            COMPACTING_COMPRESSED: compacting_compressed, compacting_compressed_relaxed;
            #[cfg(feature = "encryption")]
            WRITING_ENCRYPTED: writing_encrypted, writing_encrypted_relaxed;
            #[cfg(feature = "encryption")]
            COMPACTING_ENCRYPTED: compacting_encrypted, compacting_encrypted_relaxed;
        }
    };
    (@tests $enumerate:ident $($(#[$only:meta])* $script:ident: $durable:ident, $relaxed:ident;)*) => {
        const SCRIPTS: usize = 2 * [$($(#[$only])* stringify!($script)),*].len();

        $(
            $(#[$only])*
            #[test]
            fn $durable() {
                $enumerate(&crate::scripts::$script, Mode::Durable);
            }

            $(#[$only])*
            #[test]
            fn $relaxed() {
                $enumerate(&crate::scripts::$script, Mode::Relaxed);
            }
        )*
    };
}
pub(crate) use each_script;
