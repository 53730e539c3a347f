//! The catalogue as it goes over the wire: what a thing refers to is nested in it, as in the origin.

use patchbay_plugin::catalogue::{
    Catalogue, Environment, EnvironmentConfiguration, Platform, PlatformService,
    ServiceConfiguration,
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

/// A platform.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Platform)]
pub(crate) struct PlatformView {
    id: Uuid,
    /// Unique.
    name: String,
}

/// All platforms.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Platforms {
    platforms: Vec<PlatformView>,
}

/// A service of a platform.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PlatformService)]
pub(crate) struct ServiceView {
    id: Uuid,
    /// Unique in the platform; in lower case it is the platform key of the plugins it belongs to.
    name: String,
    platform: PlatformView,
    /// The template of an access path.
    result_string_template: String,
    /// The template of the technical info of one environment.
    technical_info_template: String,
}

/// The services of a platform.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlatformServices {
    platform_services: Vec<ServiceView>,
}

/// The options of a platform service.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PlatformServiceConfiguration)]
pub(crate) struct ServiceConfigurationView {
    id: Uuid,
    platform: PlatformView,
    service: ServiceView,
    /// The options, in order.
    config: Vec<String>,
}

/// The options of every platform service that has some.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlatformServiceConfigurations {
    platform_service_configurations: Vec<ServiceConfigurationView>,
}

/// An environment.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Environment)]
pub(crate) struct EnvironmentView {
    id: Uuid,
    /// Unique.
    name: String,
    /// A short name, as in `prd`.
    acronym: String,
    /// What identifies it on the platform.
    context: String,
    /// Whether it is the default; at most one is.
    is_default: bool,
}

/// All environments.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Environments {
    environments: Vec<EnvironmentView>,
}

/// What a platform or a service is in an environment.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EnvironmentConfiguration)]
pub(crate) struct EnvironmentConfigurationView {
    id: Uuid,
    environment: EnvironmentView,
    platform: PlatformView,
    /// Left out when it is the platform's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<ServiceView>,
    /// An object for a platform; a list of entries for a service. Secrets are `""`.
    config: Value,
}

/// What services are in environments.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EnvironmentConfigs {
    environment_configs: Vec<EnvironmentConfigurationView>,
}

impl From<&Platform> for PlatformView {
    fn from(platform: &Platform) -> Self {
        Self {
            id: platform.id,
            name: platform.name.clone(),
        }
    }
}

impl From<&Environment> for EnvironmentView {
    fn from(environment: &Environment) -> Self {
        Self {
            id: environment.id,
            name: environment.name.clone(),
            acronym: environment.acronym.clone(),
            context: environment.context.clone(),
            is_default: environment.is_default,
        }
    }
}

/// Builds views from one state of the catalogue. A row whose platform, service or environment is not in it gives none:
/// within one state that cannot be, and for a row that was just written it means that it is gone again.
pub(crate) struct Views<'a>(pub(crate) &'a Catalogue);

impl Views<'_> {
    /// All platforms.
    pub(crate) fn platforms(&self) -> Platforms {
        Platforms {
            platforms: self.0.platforms.iter().map(PlatformView::from).collect(),
        }
    }

    /// A platform by its id.
    pub(crate) fn platform(&self, id: Uuid) -> Option<PlatformView> {
        self.0
            .platforms
            .iter()
            .find(|platform| platform.id == id)
            .map(PlatformView::from)
    }

    /// The services of a platform.
    pub(crate) fn services(&self, platform_id: Uuid) -> PlatformServices {
        let services = self.0.services.iter();
        PlatformServices {
            platform_services: services
                .filter(|service| service.platform_id == platform_id)
                .filter_map(|service| self.service(service))
                .collect(),
        }
    }

    /// A service.
    pub(crate) fn service(&self, service: &PlatformService) -> Option<ServiceView> {
        Some(ServiceView {
            id: service.id,
            name: service.name.clone(),
            platform: self.platform(service.platform_id)?,
            result_string_template: service.result_string_template.clone(),
            technical_info_template: service.technical_info_template.clone(),
        })
    }

    fn service_by_id(&self, id: Uuid) -> Option<ServiceView> {
        let service = self.0.services.iter().find(|service| service.id == id)?;
        self.service(service)
    }

    /// The options of every service that has some.
    pub(crate) fn service_configurations(&self) -> PlatformServiceConfigurations {
        let configurations = self.0.service_configurations.iter();
        PlatformServiceConfigurations {
            platform_service_configurations: configurations
                .filter_map(|configuration| self.service_configuration(configuration))
                .collect(),
        }
    }

    /// The options of a service.
    pub(crate) fn service_configuration(
        &self,
        configuration: &ServiceConfiguration,
    ) -> Option<ServiceConfigurationView> {
        Some(ServiceConfigurationView {
            id: configuration.id,
            platform: self.platform(configuration.platform_id)?,
            service: self.service_by_id(configuration.service_id)?,
            config: configuration.config.clone(),
        })
    }

    /// All environments.
    pub(crate) fn environments(&self) -> Environments {
        let environments = self.0.environments.iter();
        Environments {
            environments: environments.map(EnvironmentView::from).collect(),
        }
    }

    /// An environment by its id.
    pub(crate) fn environment(&self, id: Uuid) -> Option<EnvironmentView> {
        self.0
            .environments
            .iter()
            .find(|environment| environment.id == id)
            .map(EnvironmentView::from)
    }

    /// What services are in environments, of those rows that `wanted` takes. Rows of platforms are left out: clients of
    /// the origin read a service in each.
    pub(crate) fn environment_configurations(
        &self,
        wanted: impl Fn(&EnvironmentConfiguration) -> bool,
    ) -> EnvironmentConfigs {
        let configurations = self.0.environment_configurations.iter();
        EnvironmentConfigs {
            environment_configs: configurations
                .filter(|configuration| configuration.service_id.is_some() && wanted(configuration))
                .filter_map(|configuration| self.environment_configuration(configuration))
                .collect(),
        }
    }

    /// What a platform or a service is in an environment.
    pub(crate) fn environment_configuration(
        &self,
        configuration: &EnvironmentConfiguration,
    ) -> Option<EnvironmentConfigurationView> {
        let service = match configuration.service_id {
            Some(id) => Some(self.service_by_id(id)?),
            None => None,
        };
        Some(EnvironmentConfigurationView {
            id: configuration.id,
            environment: self.environment(configuration.environment_id)?,
            platform: self.platform(configuration.platform_id)?,
            service,
            config: configuration.config.clone(),
        })
    }
}
