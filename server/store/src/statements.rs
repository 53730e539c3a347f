//! Every statement of the repository, built once when the store is opened.

use sea_query::{Asterisk, Expr, ExprTrait, Func, LockType, Query};

use crate::session::{Dialect, Statement, place};
use crate::{catalogue, cluster, configuration, data_product, plugin};

/// All of them, by the module that uses them.
pub(crate) struct Statements {
    pub(crate) dialect: Dialect,
    pub(crate) catalogue: catalogue::Statements,
    pub(crate) products: data_product::Statements,
    pub(crate) plugins: plugin::Statements,
    pub(crate) configurations: configuration::Statements,
    pub(crate) cluster: cluster::Statements,
}

impl Statements {
    pub(crate) fn new(dialect: Dialect) -> Statements {
        Statements {
            dialect,
            catalogue: catalogue::Statements::new(dialect),
            products: data_product::Statements::new(dialect),
            plugins: plugin::Statements::new(dialect),
            configurations: configuration::Statements::new(dialect),
            cluster: cluster::Statements::new(dialect),
        }
    }
}

/// `INSERT INTO table (columns) VALUES (…)`
pub(crate) fn insert(dialect: Dialect, table: &'static str, columns: &[&'static str]) -> Statement {
    let mut query = Query::insert();
    query.into_table(table).columns(columns.iter().copied());
    query.values_panic(columns.iter().map(|_| place()));
    Statement::new(dialect, &query)
}

/// `UPDATE table SET columns = … WHERE keys = …`
pub(crate) fn update(
    dialect: Dialect,
    table: &'static str,
    columns: &[&'static str],
    keys: &[&'static str],
) -> Statement {
    let mut query = Query::update();
    query.table(table);
    query.values(columns.iter().map(|column| (*column, place())));
    for key in keys {
        query.and_where(Expr::col(*key).eq(place()));
    }
    Statement::new(dialect, &query)
}

/// `DELETE FROM table WHERE keys = …`
pub(crate) fn delete(dialect: Dialect, table: &'static str, keys: &[&'static str]) -> Statement {
    let mut query = Query::delete();
    query.from_table(table);
    for key in keys {
        query.and_where(Expr::col(*key).eq(place()));
    }
    Statement::new(dialect, &query)
}

/// `SELECT columns FROM table WHERE keys = …`
pub(crate) fn select(
    dialect: Dialect,
    table: &'static str,
    columns: &[&'static str],
    keys: &[&'static str],
) -> Statement {
    let mut query = Query::select();
    query.columns(columns.iter().copied()).from(table);
    for key in keys {
        query.and_where(Expr::col(*key).eq(place()));
    }
    Statement::new(dialect, &query)
}

/// `SELECT id FROM table WHERE keys = … FOR UPDATE`: until the transaction ends, nothing that refers to these rows is
/// written. SQLite, where one thread writes, has no such words.
pub(crate) fn hold(dialect: Dialect, table: &'static str, keys: &[&'static str]) -> Statement {
    let mut query = Query::select();
    query.column("id").from(table).lock(LockType::Update);
    for key in keys {
        query.and_where(Expr::col(*key).eq(place()));
    }
    Statement::new(dialect, &query)
}

/// `SELECT count(*) FROM table WHERE keys = …`
pub(crate) fn count(dialect: Dialect, table: &'static str, keys: &[&'static str]) -> Statement {
    let mut query = Query::select();
    query.expr(Func::count(Expr::col(Asterisk))).from(table);
    for key in keys {
        query.and_where(Expr::col(*key).eq(place()));
    }
    Statement::new(dialect, &query)
}
