//! Data products, which own configurations.

use std::sync::Arc;

use patchbay_plugin::configuration::{DataProduct, is_namespace};
use sea_query::{Expr, ExprTrait, Order, Query};
use uuid::Uuid;

use crate::Store;
use crate::engine::{Frame, View};
use crate::error::{Fault, StoreError, What};
use crate::page::{Page, limit_of, read_text_cursor, write_text_cursor};
use crate::session::{Dialect, Row, Statement, place, text};
use crate::shared::Touched;
use crate::statements::{count, delete, hold, insert, select, update};

const COLUMNS: &[&str] = &["id", "name", "namespace", "domain"];

pub(crate) struct Statements {
    pub(crate) by_id: Statement,
    /// The same, and nothing new can refer to it until the transaction ends.
    hold: Statement,
    insert: Statement,
    update: Statement,
    delete: Statement,
    configurations: Statement,
    /// After a namespace, in the order of namespaces.
    page: Statement,
}

impl Statements {
    pub(crate) fn new(dialect: Dialect) -> Statements {
        let mut page = Query::select();
        page.columns(COLUMNS.iter().copied())
            .from("data_products")
            .and_where(Expr::col("namespace").gt(place()))
            .order_by("namespace", Order::Asc)
            .limit(1);
        Statements {
            by_id: select(dialect, "data_products", COLUMNS, &["id"]),
            hold: hold(dialect, "data_products", &["id"]),
            insert: insert(dialect, "data_products", COLUMNS),
            update: update(dialect, "data_products", &COLUMNS[1..], &["id"]),
            delete: delete(dialect, "data_products", &["id"]),
            configurations: count(dialect, "data_output_configurations", &["data_product_id"]),
            page: Statement::new(dialect, &page),
        }
    }
}

/// A data product to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataProductDraft {
    /// What users call it.
    pub name: String,
    /// Unique: `^[a-z0-9+=,.@_-]{1,64}$`.
    pub namespace: String,
    /// The business domain it is part of.
    pub domain: String,
}

impl DataProductDraft {
    fn check(&self) -> Result<(), StoreError> {
        match is_namespace(&self.namespace) {
            true => Ok(()),
            false => Err(StoreError::Invalid(
                "a namespace is 1 to 64 of the characters a-z, 0-9 and +=,.@_-".to_owned(),
            )),
        }
    }

    fn into_product(self, id: Uuid) -> DataProduct {
        DataProduct {
            id,
            name: self.name,
            namespace: self.namespace,
            domain: self.domain,
        }
    }
}

fn read(row: &Row) -> Result<DataProduct, Fault> {
    Ok(DataProduct {
        id: row.uuid(0)?,
        name: row.string(1)?,
        namespace: row.string(2)?,
        domain: row.string(3)?,
    })
}

fn taken(fault: Fault, product: &DataProduct) -> StoreError {
    let (key, value) = match &fault {
        Fault::Unique(columns) if columns == "id" => ("id", product.id.to_string()),
        Fault::Unique(_) => ("namespace", product.namespace.clone()),
        _ => return fault.into(),
    };
    StoreError::Duplicate {
        what: What::DataProduct,
        key,
        value,
    }
}

impl Store {
    /// A data product, none when there is none of that id. It is kept in memory until one is written.
    ///
    /// # Errors
    /// Those of an unavailable database.
    pub async fn data_product(&self, id: Uuid) -> Result<Option<DataProduct>, StoreError> {
        let shared = Arc::clone(self.shared());
        let ticket = match shared.kept_product(id) {
            Ok(product) => return Ok(Some((*product).clone())),
            Err(ticket) => ticket,
        };
        let statements = self.statements();
        let product = self
            .read(View::Statement, move |session| {
                Box::pin(async move {
                    let statement = &statements.products.by_id;
                    let row = session.query_one(statement, vec![id.into()]).await?;
                    Ok(row.as_ref().map(read).transpose()?)
                })
            })
            .await?;
        if let Some(product) = &product {
            shared.keep_product(ticket, product);
        }
        Ok(product)
    }

    /// A page of the data products, by namespace.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a cursor that is none of ours; those of an unavailable database.
    pub async fn data_products(
        &self,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<DataProduct>, StoreError> {
        let after = cursor.map_or(Ok(String::new()), read_text_cursor)?;
        let limit = limit_of(limit);
        let statements = self.statements();
        self.read(View::Statement, move |session| {
            Box::pin(async move {
                // One more than asked for, to learn whether there is more.
                let values = vec![text(after), (limit as i64 + 1).into()];
                let rows = session.query(&statements.products.page, values).await?;
                let items: Result<Vec<DataProduct>, Fault> = rows.iter().map(read).collect();
                Ok(Page::of(items?, limit, |product| {
                    write_text_cursor(&product.namespace)
                }))
            })
        })
        .await
    }

    /// Creates a data product, with an id of the caller's where it has one already elsewhere.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a namespace that is none; [`StoreError::Duplicate`] when the namespace or the id is
    /// taken; those of an unavailable database.
    pub async fn create_data_product(
        &self,
        id: Option<Uuid>,
        draft: DataProductDraft,
    ) -> Result<DataProduct, StoreError> {
        draft.check()?;
        let product = draft.into_product(id.unwrap_or_else(Uuid::now_v7));
        let statements = self.statements();
        // Nothing that was read before can name the new one, so nothing moves.
        self.write(
            Frame::Group,
            |_| Touched::Nothing,
            move |session| {
                Box::pin(async move {
                    let values = vec![
                        product.id.into(),
                        text(&product.name),
                        text(&product.namespace),
                        text(&product.domain),
                    ];
                    session
                        .execute(&statements.products.insert, values)
                        .await
                        .map_err(|fault| taken(fault, &product))?;
                    Ok(product)
                })
            },
        )
        .await
    }

    /// Replaces a data product.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; otherwise as [`create_data_product`](Store::create_data_product).
    pub async fn update_data_product(
        &self,
        id: Uuid,
        draft: DataProductDraft,
    ) -> Result<DataProduct, StoreError> {
        draft.check()?;
        let product = draft.into_product(id);
        let statements = self.statements();
        self.write(
            Frame::Group,
            |_| Touched::Products,
            move |session| {
                Box::pin(async move {
                    let values = vec![
                        text(&product.name),
                        text(&product.namespace),
                        text(&product.domain),
                        product.id.into(),
                    ];
                    let changed = session
                        .execute(&statements.products.update, values)
                        .await
                        .map_err(|fault| taken(fault, &product))?;
                    match changed {
                        0 => Err(StoreError::NotFound(What::DataProduct)),
                        _ => Ok(product),
                    }
                })
            },
        )
        .await
    }

    /// Deletes a data product.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] when it has configurations; those of an unavailable database.
    pub async fn delete_data_product(&self, id: Uuid) -> Result<(), StoreError> {
        let statements = self.statements();
        self.write(
            Frame::Group,
            |()| Touched::Products,
            move |session| {
                Box::pin(async move {
                    let statements = &statements.products;
                    session.query(&statements.hold, vec![id.into()]).await?;
                    let row = session
                        .query_one(&statements.configurations, vec![id.into()])
                        .await?;
                    let count = row.map_or(Ok(0), |row| row.integer(0))?;
                    if count > 0 {
                        let plural = if count == 1 { "" } else { "s" };
                        return Err(StoreError::Conflict(format!(
                            "Data product is referred to by {count} configuration{plural}"
                        )));
                    }
                    match session.execute(&statements.delete, vec![id.into()]).await? {
                        0 => Err(StoreError::NotFound(What::DataProduct)),
                        _ => Ok(()),
                    }
                })
            },
        )
        .await
    }
}
