-- What servers on one database tell each other of themselves, and how far a copy into this database is. The file of the
-- same name for SQLite holds the same tables with its own types.

-- The servers that run. `plugin_set` is the digest of what a server serves, `plugins` what that is and what fails.
CREATE TABLE servers (
    id           uuid        NOT NULL PRIMARY KEY,
    name         text        NOT NULL,
    address      text,
    version      text        NOT NULL,
    started_at   timestamptz NOT NULL,
    heartbeat_at timestamptz NOT NULL,
    generation   bigint      NOT NULL,
    plugin_set   text        NOT NULL,
    plugins      json        NOT NULL,
    last_error   json
);

-- The generations of the cluster: which sets of plugins were served, in the order in which they came. `left_at` is when
-- the last server that stopped in good order served it.
CREATE TABLE plugin_sets (
    number   bigint      NOT NULL PRIMARY KEY,
    digest   text        NOT NULL,
    plugins  json        NOT NULL,
    first_at timestamptz NOT NULL,
    left_at  timestamptz
);

-- The copy into this database that is under way, by the database it comes from; `progress` says how far each table is.
-- While there is a row no server serves the database.
CREATE TABLE copies_under_way (
    source     text        NOT NULL PRIMARY KEY,
    started_at timestamptz NOT NULL,
    progress   json        NOT NULL
);
