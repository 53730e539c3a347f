//! Applying a catalogue file: what would change is found first, as data that can be shown, and then written in one
//! transaction. Things are found by name; nothing is ever deleted.

use patchbay_plugin::catalogue::{
    Catalogue, CatalogueFile, Environment, EnvironmentConfiguration, EnvironmentEntry, Platform,
    PlatformService, ServiceConfiguration, ServiceEntry,
};
use patchbay_plugin::secret::keep_secrets;
use serde_json::Value as Json;
use uuid::Uuid;

use super::change::CatalogueChange;
use super::rows::{
    change_environment, change_environment_configuration, change_service,
    change_service_configuration, check_shape, put_environment, put_environment_configuration,
    put_platform, put_service, put_service_configuration,
};
use super::{Statements, load};
use crate::Store;
use crate::engine::{Frame, View};
use crate::error::StoreError;
use crate::session::{Lock, Session};
use crate::shared::Touched;

/// How a change is written.
enum Step {
    PutPlatform(Platform),
    PutService(PlatformService),
    ChangeService(PlatformService),
    PutOptions(ServiceConfiguration),
    ChangeOptions(ServiceConfiguration),
    PutEnvironment(Environment),
    ChangeEnvironment(Environment),
    PutEnvironmentConfiguration(EnvironmentConfiguration),
    ChangeEnvironmentConfiguration(EnvironmentConfiguration),
}

/// What was found so far. `catalogue` is what it will be, so that later entries find what earlier ones add.
struct Planner {
    catalogue: Catalogue,
    found: Vec<(CatalogueChange, Step)>,
}

fn plan(
    file: &CatalogueFile,
    stored: Catalogue,
) -> Result<Vec<(CatalogueChange, Step)>, StoreError> {
    let mut planner = Planner {
        catalogue: stored,
        found: Vec::new(),
    };
    once("platform", file.platforms.iter().map(|entry| &entry.name))?;
    once(
        "environment",
        file.environments.iter().map(|entry| &entry.name),
    )?;
    let defaults = file.environments.iter().filter(|entry| entry.is_default);
    if defaults.count() > 1 {
        return Err(StoreError::Invalid(
            "more than one environment of the file is the default".to_owned(),
        ));
    }
    for entry in &file.platforms {
        let platform = planner.platform(&entry.name);
        let names = entry.services.iter().map(|service| &service.name);
        once(&format!("service of {}", entry.name), names)?;
        for service in &entry.services {
            planner.service(&platform, service);
        }
    }
    for entry in &file.environments {
        planner.environment(entry)?;
    }
    Ok(planner.found)
}

fn once<'a>(what: &str, names: impl Iterator<Item = &'a String>) -> Result<(), StoreError> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(StoreError::Invalid(format!(
                "the {what} {name} is in the file twice"
            )));
        }
    }
    Ok(())
}

impl Planner {
    fn platform(&mut self, name: &str) -> Platform {
        let known = self
            .catalogue
            .platforms
            .iter()
            .find(|platform| platform.name == name);
        if let Some(platform) = known {
            return platform.clone();
        }
        let platform = Platform {
            id: Uuid::now_v7(),
            name: name.to_owned(),
        };
        self.catalogue.platforms.push(platform.clone());
        self.found.push((
            CatalogueChange::AddPlatform {
                platform: name.to_owned(),
            },
            Step::PutPlatform(platform.clone()),
        ));
        platform
    }

    fn service(&mut self, platform: &Platform, entry: &ServiceEntry) {
        let technical_info = entry
            .technical_info_template
            .as_ref()
            .unwrap_or(&entry.result_string_template);
        let names = (platform.name.clone(), entry.name.clone());
        let known = self
            .catalogue
            .services
            .iter()
            .find(|service| service.platform_id == platform.id && service.name == entry.name);
        let wanted = PlatformService {
            id: known.map_or_else(Uuid::now_v7, |service| service.id),
            platform_id: platform.id,
            name: entry.name.clone(),
            result_string_template: entry.result_string_template.clone(),
            technical_info_template: technical_info.clone(),
        };
        match known {
            None => {
                self.catalogue.services.push(wanted.clone());
                let (platform, service) = names.clone();
                self.found.push((
                    CatalogueChange::AddService { platform, service },
                    Step::PutService(wanted.clone()),
                ));
            }
            Some(known) if *known != wanted => {
                let what = differing(&[
                    (
                        "result_string_template",
                        known.result_string_template != wanted.result_string_template,
                    ),
                    (
                        "technical_info_template",
                        known.technical_info_template != wanted.technical_info_template,
                    ),
                ]);
                let (platform, service) = names.clone();
                self.found.push((
                    CatalogueChange::ChangeService {
                        platform,
                        service,
                        what,
                    },
                    Step::ChangeService(wanted.clone()),
                ));
            }
            Some(_) => {}
        }
        if let Some(options) = &entry.options {
            self.options(&wanted, names, options);
        }
    }

    fn options(&mut self, service: &PlatformService, names: (String, String), options: &[String]) {
        let known = self
            .catalogue
            .service_configurations
            .iter()
            .find(|configuration| configuration.service_id == service.id);
        if known.is_some_and(|known| known.config == options) {
            return;
        }
        let configuration = ServiceConfiguration {
            id: known.map_or_else(Uuid::now_v7, |known| known.id),
            platform_id: service.platform_id,
            service_id: service.id,
            config: options.to_vec(),
        };
        let from = known.map(|known| known.config.clone());
        let step = match from {
            None => Step::PutOptions(configuration),
            Some(_) => Step::ChangeOptions(configuration),
        };
        let (platform, service) = names;
        self.found.push((
            CatalogueChange::SetOptions {
                platform,
                service,
                from,
                to: options.to_vec(),
            },
            step,
        ));
    }

    fn environment(&mut self, entry: &EnvironmentEntry) -> Result<(), StoreError> {
        let known = self.catalogue.environment(&entry.name);
        let wanted = Environment {
            id: known.map_or_else(Uuid::now_v7, |known| known.id),
            name: entry.name.clone(),
            acronym: entry.acronym.clone(),
            context: entry.context.clone(),
            is_default: entry.is_default,
        };
        match known {
            None => self.found.push((
                CatalogueChange::AddEnvironment {
                    environment: entry.name.clone(),
                },
                Step::PutEnvironment(wanted.clone()),
            )),
            Some(known) if *known != wanted => {
                let what = differing(&[
                    ("acronym", known.acronym != wanted.acronym),
                    ("context", known.context != wanted.context),
                    ("is_default", known.is_default != wanted.is_default),
                ]);
                self.found.push((
                    CatalogueChange::ChangeEnvironment {
                        environment: entry.name.clone(),
                        what,
                    },
                    Step::ChangeEnvironment(wanted.clone()),
                ));
            }
            Some(_) => {}
        }
        for (platform, config) in &entry.platforms {
            self.environment_configuration(&wanted, platform, None, config)?;
        }
        for (platform, services) in &entry.services {
            for (service, entries) in services {
                let config = Json::Array(entries.clone());
                self.environment_configuration(&wanted, platform, Some(service), &config)?;
            }
        }
        Ok(())
    }

    fn environment_configuration(
        &mut self,
        environment: &Environment,
        platform_name: &str,
        service_name: Option<&str>,
        config: &Json,
    ) -> Result<(), StoreError> {
        let lacks = |what: String| {
            StoreError::Invalid(format!(
                "the environment {} names {what}, which is neither in the file nor in the catalogue",
                environment.name
            ))
        };
        let platform_id = self
            .catalogue
            .platforms
            .iter()
            .find(|platform| platform.name == platform_name)
            .ok_or_else(|| lacks(format!("the platform {platform_name}")))?
            .id;
        let service_id = match service_name {
            None => None,
            Some(name) => Some(
                self.catalogue
                    .services
                    .iter()
                    .find(|service| service.platform_id == platform_id && service.name == name)
                    .ok_or_else(|| lacks(format!("the service {platform_name} / {name}")))?
                    .id,
            ),
        };
        check_shape(service_id.is_some(), config)?;
        let known = self
            .catalogue
            .environment_configurations
            .iter()
            .find(|known| {
                known.environment_id == environment.id
                    && known.platform_id == platform_id
                    && known.service_id == service_id
            });
        let merged = keep_secrets(config, known.map(|known| &known.config))?;
        if known.is_some_and(|known| known.config == merged) {
            return Ok(());
        }
        let configuration = EnvironmentConfiguration {
            id: known.map_or_else(Uuid::now_v7, |known| known.id),
            environment_id: environment.id,
            platform_id,
            service_id,
            config: merged,
        };
        let new = known.is_none();
        let step = match new {
            true => Step::PutEnvironmentConfiguration(configuration),
            false => Step::ChangeEnvironmentConfiguration(configuration),
        };
        self.found.push((
            CatalogueChange::SetEnvironmentConfiguration {
                environment: environment.name.clone(),
                platform: platform_name.to_owned(),
                service: service_name.map(str::to_owned),
                new,
            },
            step,
        ));
        Ok(())
    }
}

fn differing(values: &[(&'static str, bool)]) -> Vec<&'static str> {
    values
        .iter()
        .filter(|(_, differs)| *differs)
        .map(|(name, _)| *name)
        .collect()
}

async fn write(
    session: &mut Session,
    statements: &Statements,
    step: &Step,
) -> Result<(), StoreError> {
    match step {
        Step::PutPlatform(platform) => put_platform(session, statements, platform).await,
        Step::PutService(service) => put_service(session, statements, service).await,
        Step::ChangeService(service) => change_service(session, statements, service).await,
        Step::PutOptions(options) => put_service_configuration(session, statements, options).await,
        Step::ChangeOptions(options) => {
            change_service_configuration(session, statements, options.id, &options.config).await
        }
        Step::PutEnvironment(environment) => {
            put_environment(session, statements, environment).await
        }
        Step::ChangeEnvironment(environment) => {
            change_environment(session, statements, environment).await
        }
        Step::PutEnvironmentConfiguration(configuration) => {
            put_environment_configuration(session, statements, configuration).await
        }
        Step::ChangeEnvironmentConfiguration(configuration) => {
            let (id, config) = (configuration.id, &configuration.config);
            change_environment_configuration(session, statements, id, config).await
        }
    }
}

impl Store {
    /// What applying the file would do, in order.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a file that names what is nowhere, or names something twice; those of an
    /// unavailable database.
    pub async fn plan_catalogue(
        &self,
        file: &CatalogueFile,
    ) -> Result<Vec<CatalogueChange>, StoreError> {
        let (statements, file) = (self.statements(), file.clone());
        self.read(View::State, move |session| {
            Box::pin(async move {
                let stored = load(session, &statements.catalogue).await?;
                let steps = plan(&file, stored)?;
                Ok(steps.into_iter().map(|(change, _)| change).collect())
            })
        })
        .await
    }

    /// Applies the file in one transaction, and says what that did. Things are found by name, and nothing is deleted.
    ///
    /// # Errors
    /// As [`plan_catalogue`](Store::plan_catalogue); then nothing is written.
    pub async fn apply_catalogue(
        &self,
        file: &CatalogueFile,
    ) -> Result<Vec<CatalogueChange>, StoreError> {
        self.apply_file(file.clone(), false).await
    }

    /// Applies the file when the catalogue has neither platform nor environment, else does nothing.
    ///
    /// # Errors
    /// As [`plan_catalogue`](Store::plan_catalogue); then nothing is written.
    pub async fn apply_catalogue_if_empty(
        &self,
        file: &CatalogueFile,
    ) -> Result<Vec<CatalogueChange>, StoreError> {
        if !is_empty(&self.catalogue()) {
            return Ok(Vec::new());
        }
        self.apply_file(file.clone(), true).await
    }

    async fn apply_file(
        &self,
        file: CatalogueFile,
        only_if_empty: bool,
    ) -> Result<Vec<CatalogueChange>, StoreError> {
        let statements = self.statements();
        let touched = |changes: &Vec<CatalogueChange>| match changes.is_empty() {
            true => Touched::Nothing,
            false => Touched::Catalogue,
        };
        self.write(Frame::Group, touched, move |session| {
            Box::pin(async move {
                let statements = &statements.catalogue;
                session.lock(Lock::Catalogue).await?;
                let stored = load(session, statements).await?;
                if only_if_empty && !is_empty(&stored) {
                    return Ok(Vec::new());
                }
                let mut changes = Vec::new();
                for (change, step) in plan(&file, stored)? {
                    write(session, statements, &step).await?;
                    changes.push(change);
                }
                Ok(changes)
            })
        })
        .await
    }
}

fn is_empty(catalogue: &Catalogue) -> bool {
    catalogue.platforms.is_empty() && catalogue.environments.is_empty()
}
