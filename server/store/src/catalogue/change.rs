//! What applying a catalogue file does, as data that can be shown.

use std::fmt;

/// One thing that applying a file does. Shown, it holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogueChange {
    /// A platform is new.
    AddPlatform {
        /// Its name.
        platform: String,
    },
    /// A service is new.
    AddService {
        /// The platform's name.
        platform: String,
        /// Its name.
        service: String,
    },
    /// A service's templates change.
    ChangeService {
        /// The platform's name.
        platform: String,
        /// Its name.
        service: String,
        /// Which of its values.
        what: Vec<&'static str>,
    },
    /// A service gets options, or others.
    SetOptions {
        /// The platform's name.
        platform: String,
        /// The service's name.
        service: String,
        /// The options it had, if any.
        from: Option<Vec<String>>,
        /// The options it gets.
        to: Vec<String>,
    },
    /// An environment is new.
    AddEnvironment {
        /// Its name.
        environment: String,
    },
    /// An environment changes.
    ChangeEnvironment {
        /// Its name.
        environment: String,
        /// Which of its values.
        what: Vec<&'static str>,
    },
    /// What a platform or service is in an environment is new, or changes.
    SetEnvironmentConfiguration {
        /// The environment's name.
        environment: String,
        /// The platform's name.
        platform: String,
        /// The service's name, if it is one's.
        service: Option<String>,
        /// Whether it is new.
        new: bool,
    },
}

impl fmt::Display for CatalogueChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CatalogueChange::AddPlatform { platform } => write!(f, "+ platform {platform}"),
            CatalogueChange::AddService { platform, service } => {
                write!(f, "+ service {platform} / {service}")
            }
            CatalogueChange::ChangeService {
                platform,
                service,
                what,
            } => write!(f, "~ service {platform} / {service}: {}", what.join(", ")),
            CatalogueChange::SetOptions {
                platform,
                service,
                from,
                to,
            } => match from {
                None => write!(f, "+ options of {platform} / {service}: {to:?}"),
                Some(from) => write!(f, "~ options of {platform} / {service}: {from:?} → {to:?}"),
            },
            CatalogueChange::AddEnvironment { environment } => {
                write!(f, "+ environment {environment}")
            }
            CatalogueChange::ChangeEnvironment { environment, what } => {
                write!(f, "~ environment {environment}: {}", what.join(", "))
            }
            CatalogueChange::SetEnvironmentConfiguration {
                environment,
                platform,
                service,
                new,
            } => {
                let sign = if *new { '+' } else { '~' };
                write!(f, "{sign} configuration of {platform}")?;
                if let Some(service) = service {
                    write!(f, " / {service}")?;
                }
                write!(f, " in {environment}")
            }
        }
    }
}
