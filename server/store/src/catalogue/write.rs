//! Writing the catalogue, one thing at a time.
//!
//! What belongs to a thing goes with it: a platform's services, their options, and what either is in the environments.
//! What only refers to it keeps it: a platform or service in use by configurations is not deleted.

use patchbay_plugin::catalogue::{
    Environment, EnvironmentConfiguration, Platform, PlatformService, ServiceConfiguration,
    keep_secrets, with_blank_secrets,
};
use sea_query::Value;
use serde_json::Value as Json;
use uuid::Uuid;

use super::Statements;
use crate::Store;
use crate::engine::{Frame, Work};
use crate::error::{Fault, StoreError, What};
use crate::session::{Row, Session, Statement, Values, json, text};
use crate::shared::Touched;

/// A platform service to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceDraft {
    /// Its name, unique in the platform.
    pub name: String,
    /// The template of an access path.
    pub result_string_template: String,
    /// The template of the technical info of one environment.
    pub technical_info_template: String,
}

/// An environment to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentDraft {
    /// Its name, unique.
    pub name: String,
    /// Its short name.
    pub acronym: String,
    /// What identifies it on the platform.
    pub context: String,
    /// Whether it is the default; then no other is.
    pub is_default: bool,
}

/// What a platform or service is in an environment, to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct EnvironmentConfigurationDraft {
    /// The platform.
    pub platform_id: Uuid,
    /// The service, or none for the platform's own.
    pub service_id: Option<Uuid>,
    /// An object for a platform; a list of objects for a service.
    pub config: Json,
}

/// Reads the row with this id, or says what is not there.
async fn one<T>(
    session: &mut Session,
    by_id: &Statement,
    id: Uuid,
    what: What,
    read: fn(&Row) -> Result<T, Fault>,
) -> Result<T, StoreError> {
    let row = session.query_one(by_id, vec![id.into()]).await?;
    Ok(read(&row.ok_or(StoreError::NotFound(what))?)?)
}

/// Turns a broken unique constraint into what it means.
fn taken(fault: Fault, what: What, key: &'static str, value: &str) -> StoreError {
    match fault {
        Fault::Unique(_) => StoreError::Duplicate {
            what,
            key,
            value: value.to_owned(),
        },
        other => other.into(),
    }
}

/// Runs an update or deletion of one row, or says that it is not there.
async fn change(
    session: &mut Session,
    statement: &Statement,
    values: Values,
    what: What,
) -> Result<(), Fault> {
    match session.execute(statement, values).await? {
        0 => Err(StoreError::NotFound(what).into()),
        _ => Ok(()),
    }
}

/// Says by how many configurations a thing is referred to, when it is.
async fn unused(
    session: &mut Session,
    counting: &Statement,
    values: Values,
    what: What,
) -> Result<(), StoreError> {
    let row = session.query_one(counting, values).await?;
    let count = row.map_or(Ok(0), |row| row.integer(0))?;
    match count {
        0 => Ok(()),
        1 => Err(StoreError::Conflict(format!(
            "{what} is referred to by 1 configuration"
        ))),
        _ => Err(StoreError::Conflict(format!(
            "{what} is referred to by {count} configurations"
        ))),
    }
}

pub(super) async fn put_platform(
    session: &mut Session,
    statements: &Statements,
    platform: &Platform,
) -> Result<(), StoreError> {
    let values = vec![platform.id.into(), text(&platform.name)];
    session
        .execute(&statements.platforms.insert, values)
        .await
        .map_err(|fault| taken(fault, What::Platform, "name", &platform.name))?;
    Ok(())
}

pub(super) async fn put_service(
    session: &mut Session,
    statements: &Statements,
    service: &PlatformService,
) -> Result<(), StoreError> {
    let values = vec![
        service.id.into(),
        service.platform_id.into(),
        text(&service.name),
        text(&service.result_string_template),
        text(&service.technical_info_template),
    ];
    match session.execute(&statements.services.insert, values).await {
        Ok(_) => Ok(()),
        Err(Fault::Reference) => Err(StoreError::NotFound(What::Platform)),
        Err(fault) => Err(taken(fault, What::Service, "name", &service.name)),
    }
}

pub(super) async fn change_service(
    session: &mut Session,
    statements: &Statements,
    service: &PlatformService,
) -> Result<(), StoreError> {
    let values = vec![
        text(&service.name),
        text(&service.result_string_template),
        text(&service.technical_info_template),
        service.id.into(),
    ];
    change(session, &statements.services.update, values, What::Service)
        .await
        .map_err(|fault| taken(fault, What::Service, "name", &service.name))
}

pub(super) async fn put_service_configuration(
    session: &mut Session,
    statements: &Statements,
    configuration: &ServiceConfiguration,
) -> Result<(), StoreError> {
    let values = vec![
        configuration.id.into(),
        configuration.platform_id.into(),
        configuration.service_id.into(),
        options(&configuration.config),
    ];
    let service = configuration.service_id.to_string();
    session
        .execute(&statements.service_configurations.insert, values)
        .await
        .map_err(|fault| taken(fault, What::ServiceConfiguration, "service", &service))?;
    Ok(())
}

pub(super) async fn change_service_configuration(
    session: &mut Session,
    statements: &Statements,
    id: Uuid,
    config: &[String],
) -> Result<(), StoreError> {
    let values = vec![options(config), id.into()];
    let statement = &statements.service_configurations.update;
    Ok(change(session, statement, values, What::ServiceConfiguration).await?)
}

fn options(config: &[String]) -> Value {
    json(Json::from(config.to_vec()))
}

async fn clear_other_defaults(
    session: &mut Session,
    statements: &Statements,
    environment: &Environment,
) -> Result<(), Fault> {
    if environment.is_default {
        let values = vec![false.into(), true.into(), environment.id.into()];
        session.execute(&statements.clear_default, values).await?;
    }
    Ok(())
}

pub(super) async fn put_environment(
    session: &mut Session,
    statements: &Statements,
    environment: &Environment,
) -> Result<(), StoreError> {
    clear_other_defaults(session, statements, environment).await?;
    let values = vec![
        environment.id.into(),
        text(&environment.name),
        text(&environment.acronym),
        text(&environment.context),
        environment.is_default.into(),
    ];
    session
        .execute(&statements.environments.insert, values)
        .await
        .map_err(|fault| taken(fault, What::Environment, "name", &environment.name))?;
    Ok(())
}

pub(super) async fn change_environment(
    session: &mut Session,
    statements: &Statements,
    environment: &Environment,
) -> Result<(), StoreError> {
    clear_other_defaults(session, statements, environment).await?;
    let values = vec![
        text(&environment.name),
        text(&environment.acronym),
        text(&environment.context),
        environment.is_default.into(),
        environment.id.into(),
    ];
    let statement = &statements.environments.update;
    change(session, statement, values, What::Environment)
        .await
        .map_err(|fault| taken(fault, What::Environment, "name", &environment.name))
}

pub(super) async fn put_environment_configuration(
    session: &mut Session,
    statements: &Statements,
    configuration: &EnvironmentConfiguration,
) -> Result<(), StoreError> {
    let values = vec![
        configuration.id.into(),
        configuration.environment_id.into(),
        configuration.platform_id.into(),
        configuration.service_id.into(),
        json(configuration.config.clone()),
    ];
    let of = configuration
        .service_id
        .unwrap_or(configuration.platform_id)
        .to_string();
    let key = match configuration.service_id {
        Some(_) => "service",
        None => "platform",
    };
    session
        .execute(&statements.environment_configurations.insert, values)
        .await
        .map_err(|fault| taken(fault, What::EnvironmentConfiguration, key, &of))?;
    Ok(())
}

pub(super) async fn change_environment_configuration(
    session: &mut Session,
    statements: &Statements,
    id: Uuid,
    config: &Json,
) -> Result<(), StoreError> {
    let values = vec![json(config.clone()), id.into()];
    let statement = &statements.environment_configurations.update;
    Ok(change(session, statement, values, What::EnvironmentConfiguration).await?)
}

/// What the catalogue's readers build on: an object for a platform, a list of objects for a service.
pub(super) fn check_shape(service: bool, config: &Json) -> Result<(), StoreError> {
    let fits = match config {
        Json::Object(_) => !service,
        Json::Array(entries) => service && entries.iter().all(Json::is_object),
        _ => false,
    };
    match (fits, service) {
        (true, _) => Ok(()),
        (false, true) => Err(StoreError::Invalid(
            "the configuration of a service in an environment is a list of objects".to_owned(),
        )),
        (false, false) => Err(StoreError::Invalid(
            "the configuration of a platform in an environment is an object".to_owned(),
        )),
    }
}

/// The service, when it is one of this platform.
async fn service_of(
    session: &mut Session,
    statements: &Statements,
    platform_id: Uuid,
    id: Uuid,
) -> Result<PlatformService, StoreError> {
    let service = one(
        session,
        &statements.services.by_id,
        id,
        What::Service,
        super::service,
    )
    .await?;
    match service.platform_id == platform_id {
        true => Ok(service),
        false => Err(StoreError::NotFound(What::Service)),
    }
}

/// Platforms.
impl Store {
    async fn write_catalogue<T: Send + 'static>(
        &self,
        work: impl Work<T>,
    ) -> Result<T, StoreError> {
        self.write(Frame::Group, |_| Touched::Catalogue, work).await
    }

    /// Creates a platform.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] when the name is taken; those of an unavailable database.
    pub async fn create_platform(&self, name: String) -> Result<Platform, StoreError> {
        let statements = self.statements();
        let platform = Platform {
            id: Uuid::now_v7(),
            name,
        };
        self.write_catalogue(move |session| {
            Box::pin(async move {
                put_platform(session, &statements.catalogue, &platform).await?;
                Ok(platform)
            })
        })
        .await
    }

    /// Renames a platform.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Duplicate`] when the name is taken; those of an unavailable database.
    pub async fn update_platform(&self, id: Uuid, name: String) -> Result<Platform, StoreError> {
        let statements = self.statements();
        self.write_catalogue(move |session| {
            Box::pin(async move {
                let statement = &statements.catalogue.platforms.update;
                change(
                    session,
                    statement,
                    vec![text(&name), id.into()],
                    What::Platform,
                )
                .await
                .map_err(|fault| taken(fault, What::Platform, "name", &name))?;
                Ok(Platform { id, name })
            })
        })
        .await
    }

    /// Deletes a platform with its services, their options, and what they are in the environments.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] when a configuration refers to it or to one of its services;
    /// those of an unavailable database.
    pub async fn delete_platform(&self, id: Uuid) -> Result<(), StoreError> {
        let statements = self.statements();
        self.write_catalogue(move |session| {
            Box::pin(async move {
                let statements = &statements.catalogue;
                let counting = &statements.configurations_of_platform;
                unused(
                    session,
                    counting,
                    vec![id.into(), id.into()],
                    What::Platform,
                )
                .await?;
                let statement = &statements.platforms.delete;
                Ok(change(session, statement, vec![id.into()], What::Platform).await?)
            })
        })
        .await
    }
}

/// Platform services.
impl Store {
    /// Creates a service of a platform.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the platform; [`StoreError::Duplicate`] when the platform has a service of that
    /// name; those of an unavailable database.
    pub async fn create_service(
        &self,
        platform_id: Uuid,
        draft: ServiceDraft,
    ) -> Result<PlatformService, StoreError> {
        let statements = self.statements();
        let service = drafted(Uuid::now_v7(), platform_id, draft);
        self.write_catalogue(move |session| {
            Box::pin(async move {
                put_service(session, &statements.catalogue, &service).await?;
                Ok(service)
            })
        })
        .await
    }

    /// Replaces a service of a platform.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Duplicate`] when the platform has another service of that name; those of
    /// an unavailable database.
    pub async fn update_service(
        &self,
        platform_id: Uuid,
        id: Uuid,
        draft: ServiceDraft,
    ) -> Result<PlatformService, StoreError> {
        let statements = self.statements();
        let service = drafted(id, platform_id, draft);
        self.write_catalogue(move |session| {
            Box::pin(async move {
                let statements = &statements.catalogue;
                service_of(session, statements, platform_id, id).await?;
                change_service(session, statements, &service).await?;
                Ok(service)
            })
        })
        .await
    }

    /// Deletes a service with its options and what it is in the environments.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] when a configuration refers to it; those of an unavailable
    /// database.
    pub async fn delete_service(&self, platform_id: Uuid, id: Uuid) -> Result<(), StoreError> {
        let statements = self.statements();
        self.write_catalogue(move |session| {
            Box::pin(async move {
                let statements = &statements.catalogue;
                service_of(session, statements, platform_id, id).await?;
                let counting = &statements.configurations_of_service;
                unused(session, counting, vec![id.into()], What::Service).await?;
                let statement = &statements.services.delete;
                Ok(change(session, statement, vec![id.into()], What::Service).await?)
            })
        })
        .await
    }

    /// Gives a service its options.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for a service that is not the platform's; [`StoreError::Duplicate`] when it has options
    /// already; those of an unavailable database.
    pub async fn create_service_configuration(
        &self,
        platform_id: Uuid,
        service_id: Uuid,
        config: Vec<String>,
    ) -> Result<ServiceConfiguration, StoreError> {
        let statements = self.statements();
        let configuration = ServiceConfiguration {
            id: Uuid::now_v7(),
            platform_id,
            service_id,
            config,
        };
        self.write_catalogue(move |session| {
            Box::pin(async move {
                let statements = &statements.catalogue;
                service_of(session, statements, platform_id, service_id).await?;
                put_service_configuration(session, statements, &configuration).await?;
                Ok(configuration)
            })
        })
        .await
    }

    /// Replaces the options of a service.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; those of an unavailable database.
    pub async fn update_service_configuration(
        &self,
        id: Uuid,
        config: Vec<String>,
    ) -> Result<ServiceConfiguration, StoreError> {
        let statements = self.statements();
        self.write_catalogue(move |session| {
            Box::pin(async move {
                let statements = &statements.catalogue;
                change_service_configuration(session, statements, id, &config).await?;
                one(
                    session,
                    &statements.service_configurations.by_id,
                    id,
                    What::ServiceConfiguration,
                    super::service_configuration,
                )
                .await
            })
        })
        .await
    }

    /// Takes the options of a service away, which leaves its plugin not configured.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; those of an unavailable database.
    pub async fn delete_service_configuration(&self, id: Uuid) -> Result<(), StoreError> {
        let statements = self.statements();
        self.write_catalogue(move |session| {
            Box::pin(async move {
                let statement = &statements.catalogue.service_configurations.delete;
                Ok(change(
                    session,
                    statement,
                    vec![id.into()],
                    What::ServiceConfiguration,
                )
                .await?)
            })
        })
        .await
    }
}

fn drafted(id: Uuid, platform_id: Uuid, draft: ServiceDraft) -> PlatformService {
    PlatformService {
        id,
        platform_id,
        name: draft.name,
        result_string_template: draft.result_string_template,
        technical_info_template: draft.technical_info_template,
    }
}

/// Environments.
impl Store {
    /// Creates an environment. When it is the default, no other is any more.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] when the name is taken; those of an unavailable database.
    pub async fn create_environment(
        &self,
        draft: EnvironmentDraft,
    ) -> Result<Environment, StoreError> {
        let statements = self.statements();
        let environment = environment_of(Uuid::now_v7(), draft);
        self.write_catalogue(move |session| {
            Box::pin(async move {
                put_environment(session, &statements.catalogue, &environment).await?;
                Ok(environment)
            })
        })
        .await
    }

    /// Replaces an environment. When it becomes the default, no other is any more.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Duplicate`] when the name is taken; those of an unavailable database.
    pub async fn update_environment(
        &self,
        id: Uuid,
        draft: EnvironmentDraft,
    ) -> Result<Environment, StoreError> {
        let statements = self.statements();
        let environment = environment_of(id, draft);
        self.write_catalogue(move |session| {
            Box::pin(async move {
                change_environment(session, &statements.catalogue, &environment).await?;
                Ok(environment)
            })
        })
        .await
    }

    /// Deletes an environment with what the platforms and services are in it. Configurations do not refer to it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; those of an unavailable database.
    pub async fn delete_environment(&self, id: Uuid) -> Result<(), StoreError> {
        let statements = self.statements();
        self.write_catalogue(move |session| {
            Box::pin(async move {
                let statement = &statements.catalogue.environments.delete;
                Ok(change(session, statement, vec![id.into()], What::Environment).await?)
            })
        })
        .await
    }

    /// Says what a platform or service is in an environment. Gives it as it goes out, with secrets blanked.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the environment, platform or service; [`StoreError::Duplicate`] when it has one;
    /// [`StoreError::Invalid`] when the value is of the wrong shape; those of an unavailable database.
    pub async fn create_environment_configuration(
        &self,
        environment_id: Uuid,
        draft: EnvironmentConfigurationDraft,
    ) -> Result<EnvironmentConfiguration, StoreError> {
        check_shape(draft.service_id.is_some(), &draft.config)?;
        let statements = self.statements();
        let configuration = EnvironmentConfiguration {
            id: Uuid::now_v7(),
            environment_id,
            platform_id: draft.platform_id,
            service_id: draft.service_id,
            config: keep_secrets(&draft.config, None),
        };
        self.write_catalogue(move |session| {
            Box::pin(async move {
                let statements = &statements.catalogue;
                one(
                    session,
                    &statements.environments.by_id,
                    environment_id,
                    What::Environment,
                    super::environment,
                )
                .await?;
                let platform_id = configuration.platform_id;
                one(
                    session,
                    &statements.platforms.by_id,
                    platform_id,
                    What::Platform,
                    super::platform,
                )
                .await?;
                if let Some(id) = configuration.service_id {
                    service_of(session, statements, platform_id, id).await?;
                }
                put_environment_configuration(session, statements, &configuration).await?;
                Ok(blanked(configuration))
            })
        })
        .await
    }

    /// Replaces what a platform or service is in an environment. A secret sent as `""` keeps what is stored, null
    /// clears it. Gives it as it goes out, with secrets blanked.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Invalid`] when the value is of the wrong shape; those of an unavailable
    /// database.
    pub async fn update_environment_configuration(
        &self,
        id: Uuid,
        config: Json,
    ) -> Result<EnvironmentConfiguration, StoreError> {
        let statements = self.statements();
        self.write_catalogue(move |session| {
            Box::pin(async move {
                let statements = &statements.catalogue;
                let mut stored = one(
                    session,
                    &statements.environment_configurations.by_id,
                    id,
                    What::EnvironmentConfiguration,
                    super::environment_configuration,
                )
                .await?;
                check_shape(stored.service_id.is_some(), &config)?;
                stored.config = keep_secrets(&config, Some(&stored.config));
                change_environment_configuration(session, statements, id, &stored.config).await?;
                Ok(blanked(stored))
            })
        })
        .await
    }

    /// Takes away what a platform or service is in an environment.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; those of an unavailable database.
    pub async fn delete_environment_configuration(&self, id: Uuid) -> Result<(), StoreError> {
        let statements = self.statements();
        self.write_catalogue(move |session| {
            Box::pin(async move {
                let statement = &statements.catalogue.environment_configurations.delete;
                let what = What::EnvironmentConfiguration;
                Ok(change(session, statement, vec![id.into()], what).await?)
            })
        })
        .await
    }
}

fn environment_of(id: Uuid, draft: EnvironmentDraft) -> Environment {
    Environment {
        id,
        name: draft.name,
        acronym: draft.acronym,
        context: draft.context,
        is_default: draft.is_default,
    }
}

fn blanked(mut configuration: EnvironmentConfiguration) -> EnvironmentConfiguration {
    configuration.config = with_blank_secrets(&configuration.config);
    configuration
}
