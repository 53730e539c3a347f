//! Writing platforms and their services, one thing at a time.
//!
//! What belongs to a thing goes with it: a platform's services, their options, and what either is in the environments.
//! What only refers to it keeps it: a platform or service in use by configurations is not deleted.

use patchbay_plugin::catalogue::{Platform, PlatformService, ServiceConfiguration};
use uuid::Uuid;

use super::rows::{
    change, change_service, change_service_configuration, one, put_platform, put_service,
    put_service_configuration, service_of, taken, unused,
};
use crate::Store;
use crate::error::{StoreError, What};
use crate::session::text;

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

/// Platforms.
impl Store {
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
                for held in [&statements.hold_platform, &statements.hold_services] {
                    session.query(held, vec![id.into()]).await?;
                }
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
                let held = &statements.hold_service;
                session.query(held, vec![id.into()]).await?;
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
