//! Black-box tests: each starts the built program in a folder of its own and drives it over HTTP and the command line.
//!
//! | module | holds |
//! |---|---|
//! | `harness` | processes, requests, and waiting for facts |
//! | `world` | what tests have in common: data products, services, plugin sources |
//! | `listing` | the list, forms, tiles, and what every answer has in common |
//! | `links` | `url` |
//! | `rendering` | access paths, and the errors of a configuration's content |
//! | `catalogue` | platforms, services, environments and data products |
//! | `configurations` | stored configurations |
//! | `enabling` | which plugins are enabled, and collisions |
//! | `reload` | plugins that change while the server runs |
//! | `reload_files` | the ways in which files change |
//! | `reload_migrations` | tables that change with their plugins |
//! | `hostile` | plugins that misbehave |
//! | `doors` | who gets in |
//! | `faults` | databases that are away, and processes that are stopped or killed |
//! | `command_line` | the verbs |
//! | `openapi` | the document |
//! | `readme` | the README, executed |
//!
//! # Rules
//! - No test sleeps: it waits for a fact, by asking for it until it holds or a deadline has passed.
//! - No test depends on another, on a port, or on the settings of the shell that runs it.
//! - What touches the database runs through [`harness::for_each_database`].

mod catalogue;
mod command_line;
mod configurations;
mod doors;
mod enabling;
mod faults;
mod harness;
mod hostile;
mod links;
mod listing;
mod openapi;
mod readme;
mod reload;
mod reload_files;
mod reload_migrations;
mod rendering;
mod world;
