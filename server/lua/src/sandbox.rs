//! The sandbox: the Lua threads, and loading plugins onto them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::error::{LoadError, Report, Stage};
use crate::limits::Limits;
use crate::load::{self, Failed};
use crate::plugin::Plugin;
use crate::positions::{find_incompatibility, place_all};
use crate::queue::{Refused, Reply, Request, Shared, lock};
use crate::source::{SettingsLookup, Source};
use crate::thread::{LuaThread, Pulse};
use crate::vm::{Facts, Habits};
use crate::watchdog::{self, Alarm, Seen};

/// Runs plugins. A cheap handle: clones share the threads, which end when the last clone and the last [`Plugin`] are
/// dropped.
#[derive(Clone)]
pub struct Sandbox {
    pub(crate) threads: Arc<Threads>,
}

/// The Lua threads of one sandbox.
pub(crate) struct Threads {
    pub(crate) limits: Limits,
    pub(crate) alarm: Arc<Alarm>,
    running: Mutex<Vec<Arc<LuaThread>>>,
    next: AtomicUsize,
    left: LeftBehind,
    hook_calls: AtomicU64,
}

/// How many threads that do not stop are left behind before the files that hold them are not loaded any more.
const MAX_LEFT: usize = 8;

/// The threads that were replaced because they did not stop, and which file holds each.
#[derive(Default)]
struct LeftBehind(Mutex<Vec<(String, Arc<Pulse>)>>);

impl LeftBehind {
    fn add(&self, file: &str, pulse: &Arc<Pulse>) {
        lock(&self.0).push((file.to_owned(), pulse.clone()));
    }

    /// Why this file may hold no further thread, when there are too many already and some of them are its own.
    fn refusal(&self, file: &str) -> Option<Report> {
        let mut left = lock(&self.0);
        left.retain(|(_, pulse)| !pulse.has_ended());
        let own = left.iter().filter(|(other, _)| other == file).count();
        (own > 0 && left.len() >= MAX_LEFT).then(|| {
            Report::new(
                Stage::Load,
                format!(
                    "expected at most {MAX_LEFT} Lua threads that do not stop, found {}, {own} of them held by earlier versions \
                     of this file; it is not loaded again until some have stopped, or the server is started again",
                    left.len()
                ),
            )
            .in_file(file)
        })
    }
}

impl Sandbox {
    /// Starts the Lua threads and their watchdog.
    pub fn new(limits: Limits) -> Sandbox {
        let alarm = Arc::new(Alarm::default());
        let running = (0..limits.threads.max(1))
            .filter_map(|_| match LuaThread::start(alarm.clone()) {
                Ok(thread) => Some(Arc::new(thread)),
                Err(error) => {
                    tracing::error!(%error, "a Lua thread could not be started");
                    None
                }
            })
            .collect();
        let threads = Arc::new(Threads {
            limits,
            alarm,
            running: Mutex::new(running),
            next: AtomicUsize::new(0),
            left: LeftBehind::default(),
            hook_calls: AtomicU64::new(0),
        });
        if let Err(error) = watchdog::start(&threads) {
            tracing::error!(%error, "the watchdog of the Lua threads could not be started");
        }
        Sandbox { threads }
    }

    /// How often hooks were called since it began. Stored rows that are judged count once each.
    pub fn hook_calls(&self) -> u64 {
        self.threads.hook_calls.load(Ordering::Relaxed)
    }

    /// Loads a plugin: runs its files, checks its definition, its written migrations and the operator's settings.
    ///
    /// # Errors
    /// Every mistake that was found, each with its place.
    pub async fn load(
        &self,
        source: Source,
        settings: SettingsLookup,
    ) -> Result<Plugin, LoadError> {
        let source = Arc::new(source);
        load::check_source(&source).map_err(|report| LoadError {
            version: None,
            reports: vec![report],
        })?;
        if let Some(report) = self.threads.left.refusal(&source.shown(&source.entry)) {
            return Err(LoadError {
                version: None,
                reports: vec![report],
            });
        }
        let shared = Shared::new(source.clone(), self.threads.limits.clone());
        // Dropped on the way out when the load fails, and with it everything on the Lua thread.
        let plugin = Plugin::new(shared.clone(), self.threads.clone());
        if !self.threads.host(&shared) {
            return Err(LoadError {
                version: None,
                reports: vec![Report::new(
                    Stage::Load,
                    "there is no Lua thread to run it on",
                )],
            });
        }
        let loaded = match shared.ask(Request::Load).await {
            Reply::Loaded(Ok(loaded)) => loaded,
            Reply::Loaded(Err(failed)) => return Err(place(failed, &source).await),
            Reply::Refused(Refused::Error(error)) => {
                let mut reports = error.reports().to_vec();
                if reports.is_empty() {
                    reports.push(Report::new(Stage::Load, error.to_string()));
                }
                for report in &mut reports {
                    report.stage = Stage::Load;
                }
                source.add_lines(&mut reports);
                return Err(LoadError {
                    version: None,
                    reports,
                });
            }
            _ => unreachable!("a load is answered as a load"),
        };
        let definition = loaded.definition;
        let settings = match settings(&definition.name, &definition.settings) {
            Ok(settings) => settings,
            Err(messages) => {
                let reports = messages
                    .into_iter()
                    .map(|message| {
                        Report::new(Stage::Settings, message).in_file(source.shown(&source.entry))
                    })
                    .collect();
                return Err(LoadError {
                    version: Some(definition.version.clone()),
                    reports,
                });
            }
        };
        plugin.loaded(
            Facts {
                definition,
                settings,
                files: Habits::new(loaded.quick),
                arity: loaded.arity,
            },
            loaded.libs,
        );
        Ok(plugin)
    }
}

async fn place(failed: Failed, source: &Arc<Source>) -> LoadError {
    let compiled = failed
        .mistakes
        .iter()
        .all(|mistake| mistake.report.stage != Stage::Parse);
    let misfit = find_incompatibility(source, compiled).await.or_else(|| {
        let report = Report::incompatible(failed.misfit.as_ref()?);
        Some(report.in_file(source.shown(&source.entry)))
    });
    let mut reports = match misfit {
        Some(report) => vec![report],
        None => place_all(failed.mistakes, source).await,
    };
    source.add_lines(&mut reports);
    LoadError {
        version: failed.version,
        reports,
    }
}

impl Threads {
    pub(crate) fn count_hook_calls(&self, calls: usize) {
        self.hook_calls.fetch_add(calls as u64, Ordering::Relaxed);
    }

    /// Gives a plugin a thread to live on; false when there is none.
    pub(crate) fn host(&self, shared: &Arc<Shared>) -> bool {
        let thread = {
            let running = lock(&self.running);
            if running.is_empty() {
                return false;
            }
            let place = self.next.fetch_add(1, Ordering::Relaxed) % running.len();
            running[place].clone()
        };
        thread.host(shared, shared.new_owner());
        true
    }

    /// Looks at every thread and replaces those that are stuck. Gives whether anything ran since the last look.
    pub(crate) fn look(&self, seen: &mut Vec<Seen>) -> bool {
        let threads = lock(&self.running).clone();
        seen.resize(threads.len(), Seen::default());
        let mut busy = false;
        for (place, thread) in threads.iter().enumerate() {
            let (ran, stuck) = seen[place].look(thread.pulse.beats());
            busy |= ran;
            if stuck && self.replace(place, thread) {
                seen[place] = Seen::default();
            }
        }
        busy
    }

    fn replace(&self, place: usize, stuck: &Arc<LuaThread>) -> bool {
        let Some((culprit, call)) = stuck.pulse.who() else {
            return false;
        };
        let fresh = match LuaThread::start(self.alarm.clone()) {
            Ok(thread) => Arc::new(thread),
            Err(error) => {
                tracing::error!(%error, "a Lua thread is stuck and no other can be started in its place");
                return false;
            }
        };
        lock(&self.running)[place] = fresh.clone();
        let source = &culprit.source;
        let hook = call.request.hook();
        let report = Report::new(
            Stage::Hook,
            "it did not stop when it was told to; its thread was replaced, and the plugin answers nothing until it has stopped",
        )
        .in_file(source.shown(&source.entry))
        .in_hook(hook);
        tracing::error!(
            source = source.shown(&source.entry),
            hook,
            "a plugin holds its Lua thread up; the thread is replaced"
        );
        stuck.stop();
        self.left.add(&source.shown(&source.entry), &stuck.pulse);
        stuck.pulse.blame(culprit.clone());
        for plugin in stuck.take_plugins() {
            let blamed = Arc::ptr_eq(&plugin, &culprit).then_some((&call, &report));
            let owner = plugin.leave(blamed);
            fresh.host(&plugin, owner);
        }
        true
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.alarm.close();
        for thread in lock(&self.running).iter() {
            for plugin in thread.take_plugins() {
                plugin.close();
            }
            thread.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_only_so_many_threads() {
        let left = LeftBehind::default();
        let pulses: Vec<Arc<Pulse>> = (0..MAX_LEFT)
            .map(|_| Arc::new(Pulse::new(Arc::new(Alarm::default()))))
            .collect();
        for (place, pulse) in pulses.iter().enumerate() {
            assert!(left.refusal("a.lua").is_none(), "{place}");
            left.add("a.lua", pulse);
        }
        let told = left.refusal("a.lua").expect("a refusal").to_string();
        assert!(told.contains("found 8, 8 of them"), "{told}");
        assert!(left.refusal("b.lua").is_none(), "others are loaded");
        pulses[0].ended();
        assert!(left.refusal("a.lua").is_none(), "one has stopped");
    }
}
