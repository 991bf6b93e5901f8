//! Calling a function, and ending its run as it went.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::context::{LogLevel, SyncContext};
use super::function::{SyncError, SyncFunction};
use crate::documents::Expected;
use crate::error::Result;
use crate::runs::RunReport;

/// How a function went.
enum Ending {
    Succeeded,
    Failed(String),
    Interrupted(String),
}

/// Runs a function in a context, and ends the run. `discards` says that whatever does not succeed
/// is thrown away.
pub(super) fn execute(
    function: &dyn SyncFunction,
    mut context: SyncContext,
    discards: bool,
) -> Result<RunReport> {
    let ending = call(function, &mut context);
    if let Ending::Failed(error) = &ending {
        context.log(LogLevel::Error, error);
    }
    let run = context.into_run();
    if discards && !matches!(ending, Ending::Succeeded) {
        // It tells how far the records go that are thrown away. Who took over has set another one.
        if !run.is_fenced() {
            run.clear_checkpoint(Expected::Any)?;
        }
    }
    match ending {
        Ending::Succeeded => run.succeed(),
        Ending::Failed(error) => run.fail(&error),
        Ending::Interrupted(reason) => run.interrupt(&reason),
    }
}

fn call(function: &dyn SyncFunction, context: &mut SyncContext) -> Ending {
    // What the panic may leave half done is the function's own: the store keeps its own order, and
    // the context is only asked for its run.
    let result = catch_unwind(AssertUnwindSafe(|| {
        context.open_feeds(&function.models())?;
        function.exec(context)
    }));
    match result {
        Ok(Ok(())) => Ending::Succeeded,
        Ok(Err(SyncError::Stopped)) => match context.stop_reason() {
            Some(reason) => Ending::Interrupted(reason.to_string()),
            // Nobody has asked: it would be started over at once, again and again.
            None => Ending::Failed("the function stopped without being asked to".to_owned()),
        },
        Ok(Err(error)) => Ending::Failed(error.to_string()),
        Err(panic) => Ending::Failed(format!("the function panicked: {}", text(&*panic))),
    }
}

/// What a panic says.
fn text(panic: &(dyn Any + Send)) -> &str {
    let literal = panic.downcast_ref::<&str>().copied();
    let formatted = || panic.downcast_ref::<String>().map(String::as_str);
    literal.or_else(formatted).unwrap_or("without a text")
}
