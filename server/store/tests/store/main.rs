//! The store, driven by its public face. Each test runs in a closure that takes a fresh database, so that it can run on
//! more than one kind.

mod away;
mod back;
mod catalogue;
mod configurations;
mod faults;
mod fixtures;
mod migrations;
mod operations;
mod outlines;
mod own_rows;
mod processes;
mod servers;
mod tls;
