//! The catalogue: its rows, the snapshot that everybody reads, how it is written, and how a file is applied to it.
//!
//! Secrets stay in the rows: the snapshot is built without them, and what goes out over REST has them blanked.

mod change;
mod environments;
mod file;
mod platforms;
mod rows;

use patchbay_plugin::catalogue::{
    Catalogue, Environment, EnvironmentConfiguration, Platform, PlatformService,
    ServiceConfiguration,
};
use patchbay_plugin::secret::{with_blank_secrets, without_secrets};
use sea_query::{Cond, Expr, ExprTrait, Func, Query};

pub use change::CatalogueChange;
pub use environments::{EnvironmentConfigurationDraft, EnvironmentDraft};
pub use platforms::ServiceDraft;

use crate::Store;
use crate::engine::{Frame, View, Work};
use crate::error::{Fault, StoreError};
use crate::session::{Dialect, Lock, Row, Session, Statement, place};
use crate::shared::Touched;
use crate::statements::{self, count, delete, hold, insert, select, update};

const PLATFORM: &[&str] = &["id", "name"];
const SERVICE: &[&str] = &[
    "id",
    "platform_id",
    "name",
    "result_string_template",
    "technical_info_template",
];
const SERVICE_CONFIGURATION: &[&str] = &["id", "platform_id", "service_id", "config"];
const ENVIRONMENT: &[&str] = &["id", "name", "acronym", "context", "is_default"];
const ENVIRONMENT_CONFIGURATION: &[&str] = &[
    "id",
    "environment_id",
    "platform_id",
    "service_id",
    "config",
];

/// The statements of one kind of thing.
struct Rows {
    all: Statement,
    by_id: Statement,
    insert: Statement,
    update: Statement,
    delete: Statement,
}

impl Rows {
    /// `columns` begins with the id; `written` are those that an update sets.
    fn new(
        dialect: Dialect,
        table: &'static str,
        columns: &[&'static str],
        written: &[&'static str],
    ) -> Rows {
        Rows {
            all: select(dialect, table, columns, &[]),
            by_id: select(dialect, table, columns, &["id"]),
            insert: insert(dialect, table, columns),
            update: update(dialect, table, written, &["id"]),
            delete: delete(dialect, table, &["id"]),
        }
    }
}

pub(crate) struct Statements {
    platforms: Rows,
    services: Rows,
    service_configurations: Rows,
    environments: Rows,
    environment_configurations: Rows,
    /// Takes the mark off every environment but one.
    clear_default: Statement,
    /// Holds a platform, a service, and the services of a platform.
    hold_platform: Statement,
    hold_service: Statement,
    hold_services: Statement,
    configurations_of_service: Statement,
    /// Of the platform itself and of its services.
    configurations_of_platform: Statement,
}

impl Statements {
    pub(crate) fn new(dialect: Dialect) -> Statements {
        let mut clear_default = Query::update();
        clear_default
            .table("environments")
            .value("is_default", place())
            .and_where(Expr::col("is_default").eq(place()))
            .and_where(Expr::col("id").ne(place()));
        let mut services = Query::select();
        services
            .column("id")
            .from("platform_services")
            .and_where(Expr::col("platform_id").eq(place()));
        let mut of_platform = Query::select();
        of_platform
            .expr(Func::count(Expr::col("id")))
            .from("data_output_configurations")
            .cond_where(
                Cond::any()
                    .add(Expr::col("platform_id").eq(place()))
                    .add(Expr::col("service_id").in_subquery(services)),
            );
        Statements {
            platforms: Rows::new(dialect, "platforms", PLATFORM, &["name"]),
            services: Rows::new(dialect, "platform_services", SERVICE, &SERVICE[2..]),
            service_configurations: Rows::new(
                dialect,
                "platform_service_configurations",
                SERVICE_CONFIGURATION,
                &["config"],
            ),
            environments: Rows::new(dialect, "environments", ENVIRONMENT, &ENVIRONMENT[1..]),
            environment_configurations: Rows::new(
                dialect,
                "environment_configurations",
                ENVIRONMENT_CONFIGURATION,
                &["config"],
            ),
            clear_default: Statement::new(dialect, &clear_default),
            hold_platform: hold(dialect, "platforms", &["id"]),
            hold_service: hold(dialect, "platform_services", &["id"]),
            hold_services: hold(dialect, "platform_services", &["platform_id"]),
            configurations_of_service: count(
                dialect,
                "data_output_configurations",
                &["service_id"],
            ),
            configurations_of_platform: Statement::new(dialect, &of_platform),
        }
    }
}

fn platform(row: &Row) -> Result<Platform, Fault> {
    Ok(Platform {
        id: row.uuid(0)?,
        name: row.string(1)?,
    })
}

fn service(row: &Row) -> Result<PlatformService, Fault> {
    Ok(PlatformService {
        id: row.uuid(0)?,
        platform_id: row.uuid(1)?,
        name: row.string(2)?,
        result_string_template: row.string(3)?,
        technical_info_template: row.string(4)?,
    })
}

fn service_configuration(row: &Row) -> Result<ServiceConfiguration, Fault> {
    let options = row.json(3)?;
    Ok(ServiceConfiguration {
        id: row.uuid(0)?,
        platform_id: row.uuid(1)?,
        service_id: row.uuid(2)?,
        config: serde_json::from_value(options).map_err(|_| {
            StoreError::Internal("the options of a platform service are no texts".to_owned())
        })?,
    })
}

fn environment(row: &Row) -> Result<Environment, Fault> {
    Ok(Environment {
        id: row.uuid(0)?,
        name: row.string(1)?,
        acronym: row.string(2)?,
        context: row.string(3)?,
        is_default: row.boolean(4)?,
    })
}

/// With its secrets.
fn environment_configuration(row: &Row) -> Result<EnvironmentConfiguration, Fault> {
    Ok(EnvironmentConfiguration {
        id: row.uuid(0)?,
        environment_id: row.uuid(1)?,
        platform_id: row.uuid(2)?,
        service_id: row.optional_uuid(3)?,
        config: row.json(4)?,
    })
}

async fn all<T>(
    session: &mut Session,
    statement: &Statement,
    read: fn(&Row) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    session
        .query(statement, Vec::new())
        .await?
        .iter()
        .map(read)
        .collect()
}

/// Reads the whole catalogue, secrets included, in its order.
async fn load(session: &mut Session, statements: &Statements) -> Result<Catalogue, Fault> {
    let mut catalogue = Catalogue {
        version: 0,
        platforms: all(session, &statements.platforms.all, platform).await?,
        services: all(session, &statements.services.all, service).await?,
        service_configurations: all(
            session,
            &statements.service_configurations.all,
            service_configuration,
        )
        .await?,
        environments: all(session, &statements.environments.all, environment).await?,
        environment_configurations: all(
            session,
            &statements.environment_configurations.all,
            environment_configuration,
        )
        .await?,
    };
    // Here, not in SQL: the databases do not agree on the order of names.
    catalogue.platforms.sort_by(|a, b| a.name.cmp(&b.name));
    let place_of = |id| {
        catalogue
            .platforms
            .iter()
            .position(|platform| platform.id == id)
    };
    catalogue
        .services
        .sort_by_cached_key(|service| (place_of(service.platform_id), service.name.clone()));
    catalogue.environments.sort_by(|a, b| a.name.cmp(&b.name));
    catalogue
        .service_configurations
        .sort_by_key(|configuration| configuration.id);
    catalogue
        .environment_configurations
        .sort_by_key(|configuration| configuration.id);
    Ok(catalogue)
}

/// Reads the snapshot that hooks and templates see.
pub(crate) async fn load_snapshot(
    session: &mut Session,
    statements: &statements::Statements,
    version: u64,
) -> Result<Catalogue, StoreError> {
    let mut catalogue = load(session, &statements.catalogue).await?;
    catalogue.version = version;
    for configuration in &mut catalogue.environment_configurations {
        configuration.config = without_secrets(&configuration.config);
    }
    Ok(catalogue)
}

impl Store {
    /// Runs work that writes the catalogue, while nobody else does, and so that a new snapshot is taken before it is
    /// answered.
    async fn write_catalogue<T: Send + 'static>(
        &self,
        work: impl Work<T>,
    ) -> Result<T, StoreError> {
        let touched = |_: &T| Touched::Catalogue;
        self.write(Frame::Group, touched, move |session| {
            Box::pin(async move {
                session.lock(Lock::Catalogue).await?;
                work(session).await
            })
        })
        .await
    }

    /// The catalogue as REST sends it: each secret that is set is `""`. Read from the database, not from the snapshot.
    ///
    /// # Errors
    /// Those of an unavailable database.
    pub async fn catalogue_out(&self) -> Result<Catalogue, StoreError> {
        let statements = self.statements();
        let version = self.catalogue().version;
        self.read(View::State, move |session| {
            Box::pin(async move {
                let mut catalogue = load(session, &statements.catalogue).await?;
                catalogue.version = version;
                for configuration in &mut catalogue.environment_configurations {
                    configuration.config = with_blank_secrets(&configuration.config);
                }
                Ok(catalogue)
            })
        })
        .await
    }
}
