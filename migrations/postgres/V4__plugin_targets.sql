-- At which step an operator holds a plugin. The file of the same name for SQLite holds the same table with its own types.

-- `step` is the last one that shall be applied, null when none shall be. While there is a row, no server runs a step of the
-- plugin by itself.
CREATE TABLE plugin_targets (
    plugin text        NOT NULL PRIMARY KEY,
    step   text,
    set_at timestamptz NOT NULL,
    set_by text        NOT NULL
);
