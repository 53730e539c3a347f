//! The sandbox: Luau source in, definition and callable hooks out.

#![allow(
    clippy::result_large_err,
    reason = "a report is large, and errors are rare: callers match on it rather than on a box"
)]

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
mod running;
mod sandbox;
mod source;
mod thread;
mod values;
mod vm;
mod watchdog;

pub use api::{API, Entry};
pub use call::{
    CatalogueReader, ConfigurationFilter, Form, HookCall, HookContext, Reads, RenderCall,
};
pub use error::{FieldError, HookError, LoadError, NormalizeError, Report, Stage, UrlError};
pub use limits::Limits;
pub use plugin::Plugin;
pub use sandbox::Sandbox;
pub use source::{Files, MAX_FILE, SettingsLookup, Source};
