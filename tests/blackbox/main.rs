//! Black-box tests: each starts the built program in a folder of its own and drives it over HTTP and the command line.
//!
//! | module | holds |
//! |---|---|
//! | `harness` | processes, requests, and waiting for facts |
//! | `world` | what tests have in common: data products, services, plugin sources |
//! | `listing` | the list, forms, tiles, details |
//! | `answers` | what answers have in common: paths, ids, errors, ETags, compression |
//! | `links` | `url` |
//! | `rendering` | access paths, and the errors of a configuration's content |
//! | `catalogue` | platforms, services, environments and data products |
//! | `configurations` | what is stored: created, checked, read back |
//! | `configuration_changes` | what becomes of it: changes, races, history, the end of its plugin |
//! | `configuration_lists` | pages, filters, the export |
//! | `enabling` | which plugins are enabled |
//! | `collisions` | plugins that claim the same |
//! | `reload` | plugins that change while the server runs |
//! | `reload_load` | the same under load |
//! | `reload_files` | the ways in which files change |
//! | `reload_migrations` | tables that change with their plugins |
//! | `migrations` | steps run, taken back, shown and written by the command line; tables that somebody else changes |
//! | `rows` | stored rows when their plugin changes: checked, carried over, or only shown |
//! | `last_good` | what serves is given up only for something better |
//! | `hostile` | plugins that misbehave |
//! | `packages` | plugins that are installed, pinned and taken out |
//! | `package_archives` | archives that are no packages |
//! | `doors` | who gets in |
//! | `faults` | files that are locked, replaced or no database, and servers that are stopped |
//! | `away` | a Postgres that is stopped, held, full, crowded, or cuts connections |
//! | `kills` | servers that are killed at any moment |
//! | `servers` | several servers on one Postgres |
//! | `writers` | callers that write all the while, and whether anything is lost |
//! | `cluster` | what servers on one database tell of each other |
//! | `db_copy` | databases that are copied |
//! | `command_line` | the verbs |
//! | `plugin_check` | plugins checked by themselves, as authors, editors and pipelines do |
//! | `plugin_dev` | one plugin, served while it is written |
//! | `doctor` | what is told of an installation |
//! | `specs` | the specs of plugins, and types for editors |
//! | `openapi` | the document |
//! | `version_changes` | each kind of change under a number that promises less |
//! | `readme`, `readme_words` | the README, the guide and the example's README, executed; the commands in their sentences |
//! | `repository` | what files of this repository promise by their text: fences, the image, the composition |
//!
//! # Rules
//! - No test sleeps: it waits for a fact, by asking for it until it holds or a deadline has passed.
//! - No test depends on another, on a port, or on the settings of the shell that runs it.
//! - What touches the database runs through [`harness::for_each_database`].

mod answers;
mod away;
mod catalogue;
mod cluster;
mod collisions;
mod command_line;
mod configuration_changes;
mod configuration_lists;
mod configurations;
mod db_copy;
mod doctor;
mod doors;
mod enabling;
mod faults;
mod half_way;
mod harness;
mod hostile;
mod kills;
mod last_good;
mod leftovers;
mod links;
mod listing;
mod migrations;
mod openapi;
mod package_archives;
mod packages;
mod plugin_check;
mod plugin_dev;
mod promises;
mod readme;
mod readme_words;
mod reload;
mod reload_files;
mod reload_load;
mod reload_migrations;
mod rendering;
mod repository;
mod rows;
mod servers;
mod specs;
mod version_changes;
mod world;
mod writers;
