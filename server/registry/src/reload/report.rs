//! The log of a reload.

use patchbay_plugin::change::summary;
use patchbay_plugin::platform::PluginState;

use crate::generation::{Finding, Generation};

/// Says what changed; the last line counts.
pub(crate) fn log_generation(before: &Generation, now: &Generation) {
    let known = |finding: &Finding| {
        before
            .findings
            .iter()
            .any(|old| old.agrees_with(finding) && old.since == finding.since)
    };
    for finding in now.findings.iter().filter(|finding| !known(finding)) {
        let source = finding.place.label();
        let name = finding
            .definition
            .as_ref()
            .map_or("a plugin", |definition| definition.name.as_str());
        match (&finding.failure, &finding.serving) {
            (Some(failure), serving) => {
                let rest = match serving {
                    Some(active) if active.read_only.is_some() => {
                        "what is stored is shown, and nothing is written".to_owned()
                    }
                    Some(active) => {
                        format!("version {} keeps serving", active.definition().version)
                    }
                    None => "it does not serve".to_owned(),
                };
                for mistake in &failure.error.mistakes {
                    tracing::error!("Plugin registry: {name}: {mistake}");
                }
                tracing::error!(
                    "Plugin registry: {name} from {source} failed at {}; {rest}",
                    failure.error.stage
                );
            }
            (None, Some(active)) if let Some(trouble) = finding.trouble() => {
                let version = &active.definition().version;
                for mistake in &trouble.mistakes {
                    tracing::error!("Plugin registry: {name}: {mistake}");
                }
                tracing::error!(
                    "Plugin registry: {name} {version} from {source} serves without its form, which failed at {}",
                    trouble.stage
                );
            }
            (None, Some(active)) => {
                let version = &active.definition().version;
                let changes = summary(&active.changes)
                    .map(|changes| format!("; {changes}"))
                    .unwrap_or_default();
                tracing::info!(
                    "Plugin registry: {name} {version} from {source} is active{changes}"
                );
            }
            (None, None) => tracing::debug!("Plugin registry: {name} from {source} is not enabled"),
        }
        for warning in &finding.warnings {
            tracing::warn!("Plugin registry: {name} from {source}: {warning}");
        }
    }
    for finding in &before.findings {
        let place = |finding: &Finding| (finding.place.root, finding.place.identity());
        if !now.findings.iter().any(|new| place(new) == place(finding)) {
            tracing::info!("Plugin registry: {} is gone", finding.place.label());
        }
    }
    for problem in now
        .problems
        .iter()
        .filter(|problem| !before.problems.contains(problem))
    {
        tracing::error!("Plugin registry: {problem}");
    }
    tracing::info!(
        "Plugin registry: generation {}, {} plugins registered, {} failed, {} not enabled",
        now.number,
        now.entries.len(),
        now.findings
            .iter()
            .filter(|finding| finding.trouble().is_some())
            .count(),
        now.findings
            .iter()
            .filter(|finding| finding.formless_state == PluginState::Disabled)
            .count(),
    );
}
