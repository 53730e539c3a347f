-- What servers on one database tell each other of themselves, and how far a copy into this database is. The file of the
-- same name for Postgres holds the same tables with its own types. One server has a SQLite database, so that `servers`
-- and `plugin_sets` stay empty there.

-- The servers that run. `plugin_set` is the digest of what a server serves, `plugins` what that is and what fails.
CREATE TABLE servers (
    id           TEXT    NOT NULL PRIMARY KEY,
    name         TEXT    NOT NULL,
    address      TEXT,
    version      TEXT    NOT NULL,
    started_at   TEXT    NOT NULL,
    heartbeat_at TEXT    NOT NULL,
    generation   INTEGER NOT NULL,
    plugin_set   TEXT    NOT NULL,
    plugins      TEXT    NOT NULL,
    last_error   TEXT
) STRICT;

-- The generations of the cluster: which sets of plugins were served, in the order in which they came. `left_at` is when
-- the last server that stopped in good order served it.
CREATE TABLE plugin_sets (
    number   INTEGER NOT NULL PRIMARY KEY,
    digest   TEXT    NOT NULL,
    plugins  TEXT    NOT NULL,
    first_at TEXT    NOT NULL,
    left_at  TEXT
) STRICT;

-- The copy into this database that is under way, by the database it comes from; `progress` says how far each table is.
-- While there is a row no server serves the database.
CREATE TABLE copies_under_way (
    source     TEXT NOT NULL PRIMARY KEY,
    started_at TEXT NOT NULL,
    progress   TEXT NOT NULL
) STRICT;
