-- The core schema. The file of the same name for SQLite holds the same tables with its own types. JSON is `json`, not
-- `jsonb`, so that what was written is read back byte for byte. Text that is ordered by is compared byte by byte, as in
-- SQLite.

CREATE TABLE platforms (
    id   uuid NOT NULL PRIMARY KEY,
    name text NOT NULL UNIQUE
);

CREATE TABLE platform_services (
    id                      uuid NOT NULL PRIMARY KEY,
    platform_id             uuid NOT NULL REFERENCES platforms (id) ON DELETE CASCADE,
    name                    text NOT NULL,
    result_string_template  text NOT NULL,
    technical_info_template text NOT NULL,
    UNIQUE (platform_id, name)
);

CREATE TABLE platform_service_configurations (
    id          uuid NOT NULL PRIMARY KEY,
    platform_id uuid NOT NULL REFERENCES platforms (id) ON DELETE CASCADE,
    service_id  uuid NOT NULL UNIQUE REFERENCES platform_services (id) ON DELETE CASCADE,
    config      json NOT NULL
);

CREATE TABLE environments (
    id         uuid    NOT NULL PRIMARY KEY,
    name       text    NOT NULL UNIQUE,
    acronym    text    NOT NULL,
    context    text    NOT NULL,
    is_default boolean NOT NULL
);

-- At most one environment is the default.
CREATE UNIQUE INDEX environments_default ON environments (is_default) WHERE is_default;

CREATE TABLE environment_configurations (
    id             uuid NOT NULL PRIMARY KEY,
    environment_id uuid NOT NULL REFERENCES environments (id) ON DELETE CASCADE,
    platform_id    uuid NOT NULL REFERENCES platforms (id) ON DELETE CASCADE,
    service_id     uuid REFERENCES platform_services (id) ON DELETE CASCADE,
    config         json NOT NULL
);

-- A platform has one configuration of its own in an environment, and one for each of its services.
CREATE UNIQUE INDEX environment_configurations_platform
    ON environment_configurations (environment_id, platform_id) WHERE service_id IS NULL;
CREATE UNIQUE INDEX environment_configurations_service
    ON environment_configurations (environment_id, service_id) WHERE service_id IS NOT NULL;

CREATE TABLE data_products (
    id        uuid NOT NULL PRIMARY KEY,
    name      text NOT NULL,
    namespace text COLLATE "C" NOT NULL UNIQUE,
    domain    text NOT NULL
);

-- What is applied of each plugin. `revision` counts the writes of the row, so that what was read of it can be kept;
-- `head` is the last step of the plugin's history, which every write of its rows checks.
CREATE TABLE applied_definitions (
    plugin     text    NOT NULL PRIMARY KEY,
    revision   bigint NOT NULL,
    version    text    NOT NULL,
    table_name text,
    fields     json    NOT NULL,
    head       text,
    applied_at timestamptz    NOT NULL,
    applied_by text    NOT NULL
);

-- Which plugin owns which table.
CREATE TABLE plugin_tables (
    table_name text NOT NULL PRIMARY KEY,
    plugin     text NOT NULL
);

-- The history of each plugin's tables, in the order in which the steps ran.
CREATE TABLE plugin_migrations (
    plugin     text    NOT NULL,
    position   bigint NOT NULL,
    id         text    NOT NULL,
    origin     text    NOT NULL CHECK (origin IN ('written', 'derived', 'baseline')),
    path       text,
    up         json    NOT NULL,
    down       json,
    checksum   text    NOT NULL,
    applied_at timestamptz    NOT NULL,
    applied_by text    NOT NULL,
    PRIMARY KEY (plugin, position),
    UNIQUE (plugin, id)
);

-- The base of every plugin's rows; `configuration_type` names the plugin. `folded_name` is the name in lower case, made
-- by the server because the databases do not agree on what lower case is.
CREATE TABLE data_output_configurations (
    id                 uuid    NOT NULL PRIMARY KEY,
    configuration_type text    NOT NULL,
    plugin_version     text    NOT NULL,
    name               text    NOT NULL,
    folded_name        text    NOT NULL,
    description        text,
    data_product_id    uuid    NOT NULL REFERENCES data_products (id),
    technical_mapping  text    NOT NULL CHECK (technical_mapping IN ('default', 'custom')),
    platform_id        uuid REFERENCES platforms (id),
    service_id         uuid REFERENCES platform_services (id),
    revision           bigint NOT NULL,
    created_at         timestamptz    NOT NULL,
    updated_at         timestamptz    NOT NULL,
    UNIQUE (data_product_id, name)
);

-- Pages are newest first, so each filter has an index that ends in that order. The first one holds the name too, so that
-- a search that few names answer reads the index alone.
CREATE INDEX configurations_newest ON data_output_configurations (created_at, id, folded_name);
CREATE INDEX configurations_by_product ON data_output_configurations (data_product_id, created_at, id);
CREATE INDEX configurations_by_plugin ON data_output_configurations (configuration_type, created_at, id);
CREATE INDEX configurations_by_platform ON data_output_configurations (platform_id) WHERE platform_id IS NOT NULL;
CREATE INDEX configurations_by_service ON data_output_configurations (service_id) WHERE service_id IS NOT NULL;

-- The history of configurations. It refers to nothing, so that it stays when they are deleted.
CREATE TABLE configuration_revisions (
    configuration_id uuid    NOT NULL,
    revision         bigint NOT NULL,
    action           text    NOT NULL CHECK (action IN ('create', 'update', 'delete')),
    plugin           text    NOT NULL,
    plugin_version   text    NOT NULL,
    changed_by       text    NOT NULL,
    changed_at       timestamptz    NOT NULL,
    changes          json    NOT NULL,
    PRIMARY KEY (configuration_id, revision)
);
