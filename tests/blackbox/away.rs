//! A Postgres that is stopped, held, full, crowded, or cuts connections.
