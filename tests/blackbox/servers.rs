//! Several servers on one Postgres.
