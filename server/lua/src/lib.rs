//! The sandbox: Luau source in, definition and callable hooks out.
//!
//! It knows no HTTP, no database, no file and no clock that a plugin could see. Sources come in memory, the catalogue and
//! the plugin's rows come through [`CatalogueReader`], and what comes out is plain data of `patchbay-plugin`.
//!
//! | module | holds |
//! |---|---|
//! | `limits` | what a plugin may use |
//! | `source` | the texts that a plugin is loaded from |
//! | `sandbox`, `plugin` | the two handles: load a plugin, call its hooks |
//! | `call`, `error` | what goes in and comes out of a hook; what is wrong, as reports for an author |
//! | `queue` | the calls of one plugin, those that wait and those that run, kept outside the Lua threads |
//! | `thread`, `watchdog` | the Lua threads, and what replaces one that is stuck |
//! | `owner` | the one task that owns a VM and polls all calls in it |
//! | `rows` | many stored rows, judged in one call |
//! | `vm`, `running`, `clock` | one VM; the call that runs in it, its time and its memory |
//! | `steady` | whether one run of a plugin's files will do for all calls |
//! | `hooks`, `load`, `migrations` | each hook; a plugin's definition; its written migrations |
//! | `api`, `types` | the Lua API, one list, and the natives with their bounds; the list as types for editors |
//! | `admission` | a configuration from what was sent to what is stored; a template, filled and finished |
//! | `spec` | specs: files that test a plugin, in a fake world |
//! | `require`, `db`, `log` | modules; what a hook reads; what it says |
//! | `values` | values across the border, bounded |
//! | `explain`, `positions` | from an error of the VM, or a mistake in a table, to file, line and column |
//!
//! # The life of a call
//! [`Plugin`] puts it into the plugin's queue and wakes the owner, on whichever Lua thread the plugin lives → the owner
//! starts it in the plugin's VM (building one from the captured sources where none is left), beside the other calls →
//! the plugin's files run again from compiled code (unless it is proved that they leave nothing behind that a hook could
//! change), then the hook, in a coroutine of their own → at every loop iteration,
//! call and return the interrupt looks at the call's time and the VM's memory, and hands the thread over after a slice →
//! what the hook returned is read within bounds and checked → the answer goes back to whoever asked. Mistakes in it get
//! their lines from the parsed source, on a thread that is neither Lua's nor the caller's.
//!
//! # Invariants
//! 1. *A VM never leaves its thread, and exactly one task polls it.* Others send calls.
//! 2. *A limit hits the plugin, never the process, nor another plugin.* Time is counted for each call alone, memory for
//!    each VM; a VM in which a call ran over is thrown away, and the calls that shared it run once more on a new one.
//! 3. *A stuck thread loses no call.* Calls live in the queue; the next owner finds them. The plugin that held the thread
//!    up answers nothing until the thread has come back, so one plugin holds up one thread at most.
//! 4. *Nothing is kept between calls.* Every call finds locals, upvalues, modules and coroutines as the plugin's files
//!    left them, whatever hooks do with them; what calls share is frozen.
//! 5. *A plugin reaches the names on [`API`], and nothing else.* No bytecode, no files, no time, no chance.
//!    What a spec has besides is on [`SPEC_API`], and no plugin has it.
//! 6. *Every native is bounded or polls.* A table of their worst cases is a test.
//! 7. *`db` is bound to one call*, reads only, and never asks for another plugin's rows.
//! 8. *No message holds a Lua stack*, and each names the file, and the line where it is known.
//!
//! Deliberately absent: anything that outlives a [`Sandbox`] (nothing static ever changes, so two of them can live in
//! one process), and a way to run SQL.

#![allow(
    clippy::result_large_err,
    reason = "a report is large, and errors are rare: callers match on it rather than on a box"
)]

mod admission;
mod api;
mod call;
mod clock;
mod db;
mod error;
mod explain;
mod hooks;
mod limits;
mod load;
mod log;
mod migrations;
mod owner;
mod plugin;
mod positions;
mod queue;
mod require;
mod rows;
mod running;
mod sandbox;
mod source;
mod spec;
mod steady;
mod thread;
mod types;
mod values;
mod vm;
mod watchdog;

pub use admission::{Filling, Incoming, Unadmitted, Unrendered};
pub use api::{API, Entry, Part, RECORDS, Record, Shape};
pub use call::{
    CatalogueReader, ConfigurationFilter, Form, HookCall, HookContext, Reads, RenderCall, RowCall,
    RowsCall,
};
pub use error::{FieldError, HookError, LoadError, NormalizeError, Report, Span, Stage, UrlError};
pub use limits::Limits;
pub use log::reorders_text;
pub use plugin::Plugin;
pub use sandbox::Sandbox;
pub use source::{Files, MAX_FILE, SettingsLookup, Source};
pub use spec::{
    Failure, SPEC_API, SPEC_RECORDS, Snapshots, Spec, SpecOptions, SpecReport, TestReport,
};
pub use types::types;
