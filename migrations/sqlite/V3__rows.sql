-- What is known of the rows of a plugin when its code changes. The file of the same name for Postgres does the same with its
-- own types.

-- The hash of the plugin's code for which its rows were checked last, or accepted as they are.
ALTER TABLE applied_definitions ADD COLUMN code TEXT;

-- A newer version of a plugin may carry rows over: `upgrade` is an action of its own. A check cannot be changed in place.
ALTER TABLE configuration_revisions RENAME TO configuration_revisions_before;
CREATE TABLE configuration_revisions (
    configuration_id TEXT    NOT NULL,
    revision         INTEGER NOT NULL,
    action           TEXT    NOT NULL CHECK (action IN ('create', 'update', 'upgrade', 'delete')),
    plugin           TEXT    NOT NULL,
    plugin_version   TEXT    NOT NULL,
    changed_by       TEXT    NOT NULL,
    changed_at       TEXT    NOT NULL,
    changes          TEXT    NOT NULL,
    PRIMARY KEY (configuration_id, revision)
) STRICT, WITHOUT ROWID;
INSERT INTO configuration_revisions SELECT * FROM configuration_revisions_before;
DROP TABLE configuration_revisions_before;
