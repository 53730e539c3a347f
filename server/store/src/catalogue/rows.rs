//! Writing one row of the catalogue: what every way of writing it is made of.

use patchbay_plugin::catalogue::{
    Environment, EnvironmentConfiguration, Platform, PlatformService, ServiceConfiguration,
};
use sea_query::Value;
use serde_json::Value as Json;
use uuid::Uuid;

use super::Statements;
use crate::error::{Fault, StoreError, What};
use crate::session::{Row, Session, Statement, Values, json, text};

/// Reads the row with this id, or says what is not there.
pub(super) async fn one<T>(
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
pub(super) fn taken(fault: Fault, what: What, key: &'static str, value: &str) -> StoreError {
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
pub(super) async fn change(
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
pub(super) async fn unused(
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
pub(super) async fn service_of(
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
