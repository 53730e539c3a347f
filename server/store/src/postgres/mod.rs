//! Postgres: many servers on one database.
//!
//! | module | holds |
//! |---|---|
//! | `target`, `tls` | what the URL says, how a connection is made, and why it is not |
//! | `session` | one connection at work: statements, the frame of a transaction, locks |
//! | `alone` | one connection for a copy, without pool and listener |
//! | `cells` | values and cells as the types of their columns |
//! | `fault` | what an error of Postgres means, and whether the work can be run again |
//! | `engine` | the pool, and how work runs on it: a write in a transaction of its own, tried again where that is safe |
//! | `gate`, `tries` | what is let in and waited for; how often work is run |
//! | `listen` | what other servers write, and what this one tells them |
//! | `schema` | the core schema's version |
//!
//! # Why a write is right though others write at the same time
//! Transactions are READ COMMITTED, and whatever is checked is held until the commit: the plugin's head is locked FOR
//! SHARE by a write of its rows and FOR UPDATE by a migration; a configuration that is changed, and what is deleted if
//! nothing refers to it, FOR UPDATE; who writes the catalogue, or migrates a plugin, holds an advisory lock. Names and
//! references are constraints. What Postgres gives up for another's sake (a deadlock) is run again.
//!
//! # How servers learn of each other's writes
//! A transaction that touches what others keep notifies them, and Postgres delivers that if and only if it commits.
//! Each server listens on a connection of its own. When that is lost, everything has moved once it is back, and until
//! then the server does not call itself healthy: when it does, whatever was answered anywhere before it was asked has
//! moved here.

mod alone;
mod cells;
mod engine;
mod fault;
mod gate;
mod listen;
mod schema;
mod session;
mod target;
mod tls;
mod tries;

pub(crate) use alone::{bring_up_to_date, open_alone, versions};
pub(crate) use cells::{json, text};
pub(crate) use engine::PostgresEngine;
pub(crate) use session::PostgresSession;
