//! The catalogue: platforms, platform services and environments, held as one immutable snapshot with a version.
//!
//! A snapshot holds no secret: they are taken out when it is built ([`without_secrets`](crate::secret::without_secrets)), because whatever a hook or a
//! template can read can end up in an answer.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::name::PlatformKey;
use crate::secret::without_secrets;

/// Where data lives, such as AWS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Its id.
    pub id: Uuid,
    /// Its name, unique.
    pub name: String,
}

/// A service of a platform, such as Glue. It belongs to the plugin whose platform key is its name in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformService {
    /// Its id.
    pub id: Uuid,
    /// The platform it is part of.
    pub platform_id: Uuid,
    /// Its name, unique in the platform.
    pub name: String,
    /// The template of an access path.
    pub result_string_template: String,
    /// The template of the technical info of one environment.
    pub technical_info_template: String,
}

/// The options of a platform service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceConfiguration {
    /// Its id.
    pub id: Uuid,
    /// The platform.
    pub platform_id: Uuid,
    /// The service; each has at most one.
    pub service_id: Uuid,
    /// The options, in order.
    pub config: Vec<String>,
}

/// An environment, such as production.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Its id.
    pub id: Uuid,
    /// Its name, unique.
    pub name: String,
    /// A short name, as in `prd`.
    pub acronym: String,
    /// What identifies it on the platform, such as a role's ARN with `{{}}` for the namespace.
    pub context: String,
    /// Whether it is the one that is used where none is named.
    pub is_default: bool,
}

/// What a platform, or one of its services, is in one environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnvironmentConfiguration {
    /// Its id.
    pub id: Uuid,
    /// The environment.
    pub environment_id: Uuid,
    /// The platform.
    pub platform_id: Uuid,
    /// The service, or none when it is the platform's own.
    pub service_id: Option<Uuid>,
    /// An object for a platform; for a service a list of entries, each with an `identifier`.
    pub config: Value,
}

/// The whole catalogue at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Catalogue {
    /// Grows with every write.
    pub version: u64,
    /// By name.
    pub platforms: Vec<Platform>,
    /// By platform, then name.
    pub services: Vec<PlatformService>,
    /// In no order.
    pub service_configurations: Vec<ServiceConfiguration>,
    /// By name.
    pub environments: Vec<Environment>,
    /// In no order; secrets taken out.
    pub environment_configurations: Vec<EnvironmentConfiguration>,
}

impl Catalogue {
    /// The service that belongs to a platform key.
    pub fn service_of(&self, key: &PlatformKey) -> Option<&PlatformService> {
        self.services
            .iter()
            .find(|service| service.name.to_lowercase() == key.as_str())
    }

    /// Whether a service belongs to a platform key.
    pub fn fits(service: &PlatformService, key: &PlatformKey) -> bool {
        service.name.to_lowercase() == key.as_str()
    }

    /// A service by its platform and id.
    pub fn service(&self, platform_id: Uuid, service_id: Uuid) -> Option<&PlatformService> {
        self.services
            .iter()
            .find(|service| service.id == service_id && service.platform_id == platform_id)
    }

    /// The options of the service of a platform key: none when the service or its options row is missing, which makes
    /// a form `not_configured`. An empty list counts as configured.
    pub fn platform_options(&self, key: &PlatformKey) -> Option<&[String]> {
        let service = self.service_of(key)?;
        self.service_configurations
            .iter()
            .find(|configuration| configuration.service_id == service.id)
            .map(|configuration| configuration.config.as_slice())
    }

    /// An environment by its name.
    pub fn environment(&self, name: &str) -> Option<&Environment> {
        self.environments
            .iter()
            .find(|environment| environment.name == name)
    }

    /// The platform configuration of the platform to which the service of `key` belongs, or, where no service has that
    /// key, of the platform of that name.
    pub fn platform_configuration(
        &self,
        environment_id: Uuid,
        key: &PlatformKey,
    ) -> Option<&Value> {
        let platform_id = match self.service_of(key) {
            Some(service) => service.platform_id,
            None => {
                self.platforms
                    .iter()
                    .find(|platform| platform.name.to_lowercase() == key.as_str())?
                    .id
            }
        };
        self.environment_configuration(environment_id, platform_id, None)
    }

    /// The service configuration of the service of `key`.
    pub fn service_configuration(&self, environment_id: Uuid, key: &PlatformKey) -> Option<&Value> {
        let service = self.service_of(key)?;
        self.environment_configuration(environment_id, service.platform_id, Some(service.id))
    }

    /// What a platform, or one of its services, is in an environment.
    pub fn environment_configuration(
        &self,
        environment_id: Uuid,
        platform_id: Uuid,
        service_id: Option<Uuid>,
    ) -> Option<&Value> {
        self.environment_configurations
            .iter()
            .find(|configuration| {
                configuration.environment_id == environment_id
                    && configuration.platform_id == platform_id
                    && configuration.service_id == service_id
            })
            .map(|configuration| &configuration.config)
    }
}

/// The catalogue as a file, `config/catalogue.toml`. Things refer to one another by name.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogueFile {
    /// The platforms.
    #[serde(default, rename = "platform")]
    pub platforms: Vec<PlatformEntry>,
    /// The environments.
    #[serde(default, rename = "environment")]
    pub environments: Vec<EnvironmentEntry>,
}

/// A platform in the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlatformEntry {
    /// Its name.
    pub name: String,
    /// Its services.
    #[serde(default, rename = "service")]
    pub services: Vec<ServiceEntry>,
}

/// A platform service in the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceEntry {
    /// Its name.
    pub name: String,
    /// The template of an access path.
    pub result_string_template: String,
    /// The template of the technical info; the access path's when left out.
    #[serde(default)]
    pub technical_info_template: Option<String>,
    /// Its options; no row when left out.
    #[serde(default)]
    pub options: Option<Vec<String>>,
}

/// An environment in the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentEntry {
    /// Its name.
    pub name: String,
    /// Its short name.
    pub acronym: String,
    /// What identifies it on the platform.
    #[serde(default)]
    pub context: String,
    /// Whether it is the default.
    #[serde(default)]
    pub is_default: bool,
    /// Configurations by platform name.
    #[serde(default, rename = "platform")]
    pub platforms: std::collections::BTreeMap<String, Value>,
    /// Entries by platform name and service name, as in `[[environment.service.AWS.Glue]]`.
    #[serde(default, rename = "service")]
    pub services:
        std::collections::BTreeMap<String, std::collections::BTreeMap<String, Vec<Value>>>,
}

impl CatalogueFile {
    /// The catalogue that an empty database would have once these files were applied, one after the other: for checks
    /// that have no database. Ids are made up, secrets are taken out, and what names something unknown is left out.
    pub fn catalogue(files: &[CatalogueFile]) -> Catalogue {
        let mut catalogue = Catalogue {
            version: 1,
            ..Catalogue::default()
        };
        let mut ids = (1..).map(Uuid::from_u128);
        let mut next = || ids.next().unwrap_or_default();
        for entry in files.iter().flat_map(|file| &file.platforms) {
            let known = catalogue.platforms.iter().find(|it| it.name == entry.name);
            let platform_id = known.map_or_else(&mut next, |platform| platform.id);
            catalogue.platforms.retain(|it| it.id != platform_id);
            catalogue.platforms.push(Platform {
                id: platform_id,
                name: entry.name.clone(),
            });
            for service in &entry.services {
                let same =
                    |it: &PlatformService| it.platform_id == platform_id && it.name == service.name;
                let known = catalogue.services.iter().find(|it| same(it));
                let service_id = known.map_or_else(&mut next, |service| service.id);
                catalogue.services.retain(|it| it.id != service_id);
                let template = &service.result_string_template;
                catalogue.services.push(PlatformService {
                    id: service_id,
                    platform_id,
                    name: service.name.clone(),
                    result_string_template: template.clone(),
                    technical_info_template: service
                        .technical_info_template
                        .as_ref()
                        .unwrap_or(template)
                        .clone(),
                });
                if let Some(options) = &service.options {
                    let configurations = &mut catalogue.service_configurations;
                    configurations.retain(|it| it.service_id != service_id);
                    configurations.push(ServiceConfiguration {
                        id: next(),
                        platform_id,
                        service_id,
                        config: options.clone(),
                    });
                }
            }
        }
        for entry in files.iter().flat_map(|file| &file.environments) {
            let known = catalogue.environment(&entry.name);
            let environment_id = known.map_or_else(&mut next, |environment| environment.id);
            catalogue.environments.retain(|it| it.id != environment_id);
            catalogue.environments.push(Environment {
                id: environment_id,
                name: entry.name.clone(),
                acronym: entry.acronym.clone(),
                context: entry.context.clone(),
                is_default: entry.is_default,
            });
            let of_platforms = entry
                .platforms
                .iter()
                .map(|(platform, config)| (platform, None, config.clone()));
            let of_services = entry.services.iter().flat_map(|(platform, services)| {
                services.iter().map(move |(service, entries)| {
                    (platform, Some(service), Value::Array(entries.clone()))
                })
            });
            for (platform, service, config) in of_platforms.chain(of_services) {
                let platform = catalogue.platforms.iter().find(|it| it.name == *platform);
                let Some(platform_id) = platform.map(|platform| platform.id) else {
                    continue;
                };
                let service_id = match service {
                    None => None,
                    Some(name) => {
                        let mut services = catalogue.services.iter();
                        let found =
                            services.find(|it| it.platform_id == platform_id && it.name == *name);
                        let Some(found) = found else { continue };
                        Some(found.id)
                    }
                };
                let configurations = &mut catalogue.environment_configurations;
                configurations.retain(|it| {
                    (it.environment_id, it.platform_id, it.service_id)
                        != (environment_id, platform_id, service_id)
                });
                configurations.push(EnvironmentConfiguration {
                    id: next(),
                    environment_id,
                    platform_id,
                    service_id,
                    config: without_secrets(&config),
                });
            }
        }
        catalogue
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn files_make_a_catalogue_without_a_database() {
        let file = |value: Value| serde_json::from_value::<CatalogueFile>(value).expect("a file");
        let first = file(json!({
            "platform": [{ "name": "AWS", "service": [
                { "name": "S3", "result_string_template": "{bucket}", "options": ["a"] },
            ]}],
            "environment": [{
                "name": "dev", "acronym": "d",
                "platform": { "AWS": { "account": "1", "admin_pwd": "x" }, "Nowhere": {} },
                "service": { "AWS": { "S3": [{ "identifier": "a" }] } },
            }],
        }));
        let second = file(json!({ "platform": [
            { "name": "AWS", "service": [
                { "name": "S3", "result_string_template": "{bucket}/{path}", "options": ["b"] },
            ]},
            { "name": "Kafka" },
        ]}));
        let catalogue = CatalogueFile::catalogue(&[first, second]);
        let key = PlatformKey::parse("s3").expect("a key");
        assert_eq!(
            catalogue.platform_options(&key),
            Some(&["b".to_owned()][..])
        );
        let service = catalogue.service_of(&key).expect("a service");
        assert_eq!(service.technical_info_template, "{bucket}/{path}");
        assert_eq!(catalogue.platforms.len(), 2);
        let environment = catalogue.environment("dev").expect("an environment").id;
        assert_eq!(
            catalogue.platform_configuration(environment, &key),
            Some(&json!({ "account": "1" }))
        );
        assert_eq!(
            catalogue.service_configuration(environment, &key),
            Some(&json!([{ "identifier": "a" }]))
        );
    }
}
