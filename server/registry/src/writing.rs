//! Creating, changing and deleting configurations: a write that meets a change under it is made again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use patchbay_plugin::Map;
use patchbay_plugin::configuration::Configuration;
use patchbay_store::StoreError;
use serde_json::Value;
use uuid::Uuid;

use crate::admission::{takes_none, taking};
use crate::generation::{ActivePlugin, Entry, Generation};
use crate::wire::ConfigurationView;
use crate::{Registry, RequestError};

/// How often a write is made again when its plugin's migration head moved under it.
const ATTEMPTS: u32 = 4;
/// How long a write waits for the generation that follows a migration.
const NEXT_GENERATION: Duration = Duration::from_secs(2);

/// What a client wants written. `if_match` is the revision that it saw.
#[derive(Clone, Copy)]
enum Write<'a> {
    /// A new configuration of a plugin.
    Create { plugin: &'a str },
    /// Another body for a stored one.
    Replace { id: Uuid, if_match: Option<i64> },
    /// Some keys of a stored one.
    Patch { id: Uuid, if_match: Option<i64> },
}

/// Why one attempt at a write did not succeed.
enum Attempt {
    /// The plugin's table moved on; the current generation is the right one to try again with.
    Again,
    /// The plugin is older than its table, as it has just turned out: the newer one may be on its way.
    Older(String),
    /// Somebody else wrote in between; the same generation will do.
    Raced,
    /// It cannot succeed.
    Failed(RequestError),
}

impl From<RequestError> for Attempt {
    fn from(error: RequestError) -> Self {
        Attempt::Failed(error)
    }
}

impl From<StoreError> for Attempt {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::HeadMoved => Attempt::Again,
            error => Attempt::Failed(error.into()),
        }
    }
}

impl Registry {
    /// Stores a new configuration of a plugin.
    ///
    /// # Errors
    /// `NotFound` for an unknown plugin, data product, platform or service; `Conflict` when the plugin takes none, does
    /// not fit the service or the name is taken; `Invalid` for the content.
    pub async fn create(
        &self,
        plugin: &str,
        body: Value,
        by: &str,
    ) -> Result<ConfigurationView, RequestError> {
        self.write(Write::Create { plugin }, &body, by).await
    }

    /// Replaces a configuration. `if_match` is the revision that the client saw.
    ///
    /// # Errors
    /// `NotFound`; `Stale` when it has another revision than `if_match`; `Conflict` when its plugin does not serve, the service
    /// does not fit or the name is taken; `Invalid` for the content; `ReadOnly` while the plugin is older than its table;
    /// `Unavailable` when the table that its plugin wants does not come in time; what a hook's failure is.
    pub async fn replace(
        &self,
        id: Uuid,
        body: Value,
        if_match: Option<i64>,
        by: &str,
    ) -> Result<ConfigurationView, RequestError> {
        self.write(Write::Replace { id, if_match }, &body, by).await
    }

    /// Changes what the body names and leaves the rest. Without `if_match` a concurrent change is merged over.
    ///
    /// # Errors
    /// As [`replace`](Registry::replace).
    pub async fn patch(
        &self,
        id: Uuid,
        body: Value,
        if_match: Option<i64>,
        by: &str,
    ) -> Result<ConfigurationView, RequestError> {
        self.write(Write::Patch { id, if_match }, &body, by).await
    }

    /// Deletes a configuration; its history stays.
    ///
    /// # Errors
    /// `NotFound`; `Stale` when it has another revision than `if_match`; `Unavailable` or `Internal` for the database's.
    pub async fn delete(
        &self,
        id: Uuid,
        if_match: Option<i64>,
        by: &str,
    ) -> Result<(), RequestError> {
        Ok(self.store().delete_configuration(id, if_match, by).await?)
    }

    /// Makes a write, and makes it again where the next attempt may succeed.
    async fn write(
        &self,
        write: Write<'_>,
        body: &Value,
        by: &str,
    ) -> Result<ConfigurationView, RequestError> {
        let mut attempts = Attempts {
            registry: self,
            swapped: self.inner.swapped.subscribe(),
            tried: None,
            left: ATTEMPTS,
            older: None,
        };
        loop {
            let generation = attempts.next().await?;
            let attempt = match write {
                Write::Create { plugin } => self.create_on(&generation, plugin, body, by).await,
                Write::Replace { id, if_match } => {
                    self.replace_on(&generation, id, body, if_match, by).await
                }
                Write::Patch { id, if_match } => {
                    self.patch_on(&generation, id, body, if_match, by).await
                }
            };
            match attempt {
                Ok(view) => return Ok(view),
                Err(Attempt::Failed(error)) => return Err(error),
                Err(Attempt::Again) => {}
                Err(Attempt::Older(reason)) => attempts.older = Some(reason),
                Err(Attempt::Raced) => attempts.tried = None,
            }
        }
    }

    async fn create_on(
        &self,
        generation: &Generation,
        plugin: &str,
        body: &Value,
        by: &str,
    ) -> Result<ConfigurationView, Attempt> {
        let entry = taking(generation, plugin)?;
        refuse_drifted(entry)?;
        writable(&entry.active)?;
        let (draft, product) = self.draft(entry, body).await?;
        let Some(table) = &entry.active.table else {
            return Err(takes_none(plugin).into());
        };
        let stored = self.store().create_configuration(table, draft, by).await?;
        Ok(self.one_view(generation, stored, Some(product)).await?)
    }

    async fn replace_on(
        &self,
        generation: &Generation,
        id: Uuid,
        body: &Value,
        if_match: Option<i64>,
        by: &str,
    ) -> Result<ConfigurationView, Attempt> {
        let stored = self.stored(id).await?;
        self.write_over(generation, stored, body, if_match, by)
            .await
    }

    async fn patch_on(
        &self,
        generation: &Generation,
        id: Uuid,
        body: &Value,
        if_match: Option<i64>,
        by: &str,
    ) -> Result<ConfigurationView, Attempt> {
        let stored = self.stored(id).await?;
        if if_match.is_some_and(|revision| revision != stored.revision) {
            let stale = StoreError::Stale {
                current: stored.revision,
            };
            return Err(stale.into());
        }
        let merged = merged_body(&stored, body);
        let seen = stored.revision;
        match self
            .write_over(generation, stored, &merged, Some(seen), by)
            .await
        {
            // Somebody wrote in between; without a condition of the client's the change applies to what is there now.
            Err(Attempt::Failed(RequestError::Stale(_))) if if_match.is_none() => {
                Err(Attempt::Raced)
            }
            other => other,
        }
    }

    async fn write_over(
        &self,
        generation: &Generation,
        stored: Configuration,
        body: &Value,
        if_match: Option<i64>,
        by: &str,
    ) -> Result<ConfigurationView, Attempt> {
        let entry = generation.entry(&stored.plugin).ok_or_else(|| {
            RequestError::Conflict(format!(
                "Plugin '{}' is not active, so its configurations cannot be changed; GET /api/v2/plugins/status says why",
                stored.plugin
            ))
        })?;
        refuse_drifted(entry)?;
        writable(&entry.active)?;
        let (draft, product) = self.draft(entry, body).await?;
        let Some(table) = &entry.active.table else {
            return Err(takes_none(&stored.plugin).into());
        };
        let written = self
            .store()
            .update_configuration(table, stored.id, if_match, draft, by)
            .await?;
        Ok(self.one_view(generation, written, Some(product)).await?)
    }
}

/// Refuses to write into a table that something else has changed: what the plugin counts on may not be there.
fn refuse_drifted(entry: &Entry) -> Result<(), RequestError> {
    match &entry.drift {
        Some(drift) => Err(RequestError::Conflict(drift.error.message.clone())),
        None => Ok(()),
    }
}

/// Whether a plugin takes writes. While its rows are carried over they wait. For a moment after it turned out to be older
/// than its table it is worth another try.
fn writable(active: &ActivePlugin) -> Result<(), Attempt> {
    if active.paused.load(Ordering::Acquire) {
        return Err(Attempt::Again);
    }
    let Some(read_only) = &active.read_only else {
        return Ok(());
    };
    let reason = read_only.failure.error.message.clone();
    match read_only.since.elapsed() < NEXT_GENERATION {
        true => Err(Attempt::Older(reason)),
        false => Err(RequestError::ReadOnly(reason).into()),
    }
}

/// The generations on which a write is tried.
struct Attempts<'a> {
    registry: &'a Registry,
    swapped: tokio::sync::watch::Receiver<u64>,
    tried: Option<u64>,
    left: u32,
    /// Why the last attempt did not succeed, when that was because the plugin is older than its table.
    older: Option<String>,
}

impl Attempts<'_> {
    /// The generation for the next attempt. After the first it waits for a newer one; when none comes, or the attempts
    /// are used up, the write has to be made again later.
    async fn next(&mut self) -> Result<Arc<Generation>, RequestError> {
        if let Some(reason) = self.older.take_if(|_| self.left == 0) {
            return Err(RequestError::ReadOnly(reason));
        }
        if self.left == 0 {
            return Err(RequestError::Unavailable(
                "the plugin's table is not the one that the version which serves wants".to_owned(),
            ));
        }
        self.left -= 1;
        if let Some(tried) = self.tried {
            let newer = self.swapped.wait_for(|current| *current != tried);
            // When no swap comes, the attempt itself tells.
            let _ = tokio::time::timeout(NEXT_GENERATION / ATTEMPTS, newer).await;
        }
        let generation = self.registry.current();
        self.tried = Some(generation.number);
        Ok(generation)
    }
}

/// The body that a PUT would need to do what a PATCH says. What is no object is left for the reader to refuse.
fn merged_body(stored: &Configuration, patch: &Value) -> Value {
    let Value::Object(patch) = patch else {
        return patch.clone();
    };
    let mut body = Map::new();
    let id = |id: Option<Uuid>| id.map_or(Value::Null, |id| Value::String(id.to_string()));
    body.insert(
        "data_product_id".to_owned(),
        Value::String(stored.data_product_id.to_string()),
    );
    body.insert("name".to_owned(), Value::String(stored.name.clone()));
    body.insert(
        "description".to_owned(),
        stored
            .description
            .clone()
            .map_or(Value::Null, Value::String),
    );
    body.insert(
        "technical_mapping".to_owned(),
        stored.technical_mapping.as_str().into(),
    );
    body.insert("platform_id".to_owned(), id(stored.platform_id));
    body.insert("service_id".to_owned(), id(stored.service_id));
    body.insert(
        "configuration".to_owned(),
        Value::Object(stored.values.clone()),
    );
    for (key, value) in patch {
        match (body.get_mut(key), value) {
            (Some(Value::Object(configuration)), Value::Object(changes))
                if key == "configuration" =>
            {
                configuration.extend(
                    changes
                        .iter()
                        .map(|(key, value)| (key.clone(), value.clone())),
                );
            }
            _ => {
                body.insert(key.clone(), value.clone());
            }
        }
    }
    Value::Object(body)
}
