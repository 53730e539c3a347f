//! Processes, databases, requests, and waiting for facts.

mod database;
mod folder;
mod http;
mod process;

pub(crate) use database::{Database, for_each_database, on_postgres, open_database};
pub(crate) use folder::Folder;
pub(crate) use http::{Answer, Http, eventually};
pub(crate) use process::{Killed, Options, Server, run, run_with, stopped_at};
