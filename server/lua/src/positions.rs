//! Where in the source a mistake is.

use std::sync::Arc;

use patchbay_plugin::term::Mistake;

use crate::error::{Report, Stage};
use crate::load::Unplaced;
use crate::source::Source;

/// Gives each report its place.
pub(crate) async fn place_all(mistakes: Vec<Unplaced>, _: &Arc<Source>) -> Vec<Report> {
    mistakes.into_iter().map(|mistake| mistake.report).collect()
}

/// Gives each mistake in a hook's answer its place in the hook's code.
pub(crate) async fn place_answer(
    hook: &'static str,
    mistakes: Vec<Mistake>,
    source: &Arc<Source>,
) -> Vec<Report> {
    mistakes
        .iter()
        .map(|mistake| {
            Report::of(Stage::Hook, mistake)
                .in_file(source.shown(&source.entry))
                .in_hook(Some(hook))
        })
        .collect()
}
