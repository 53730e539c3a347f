-- The core schema. Ids are UUIDs as text; times are RFC 3339 in UTC with six digits of a second, so that their text
-- orders as they do; JSON is text. The file of the same name for Postgres holds the same tables with its own types.

CREATE TABLE platforms (
    id   TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE platform_services (
    id                      TEXT NOT NULL PRIMARY KEY,
    platform_id             TEXT NOT NULL REFERENCES platforms (id) ON DELETE CASCADE,
    name                    TEXT NOT NULL,
    result_string_template  TEXT NOT NULL,
    technical_info_template TEXT NOT NULL,
    UNIQUE (platform_id, name)
) STRICT;

CREATE TABLE platform_service_configurations (
    id          TEXT NOT NULL PRIMARY KEY,
    platform_id TEXT NOT NULL REFERENCES platforms (id) ON DELETE CASCADE,
    service_id  TEXT NOT NULL UNIQUE REFERENCES platform_services (id) ON DELETE CASCADE,
    config      TEXT NOT NULL
) STRICT;

CREATE TABLE environments (
    id         TEXT    NOT NULL PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    acronym    TEXT    NOT NULL,
    context    TEXT    NOT NULL,
    is_default INTEGER NOT NULL CHECK (is_default IN (0, 1))
) STRICT;

-- At most one environment is the default.
CREATE UNIQUE INDEX environments_default ON environments (is_default) WHERE is_default = 1;

CREATE TABLE environment_configurations (
    id             TEXT NOT NULL PRIMARY KEY,
    environment_id TEXT NOT NULL REFERENCES environments (id) ON DELETE CASCADE,
    platform_id    TEXT NOT NULL REFERENCES platforms (id) ON DELETE CASCADE,
    service_id     TEXT REFERENCES platform_services (id) ON DELETE CASCADE,
    config         TEXT NOT NULL
) STRICT;

-- A platform has one configuration of its own in an environment, and one for each of its services.
CREATE UNIQUE INDEX environment_configurations_platform
    ON environment_configurations (environment_id, platform_id) WHERE service_id IS NULL;
CREATE UNIQUE INDEX environment_configurations_service
    ON environment_configurations (environment_id, service_id) WHERE service_id IS NOT NULL;

CREATE TABLE data_products (
    id        TEXT NOT NULL PRIMARY KEY,
    name      TEXT NOT NULL,
    namespace TEXT NOT NULL UNIQUE,
    domain    TEXT NOT NULL
) STRICT;

-- What is applied of each plugin. `revision` counts the writes of the row, so that what was read of it can be kept;
-- `head` is the last step of the plugin's history, which every write of its rows checks.
CREATE TABLE applied_definitions (
    plugin     TEXT    NOT NULL PRIMARY KEY,
    revision   INTEGER NOT NULL,
    version    TEXT    NOT NULL,
    table_name TEXT,
    fields     TEXT    NOT NULL,
    head       TEXT,
    applied_at TEXT    NOT NULL,
    applied_by TEXT    NOT NULL
) STRICT;

-- Which plugin owns which table.
CREATE TABLE plugin_tables (
    table_name TEXT NOT NULL PRIMARY KEY,
    plugin     TEXT NOT NULL
) STRICT;

-- The history of each plugin's tables, in the order in which the steps ran.
CREATE TABLE plugin_migrations (
    plugin     TEXT    NOT NULL,
    position   INTEGER NOT NULL,
    id         TEXT    NOT NULL,
    origin     TEXT    NOT NULL CHECK (origin IN ('written', 'derived', 'baseline')),
    path       TEXT,
    up         TEXT    NOT NULL,
    down       TEXT,
    checksum   TEXT    NOT NULL,
    applied_at TEXT    NOT NULL,
    applied_by TEXT    NOT NULL,
    PRIMARY KEY (plugin, position),
    UNIQUE (plugin, id)
) STRICT;

-- The base of every plugin's rows; `configuration_type` names the plugin. `folded_name` is the name in lower case, made
-- by the server because the databases do not agree on what lower case is.
CREATE TABLE data_output_configurations (
    id                 TEXT    NOT NULL PRIMARY KEY,
    configuration_type TEXT    NOT NULL,
    plugin_version     TEXT    NOT NULL,
    name               TEXT    NOT NULL,
    folded_name        TEXT    NOT NULL,
    description        TEXT,
    data_product_id    TEXT    NOT NULL REFERENCES data_products (id),
    technical_mapping  TEXT    NOT NULL CHECK (technical_mapping IN ('default', 'custom')),
    platform_id        TEXT REFERENCES platforms (id),
    service_id         TEXT REFERENCES platform_services (id),
    revision           INTEGER NOT NULL,
    created_at         TEXT    NOT NULL,
    updated_at         TEXT    NOT NULL,
    UNIQUE (data_product_id, name)
) STRICT;

-- Pages are newest first, so each filter has an index that ends in that order. The first one holds the name too, so that
-- a search that few names answer reads the index alone.
CREATE INDEX configurations_newest ON data_output_configurations (created_at, id, folded_name);
CREATE INDEX configurations_by_product ON data_output_configurations (data_product_id, created_at, id);
CREATE INDEX configurations_by_plugin ON data_output_configurations (configuration_type, created_at, id);
CREATE INDEX configurations_by_platform ON data_output_configurations (platform_id) WHERE platform_id IS NOT NULL;
CREATE INDEX configurations_by_service ON data_output_configurations (service_id) WHERE service_id IS NOT NULL;

-- The history of configurations. It refers to nothing, so that it stays when they are deleted.
CREATE TABLE configuration_revisions (
    configuration_id TEXT    NOT NULL,
    revision         INTEGER NOT NULL,
    action           TEXT    NOT NULL CHECK (action IN ('create', 'update', 'delete')),
    plugin           TEXT    NOT NULL,
    plugin_version   TEXT    NOT NULL,
    changed_by       TEXT    NOT NULL,
    changed_at       TEXT    NOT NULL,
    changes          TEXT    NOT NULL,
    PRIMARY KEY (configuration_id, revision)
) STRICT, WITHOUT ROWID;
