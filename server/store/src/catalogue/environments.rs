//! Writing environments and what platforms and services are in them, one thing at a time.

use patchbay_plugin::catalogue::{Environment, EnvironmentConfiguration};
use patchbay_plugin::secret::{keep_secrets, with_blank_secrets};
use serde_json::Value as Json;
use uuid::Uuid;

use super::rows::{
    change, change_environment, change_environment_configuration, check_shape, one,
    put_environment, put_environment_configuration, service_of,
};
use crate::Store;
use crate::error::{StoreError, What};

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
    /// [`StoreError::Invalid`] when the value is of the wrong shape; [`StoreError::Unkept`] when an identifier stands
    /// twice; those of an unavailable database.
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
            config: keep_secrets(&draft.config, None)?,
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
    /// [`StoreError::NotFound`]; [`StoreError::Invalid`] when the value is of the wrong shape; [`StoreError::Unkept`] when
    /// a secret would be lost or given to another entry; those of an unavailable database.
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
                stored.config =
                    keep_secrets(&config, Some(&stored.config)).map_err(StoreError::from)?;
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
