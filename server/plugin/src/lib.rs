//! What things *are* in Patchbay, as pure data and the rules over it.
//!
//! No Lua, no SQL, no HTTP, no clock and no files: every rule here can be tested with a value and an assertion, and the
//! rooms around it (`lua`, `store`, `registry`, `http`) agree because they all speak these types.
//!
//! | module | holds |
//! |---|---|
//! | [`name`] | names, parsed once at the edge: plugin, field, table, platform key, migration id |
//! | [`term`] | what a Lua file or hook returned, as plain data, and the reader that reports every mistake in it by path |
//! | [`definition`] | the checked definition of a plugin |
//! | [`field`] | fields and what values they accept |
//! | [`form`] | the elements of a form as they go over the wire |
//! | [`visibility`] | when an element is shown and a field is required |
//! | [`platform`] | platform metadata and its defaults, the list entry of a plugin, the tiles |
//! | [`template`] | `{name}` templates |
//! | [`catalogue`] | platforms, services, environments: the immutable snapshot that hooks read |
//! | [`secret`] | secrets in the catalogue: how they are told, that they never leave, whose is kept |
//! | [`configuration`] | stored configurations, data products, revisions |
//! | [`migration`] | migrations as lists of operations, the table they make, and the plan from what is applied to what is wanted |
//! | [`outline`] | what is kept of a definition to compare the next version with |
//! | [`change`] | what changed between two versions, and what their numbers promise about it |
//! | [`schema`] | the JSON Schema of a plugin's configuration |
//! | [`reference`] | the reference page of a plugin |
//! | [`validation`] | errors of a client's input, in the shape generated clients know |
//! | [`body`] | the body of a request, read key by key |

pub mod body;
pub mod catalogue;
pub mod change;
pub mod configuration;
pub mod definition;
pub mod field;
pub mod form;
pub mod migration;
pub mod name;
pub mod outline;
pub mod platform;
pub mod reference;
pub mod schema;
pub mod secret;
pub mod template;
pub mod term;
pub mod validation;
pub mod visibility;

/// A JSON object whose keys keep their order.
pub type Map = serde_json::Map<String, serde_json::Value>;
