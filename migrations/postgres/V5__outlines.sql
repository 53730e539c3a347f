-- What the next version of a plugin is compared with when its code is gone. The file of the same name for SQLite does the
-- same with its own types.

-- All of the definition that versions are compared by; null when there is nothing to compare with. Of what is applied
-- already, fields and table are known.
ALTER TABLE applied_definitions ADD COLUMN outline json;
UPDATE applied_definitions
    SET outline = json_build_object('version', version, 'table', table_name, 'fields', fields)
    WHERE table_name IS NOT NULL;

-- Why the version number promises less than the change to it made; null when it keeps its word.
ALTER TABLE applied_definitions ADD COLUMN broken_promise text;
