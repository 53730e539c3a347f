//! Writing configurations. Whatever can be made before the transaction is made before it, because on SQLite all writes
//! of the server share one thread.

use patchbay_plugin::Map;
use patchbay_plugin::configuration::{Action, Configuration, ConfigurationDraft, changes};
use sea_query::Value;
use serde_json::Value as Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::read::one_for_change;
use super::{Statements, described, folded};
use crate::Store;
use crate::engine::Frame;
use crate::error::{Fault, StoreError, What};
use crate::plugin::{PluginTable, check_head};
use crate::session::{Session, Values, json, text};
use crate::shape::Shape;
use crate::shared::Touched;
use crate::time_text::now;

/// The values that both an insert and an update set, from the version to the service.
fn described_values(configuration: &Configuration) -> [Value; 8] {
    [
        text(&configuration.plugin_version),
        text(&configuration.name),
        text(folded(&configuration.name)),
        Value::String(configuration.description.clone()),
        configuration.data_product_id.into(),
        text(configuration.technical_mapping.as_str()),
        configuration.platform_id.into(),
        configuration.service_id.into(),
    ]
}

fn revision_values(
    configuration: &Configuration,
    action: Action,
    by: &str,
    at: OffsetDateTime,
    changes: Map,
) -> Values {
    vec![
        configuration.id.into(),
        configuration.revision.into(),
        text(action.as_str()),
        text(&configuration.plugin),
        text(&configuration.plugin_version),
        text(by),
        at.into(),
        json(Json::Object(changes)),
    ]
}

/// Says what a fault of writing the base row means.
async fn refused(
    session: &mut Session,
    statements: &Statements,
    configuration: &Configuration,
    fault: Fault,
) -> StoreError {
    match fault {
        Fault::Unique(_) => StoreError::Duplicate {
            what: What::Configuration,
            key: "name",
            value: configuration.name.clone(),
        },
        Fault::Reference => match missing(session, statements, configuration).await {
            Ok(Some(what)) => StoreError::NotFound(what),
            Ok(None) => StoreError::Internal("a reference of no known kind".to_owned()),
            Err(fault) => fault.into(),
        },
        other => other.into(),
    }
}

/// Which of the things that a configuration refers to is not there.
async fn missing(
    session: &mut Session,
    statements: &Statements,
    configuration: &Configuration,
) -> Result<Option<What>, Fault> {
    let references = [
        (
            &statements.product,
            Some(configuration.data_product_id),
            What::DataProduct,
        ),
        (
            &statements.platform,
            configuration.platform_id,
            What::Platform,
        ),
        (&statements.service, configuration.service_id, What::Service),
    ];
    for (statement, id, what) in references {
        if let Some(id) = id
            && session
                .query_one(statement, vec![id.into()])
                .await?
                .is_none()
        {
            return Ok(Some(what));
        }
    }
    Ok(None)
}

/// Says what a fault of writing the plugin's row means. Its table was made by the steps that the head names, so a
/// statement that does not fit it is a mistake of ours.
fn row_refused(fault: Fault) -> StoreError {
    match fault {
        Fault::Unique(columns) => StoreError::Conflict(format!(
            "another configuration has the same {columns} already"
        )),
        other => other.into(),
    }
}

fn row_values(shape: &Shape, values: &Map) -> Result<Values, StoreError> {
    shape.cells(values).collect()
}

impl Store {
    /// Stores a new configuration with its first revision. The draft's values have been checked.
    ///
    /// # Errors
    /// [`StoreError::HeadMoved`]; [`StoreError::NotFound`] for the data product, platform or service;
    /// [`StoreError::Duplicate`] when the data product has one of that name; [`StoreError::Conflict`] when a unique
    /// index of the plugin forbids it; [`StoreError::Invalid`] for a value that cannot be stored; those of an
    /// unavailable database.
    pub async fn create_configuration(
        &self,
        table: &PluginTable,
        draft: ConfigurationDraft,
        by: &str,
    ) -> Result<Configuration, StoreError> {
        let shape = table.shape()?;
        let at = now();
        let configuration = Configuration {
            id: Uuid::now_v7(),
            plugin: table.plugin().as_str().to_owned(),
            plugin_version: table.version().to_owned(),
            values: shape.canonical(&draft.values),
            name: draft.name,
            description: draft.description,
            data_product_id: draft.data_product_id,
            technical_mapping: draft.technical_mapping,
            platform_id: draft.platform_id,
            service_id: draft.service_id,
            revision: 1,
            created_at: at,
            updated_at: at,
        };
        let mut base = vec![configuration.id.into(), text(&configuration.plugin)];
        base.extend(described_values(&configuration));
        base.extend([configuration.revision.into(), at.into(), at.into()]);
        let mut row = vec![configuration.id.into()];
        row.extend(row_values(shape, &configuration.values)?);
        let changes = changes(None, Some(&described(&configuration)));
        let revision = revision_values(&configuration, Action::Create, by, at, changes);

        let (statements, table) = (self.statements(), table.clone());
        let touched = |created: &Configuration| Touched::Rows(created.plugin.clone());
        self.write(Frame::Group, touched, move |session| {
            Box::pin(async move {
                let own = &statements.configurations;
                check_head(session, &statements.plugins, &table).await?;
                if let Err(fault) = session.execute(&own.insert, base).await {
                    return Err(refused(session, own, &configuration, fault).await);
                }
                session
                    .execute(table.shape()?.insert(), row)
                    .await
                    .map_err(row_refused)?;
                session.execute(&own.add_revision, revision).await?;
                Ok(configuration)
            })
        })
        .await
    }

    /// Replaces a configuration. What changes nothing writes nothing, and gives the configuration as it is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Stale`] when it is not at the expected revision;
    /// [`StoreError::Conflict`] when it belongs to another plugin; otherwise as
    /// [`create_configuration`](Store::create_configuration).
    pub async fn update_configuration(
        &self,
        table: &PluginTable,
        id: Uuid,
        expected_revision: Option<i64>,
        draft: ConfigurationDraft,
        by: &str,
    ) -> Result<Configuration, StoreError> {
        let values = table.shape()?.canonical(&draft.values);
        let row = row_values(table.shape()?, &values)?;
        let (statements, table, by) = (self.statements(), table.clone(), by.to_owned());
        let shapes = self.shapes();
        let touched = |(after, wrote): &(Configuration, bool)| match wrote {
            true => Touched::Rows(after.plugin.clone()),
            false => Touched::Nothing,
        };
        let work = self.write(Frame::Group, touched, move |session| {
            Box::pin(async move {
                let own = &statements.configurations;
                check_head(session, &statements.plugins, &table).await?;
                let before = one_for_change(session, &statements, &shapes, id)
                    .await?
                    .ok_or(StoreError::NotFound(What::Configuration))?;
                check_revision(&before, expected_revision)?;
                if before.plugin != table.plugin().as_str() {
                    return Err(StoreError::Conflict(format!(
                        "the configuration belongs to the plugin {}",
                        before.plugin
                    )));
                }
                let at = now();
                let after = Configuration {
                    plugin_version: table.version().to_owned(),
                    name: draft.name,
                    description: draft.description,
                    data_product_id: draft.data_product_id,
                    technical_mapping: draft.technical_mapping,
                    platform_id: draft.platform_id,
                    service_id: draft.service_id,
                    revision: before.revision + 1,
                    values,
                    updated_at: at,
                    ..before.clone()
                };
                let changes = changes(Some(&described(&before)), Some(&described(&after)));
                if changes.is_empty() && after.plugin_version == before.plugin_version {
                    return Ok((before, false));
                }
                let mut base = Vec::from(described_values(&after));
                base.extend([after.revision.into(), at.into(), id.into()]);
                if let Err(fault) = session.execute(&own.update, base).await {
                    return Err(refused(session, own, &after, fault).await);
                }
                write_row(session, table.shape()?, id, row).await?;
                let revision = revision_values(&after, Action::Update, &by, at, changes);
                session.execute(&own.add_revision, revision).await?;
                Ok((after, true))
            })
        });
        work.await.map(|(after, _)| after)
    }

    /// Deletes a configuration, of whatever plugin. Its history stays, and ends with what it was.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Stale`] when it is not at the expected revision; those of an unavailable
    /// database.
    pub async fn delete_configuration(
        &self,
        id: Uuid,
        expected_revision: Option<i64>,
        by: &str,
    ) -> Result<(), StoreError> {
        let (statements, shapes, by) = (self.statements(), self.shapes(), by.to_owned());
        let touched = |deleted: &Configuration| Touched::Rows(deleted.plugin.clone());
        let work = self.write(Frame::Group, touched, move |session| {
            Box::pin(async move {
                let own = &statements.configurations;
                let mut before = one_for_change(session, &statements, &shapes, id)
                    .await?
                    .ok_or(StoreError::NotFound(What::Configuration))?;
                check_revision(&before, expected_revision)?;
                let changes = changes(Some(&described(&before)), None);
                before.revision += 1;
                let revision = revision_values(&before, Action::Delete, &by, now(), changes);
                session.execute(&own.add_revision, revision).await?;
                session.execute(&own.delete, vec![id.into()]).await?;
                Ok(before)
            })
        });
        work.await.map(|_| ())
    }
}

fn check_revision(found: &Configuration, expected: Option<i64>) -> Result<(), StoreError> {
    match expected {
        Some(expected) if expected != found.revision => Err(StoreError::Stale {
            current: found.revision,
        }),
        _ => Ok(()),
    }
}

/// Writes the plugin's row of a configuration that exists; one that was lost is made anew.
async fn write_row(
    session: &mut Session,
    shape: &Shape,
    id: Uuid,
    cells: Values,
) -> Result<(), StoreError> {
    let mut values = cells.clone();
    values.push(id.into());
    let changed = session
        .execute(shape.update(), values)
        .await
        .map_err(row_refused)?;
    if changed == 0 {
        let mut values = vec![id.into()];
        values.extend(cells);
        session
            .execute(shape.insert(), values)
            .await
            .map_err(row_refused)?;
    }
    Ok(())
}
