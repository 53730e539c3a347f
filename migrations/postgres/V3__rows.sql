-- What is known of the rows of a plugin when its code changes. The file of the same name for SQLite does the same with its
-- own types.

-- The hash of the plugin's code for which its rows were checked last, or accepted as they are.
ALTER TABLE applied_definitions ADD COLUMN code text;

-- A newer version of a plugin may carry rows over: `upgrade` is an action of its own.
ALTER TABLE configuration_revisions DROP CONSTRAINT configuration_revisions_action_check;
ALTER TABLE configuration_revisions ADD CONSTRAINT configuration_revisions_action_check
    CHECK (action IN ('create', 'update', 'upgrade', 'delete'));
