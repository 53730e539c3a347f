//! What can go wrong, in words of the domain.

use std::fmt;
use std::path::PathBuf;

use patchbay_plugin::name::MigrationId;
use patchbay_plugin::secret::Unkept;

/// What a name, a reference or an id is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A data product.
    DataProduct,
    /// A platform.
    Platform,
    /// A platform service.
    Service,
    /// The options of a platform service.
    ServiceConfiguration,
    /// An environment.
    Environment,
    /// What a platform or service is in an environment.
    EnvironmentConfiguration,
    /// A configuration.
    Configuration,
    /// The applied definition of a plugin.
    Plugin,
}

impl What {
    fn word(self) -> &'static str {
        match self {
            What::DataProduct => "data product",
            What::Platform => "platform",
            What::Service => "platform service",
            What::ServiceConfiguration => "platform service configuration",
            What::Environment => "environment",
            What::EnvironmentConfiguration => "environment configuration",
            What::Configuration => "configuration",
            What::Plugin => "plugin",
        }
    }
}

/// The word, with a capital: it opens a sentence.
impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word();
        let (first, rest) = word.split_at(1);
        write!(f, "{}{rest}", first.to_uppercase())
    }
}

/// Why the store could not do something.
///
/// [`Display`](fmt::Display) is what a client may see: no SQL, no path, nothing internal. The three variants of opening
/// ([`CannotOpen`](StoreError::CannotOpen), [`LockedByServer`](StoreError::LockedByServer),
/// [`NewerSchema`](StoreError::NewerSchema)) are for the operator and name the database.
/// [`detail`](StoreError::detail) is for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// What the call names is not there.
    #[error("{0} not found")]
    NotFound(What),
    /// A value that must be unique is taken.
    #[error("{what} with {key} {value:?} exists already")]
    Duplicate {
        /// Of what.
        what: What,
        /// Which of its values.
        key: &'static str,
        /// The value.
        value: String,
    },
    /// Something else refers to it, or a rule of a table forbids it.
    #[error("{0}")]
    Conflict(String),
    /// The caller expected another revision.
    #[error("the configuration is at revision {current}")]
    Stale {
        /// The revision it has.
        current: i64,
    },
    /// The plugin's table is not at the step for which the caller was built; try again on the current generation.
    #[error("the plugin's table has changed, try again")]
    HeadMoved,
    /// A table that a plugin wants is another plugin's.
    #[error("the table {table} belongs to the plugin {plugin}")]
    TableTaken {
        /// The table.
        table: String,
        /// Its owner.
        plugin: String,
    },
    /// A step of a plugin's migrations failed; none of the steps that were pending has run.
    #[error("the migration {id} failed: {reason}")]
    Migration {
        /// The step.
        id: MigrationId,
        /// Why, in the database's words.
        reason: String,
    },
    /// Values would be lost; nothing has run.
    #[error("values would be lost: {}", .0.join("; "))]
    Loses(Vec<String>),
    /// A plugin's tables are not what its steps have made; nothing has run.
    #[error("the tables are not what the migrations made: {}", .0.join("; "))]
    Drift(Vec<String>),
    /// What was to be written cannot be stored, or a cursor is none of ours.
    #[error("{0}")]
    Invalid(String),
    /// A configuration of the catalogue that cannot replace what is stored, because of its secrets.
    #[error("{0}")]
    Unkept(Unkept),
    /// A rule of the table forbids what was to be written. The database's own words, which name the table, are for the log.
    #[error("a rule of the plugin's table does not allow these values")]
    Refused(String),
    /// Another process holds the database for longer than we wait.
    #[error("the database is locked")]
    Locked,
    /// Another server does it at the moment.
    #[error("{what} by {holder}")]
    LockedBy {
        /// What is done.
        what: String,
        /// Who does it: the name of its connection, the host, the process of the database.
        holder: String,
    },
    /// Too many calls wait for the database.
    #[error("too many calls wait for the database")]
    Busy,
    /// The database, its disk or its folder cannot be written.
    #[error("the database cannot be written")]
    ReadOnly,
    /// The disk, or the file's size limit, is full.
    #[error("the database is full")]
    Full,
    /// The database file was deleted or replaced while it was open.
    #[error("the database file is missing")]
    Missing,
    /// The database cannot be reached or read.
    #[error("the database is away")]
    Away(String),
    /// The store was closed.
    #[error("the server is shutting down")]
    Closed,
    /// The database was made, or has been brought up to date, by a newer Patchbay: this one does not write to it.
    #[error(
        "the database {path:?} has the core schema {found}, and this version of Patchbay knows {known}; use a newer one"
    )]
    NewerSchema {
        /// The file, or the URL without user and password.
        path: PathBuf,
        /// The version it has.
        found: i64,
        /// The newest version that we know.
        known: i64,
    },
    /// Another server serves the file.
    #[error("the database is served by another process{}: the lock {path:?} is held", match .pid { Some(pid) => format!(" ({pid})"), None => String::new() })]
    LockedByServer {
        /// The lock file.
        path: PathBuf,
        /// The process, where the lock file says it.
        pid: Option<u32>,
    },
    /// The database could not be opened. The message says which, why and what to do.
    #[error("{0}")]
    CannotOpen(String),
    /// A mistake of ours.
    #[error("something went wrong in the store")]
    Internal(String),
}

impl StoreError {
    /// Whether it may pass by itself, so that the caller should be told to try again later.
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self,
            StoreError::HeadMoved
                | StoreError::Locked
                | StoreError::LockedBy { .. }
                | StoreError::NewerSchema { .. }
                | StoreError::Busy
                | StoreError::ReadOnly
                | StoreError::Full
                | StoreError::Missing
                | StoreError::Away(_)
                | StoreError::Closed
        )
    }

    /// The whole truth, for the log.
    pub fn detail(&self) -> String {
        match self {
            StoreError::Away(detail)
            | StoreError::Internal(detail)
            | StoreError::Refused(detail) => {
                format!("{self}: {detail}")
            }
            other => other.to_string(),
        }
    }
}

/// What a statement came back with, before the repository function that ran it says what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A unique constraint, with the columns it is on, or the name of its index.
    Unique(String),
    /// A foreign key.
    Reference,
    /// Another constraint, in the database's words.
    Check(String),
    /// The statement does not fit the tables, in the database's words.
    Statement(String),
    /// Anything that has nothing to do with what the statement means.
    Store(StoreError),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        Fault::Store(error)
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> StoreError {
        match fault {
            Fault::Unique(columns) => {
                StoreError::Conflict(format!("another one has the same {columns} already"))
            }
            Fault::Reference => StoreError::Conflict(
                "it refers, or is referred to, in a way that does not hold".to_owned(),
            ),
            Fault::Check(words) => StoreError::Refused(words),
            Fault::Statement(words) => StoreError::Internal(words),
            Fault::Store(error) => error,
        }
    }
}

impl From<Unkept> for StoreError {
    fn from(unkept: Unkept) -> Self {
        StoreError::Unkept(unkept)
    }
}
