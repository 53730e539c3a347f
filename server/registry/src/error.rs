//! Why a request cannot be answered, in the words of the domain. Only `http` turns this into status codes.

use patchbay_lua::HookError;
use patchbay_plugin::validation::{Invalid, Loc, ValidationError};
use patchbay_store::StoreError;

/// Why a request cannot be answered. A text is meant for the client, unless its variant says that it is for the log.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The request lacks something that only shows once it is understood, such as an environment.
    #[error("{0}")]
    BadRequest(String),
    /// What it names does not exist.
    #[error("{0}")]
    NotFound(String),
    /// It contradicts what is stored or what the plugin is.
    #[error("{0}")]
    Conflict(String),
    /// It was made for another revision.
    #[error("{0}")]
    Stale(String),
    /// Its content is wrong.
    #[error("the request has {} errors", .0.len())]
    Invalid(Vec<ValidationError>),
    /// A rule of the plugin's table does not allow what was to be stored. The text is for the log.
    #[error("{0}")]
    Refused(String),
    /// The plugin does not do this.
    #[error("{0}")]
    NotImplemented(String),
    /// Too many calls of the plugin are waiting.
    #[error("too many calls of the plugin are waiting")]
    Busy,
    /// A hook ran past its deadline. The text is for the log.
    #[error("a hook ran past its deadline: {0}")]
    Deadline(String),
    /// What it takes cannot be had at the moment, and may be later: the database, the table that a version wants, the
    /// sandbox. The text is for the log.
    #[error("not available: {0}")]
    Unavailable(String),
    /// The plugin takes no writes here at the moment.
    #[error("{0}")]
    ReadOnly(String),
    /// Something is wrong on this side. The text is for the log.
    #[error("{0}")]
    Internal(String),
}

/// The 404 of a plugin.
pub(crate) fn plugin_not_found(name: &str) -> RequestError {
    RequestError::NotFound(format!("Plugin '{name}' not found"))
}

impl From<Invalid> for RequestError {
    fn from(Invalid(errors): Invalid) -> Self {
        RequestError::Invalid(errors)
    }
}

impl From<StoreError> for RequestError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(what) => RequestError::NotFound(format!("{what} not found")),
            StoreError::Stale { current } => RequestError::Stale(format!(
                "The configuration has changed since; its revision is {current}"
            )),
            StoreError::Duplicate { .. } | StoreError::Conflict(_) => {
                RequestError::Conflict(error.to_string())
            }
            StoreError::Invalid(message) => RequestError::BadRequest(message),
            StoreError::Unkept(unkept) => {
                let mut loc: Loc = vec!["body".into(), "config".into()];
                loc.extend(unkept.loc);
                let error = ValidationError::value(loc, unkept.message, unkept.input);
                RequestError::Invalid(vec![error])
            }
            StoreError::Refused(_) => RequestError::Refused(error.detail()),
            error if error.is_unavailable() => RequestError::Unavailable(error.detail()),
            error => RequestError::Internal(error.detail()),
        }
    }
}

impl From<HookError> for RequestError {
    fn from(error: HookError) -> Self {
        match error {
            HookError::Busy => RequestError::Busy,
            HookError::Unavailable(reason) => RequestError::Unavailable(reason),
            HookError::Deadline(report) => RequestError::Deadline(report.to_string()),
            other => RequestError::Internal(other.to_string()),
        }
    }
}
