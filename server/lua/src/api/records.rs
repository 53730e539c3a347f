//! The tables that cross the border between a plugin and the server: one list of what each may hold.
//!
//! What a reader of `patchbay-plugin` accepts, what a hook is given and what a recorder records is listed here, and tests
//! hold each of them equal to its list.

use crate::spec::SPEC_RECORDS;

/// A table, or another type, that the API speaks of.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// The name of its type.
    pub name: &'static str,
    /// What it is, in one line.
    pub doc: &'static str,
    /// What it is made of.
    pub shape: Shape,
}

/// What a type is made of.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// A table with these fields, group by group.
    Table(&'static [&'static [Part]]),
    /// Such a table, which has further fields of this type.
    Open(&'static [&'static [Part]], &'static str),
    /// Another name for a type.
    Alias(&'static str),
}

/// One field or method.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// Its type, in Luau's notation.
    pub signature: &'static str,
    /// What it is, in one line.
    pub doc: &'static str,
}

impl Record {
    /// The fields and methods, in order.
    pub fn parts(&self) -> impl Iterator<Item = &'static Part> {
        let groups = match self.shape {
            Shape::Table(groups) | Shape::Open(groups, _) => groups,
            Shape::Alias(_) => &[],
        };
        groups.iter().copied().flatten()
    }
}

/// The names of the fields and methods of a type.
pub(crate) fn names_of(record: &str) -> Vec<&'static str> {
    RECORDS
        .iter()
        .chain(SPEC_RECORDS)
        .filter(|known| known.name == record)
        .flat_map(Record::parts)
        .map(|part| part.name)
        .collect()
}

pub(crate) const fn part(name: &'static str, signature: &'static str, doc: &'static str) -> Part {
    Part {
        name,
        signature,
        doc,
    }
}

pub(crate) const fn table(
    name: &'static str,
    doc: &'static str,
    groups: &'static [&'static [Part]],
) -> Record {
    Record {
        name,
        doc,
        shape: Shape::Table(groups),
    }
}

const fn alias(name: &'static str, doc: &'static str, signature: &'static str) -> Record {
    Record {
        name,
        doc,
        shape: Shape::Alias(signature),
    }
}

/// The options that every field has.
const FIELD: &[Part] = &[
    part(
        "required",
        "boolean?",
        "Whether a configuration must bring it, as long as depends_on holds.",
    ),
    part(
        "depends_on",
        "DependsOn?",
        "What other fields must be for required to count.",
    ),
    part(
        "label",
        "string?",
        "What a form that is derived from the fields calls it.",
    ),
    part(
        "description",
        "string?",
        "What it is for; a derived form shows it as the tooltip.",
    ),
];

/// The options that every element of a form has.
const ELEMENT: &[Part] = &[
    part(
        "label",
        "string?",
        "What the user reads; made from the name when left out.",
    ),
    part(
        "required",
        "boolean?",
        "Whether it must be filled in while it is shown.",
    ),
    part("tooltip", "string?", "A longer explanation."),
    part(
        "hidden",
        "boolean?",
        "Whether it is kept and submitted without being shown.",
    ),
    part(
        "disabled",
        "boolean?",
        "Whether it is shown but cannot be changed.",
    ),
    part(
        "depends_on",
        "DependsOn?",
        "What other fields must be for it to be shown.",
    ),
    part(
        "use_namespace_when_not_source_aligned",
        "boolean?",
        "Whether it is the data product's namespace while the technical mapping is default.",
    ),
];

/// Hints for richer widgets, which an element may carry.
const HINTS: &[Part] = &[
    part(
        "widget",
        "string?",
        "A hint: the widget to use, such as \"integer\".",
    ),
    part(
        "group",
        "string?",
        "A hint: the heading under which it stands.",
    ),
    part(
        "placeholder",
        "string?",
        "A hint: what an empty input shows.",
    ),
    part(
        "pattern",
        "string?",
        "A hint: a regular expression for what is typed.",
    ),
    part("help", "string?", "A hint: a text beside the input."),
    part("min", "number?", "A hint: the least value."),
    part("max", "number?", "A hint: the greatest value."),
    part("step", "number?", "A hint: the distance between values."),
    part(
        "rows",
        "number?",
        "A hint: the height of the input, in lines.",
    ),
    part(
        "secret",
        "boolean?",
        "A hint: whether what is typed is not shown.",
    ),
];

/// Every type of the API of plugins.
pub const RECORDS: &[Record] = &[
    table(
        "PluginDefinition",
        "What a plugin's file returns. Only name and fields are needed; all else has a default.",
        &[&[
            part(
                "name",
                "string",
                "The plugin's name, such as \"SnowflakeDataOutput\".",
            ),
            part(
                "version",
                "string?",
                "Its version, such as \"1.0.0\"; \"1.0\" when left out.",
            ),
            part(
                "api",
                "number?",
                "The version of the plugin API that it is written for: 1.",
            ),
            part("aliases", "{ string }?", "Other names it answers to."),
            part(
                "requires",
                "string?",
                "The Patchbay versions it works with, such as \">=0.1, <2\".",
            ),
            part(
                "platform",
                "Platform?",
                "How it presents itself; made from the name when left out.",
            ),
            part(
                "fields",
                "{ Field }?",
                "What its configurations consist of. Without fields it is a tile and a link.",
            ),
            part(
                "settings",
                "{ Field }?",
                "What the operator sets for it, in [plugins.NAME] or the environment.",
            ),
            part(
                "table",
                "string?",
                "Its table; made from the platform key when left out.",
            ),
            part(
                "environment_entry",
                "string?",
                "The field that the identifier of an environment's entry equals, or \"first\".",
            ),
            part(
                "placeholders",
                "{ string }?",
                "Placeholders of templates that are no fields, because render fills them.",
            ),
            part(
                "examples",
                "{ Configuration }?",
                "Configurations that are right. Checked when the plugin is loaded.",
            ),
            part(
                "migrations",
                "{ Migration }?",
                "The written migrations of a single-file plugin.",
            ),
            part(
                "ui_metadata",
                "((db: Db) -> { Element })?",
                "Hook: the form; made from the fields when left out.",
            ),
            part(
                "normalize",
                "((configuration: Configuration, context: Context, db: Db) -> (Configuration?, Errors?))?",
                "Hook: brings a configuration into the form in which it is stored, or returns nil and errors.",
            ),
            part(
                "validate",
                "((configuration: Configuration, context: Context, db: Db) -> Errors?)?",
                "Hook: what is wrong with a configuration. Called for the technical mapping default only.",
            ),
            part(
                "render",
                "((configuration: Configuration, filled: string, context: Context) -> string)?",
                "Hook: finishes a template whose {names} are filled.",
            ),
            part(
                "url",
                "((context: Context, db: Db) -> (string?, Refusal?))?",
                "Hook: a link to the data, or nil and patchbay.not_found or patchbay.bad_request.",
            ),
            part(
                "upgrade",
                "((configuration: Configuration, from_version: string) -> (Configuration?, Errors?))?",
                "Hook: carries a configuration that an older version has written over to this one, or returns nil and errors.",
            ),
        ]],
    ),
    table(
        "Platform",
        "How a plugin presents itself. All of it has defaults from the plugin's name.",
        &[&[
            part(
                "platform_key",
                "string?",
                "The name of its platform service in lower case, such as \"snowflake\".",
            ),
            part("display_name", "string?", "What users call it."),
            part(
                "detailed_name",
                "string?",
                "What one configuration is called; the display name when left out.",
            ),
            part(
                "icon_name",
                "string?",
                "The file name of its icon, an SVG beside the plugin.",
            ),
            part(
                "parent_platform",
                "string?",
                "The platform key of the tile that it stands under, such as \"aws\".",
            ),
            part(
                "result_label",
                "string?",
                "What the rendered access path is called.",
            ),
            part(
                "result_tooltip",
                "string?",
                "What the rendered access path is.",
            ),
            part(
                "has_environments",
                "boolean?",
                "Whether links depend on an environment; true when left out.",
            ),
            part(
                "show_in_form",
                "boolean?",
                "Whether the form offers it; true when left out.",
            ),
            part(
                "shareable",
                "boolean?",
                "Whether its configurations may be shared; true when left out.",
            ),
        ]],
    ),
    table(
        "Field",
        "What patchbay.field.… makes.",
        &[&[
            part("type", "string", "Its kind."),
            part("name", "string", "Its name, and its column's."),
        ]],
    ),
    table(
        "StringOptions",
        "The options of patchbay.field.string.",
        &[
            FIELD,
            &[
                part(
                    "default",
                    "string?",
                    "What it is when the configuration does not bring it.",
                ),
                part(
                    "pattern",
                    "string?",
                    "A regular expression that a part of the text must match; not a Lua pattern.",
                ),
                part("min", "number?", "The least number of characters."),
                part("max", "number?", "The greatest number of characters."),
            ],
        ],
    ),
    table(
        "IntegerOptions",
        "The options of patchbay.field.integer.",
        &[
            FIELD,
            &[
                part(
                    "default",
                    "number?",
                    "What it is when the configuration does not bring it.",
                ),
                part("min", "number?", "The least value."),
                part("max", "number?", "The greatest value."),
            ],
        ],
    ),
    table(
        "NumberOptions",
        "The options of patchbay.field.number.",
        &[
            FIELD,
            &[
                part(
                    "default",
                    "number?",
                    "What it is when the configuration does not bring it.",
                ),
                part("min", "number?", "The least value."),
                part("max", "number?", "The greatest value."),
            ],
        ],
    ),
    table(
        "BooleanOptions",
        "The options of patchbay.field.boolean.",
        &[
            FIELD,
            &[part(
                "default",
                "boolean?",
                "What it is when the configuration does not bring it.",
            )],
        ],
    ),
    table(
        "EnumOptions",
        "The options of patchbay.field.enum.",
        &[
            FIELD,
            &[
                part("values", "{ string }", "The allowed texts."),
                part(
                    "default",
                    "string?",
                    "What it is when the configuration does not bring it.",
                ),
            ],
        ],
    ),
    table(
        "ListOptions",
        "The options of patchbay.field.list.",
        &[
            FIELD,
            &[
                part(
                    "of",
                    "(\"string\" | \"integer\" | \"number\" | \"boolean\")?",
                    "What the items are; \"string\" when left out.",
                ),
                part(
                    "default",
                    "{ any }?",
                    "What it is when the configuration does not bring it.",
                ),
                part("min", "number?", "The least number of items."),
                part("max", "number?", "The greatest number of items."),
            ],
        ],
    ),
    table(
        "JsonOptions",
        "The options of patchbay.field.json.",
        &[
            FIELD,
            &[part(
                "default",
                "any",
                "What it is when the configuration does not bring it.",
            )],
        ],
    ),
    table(
        "Element",
        "What patchbay.ui.… makes.",
        &[&[
            part("type", "string", "Its kind."),
            part("name", "string", "The field that it fills."),
        ]],
    ),
    table(
        "StringElementOptions",
        "The options of patchbay.ui.string.",
        &[
            ELEMENT,
            &[part("initial_value", "string?", "The text at first.")],
            HINTS,
        ],
    ),
    table(
        "SelectElementOptions",
        "The options of patchbay.ui.select.",
        &[
            ELEMENT,
            &[
                part("options", "{ Option }?", "What can be chosen."),
                part(
                    "max_count",
                    "number?",
                    "How many may be chosen; above 1 the value is a list.",
                ),
            ],
            HINTS,
        ],
    ),
    table(
        "CheckboxElementOptions",
        "The options of patchbay.ui.checkbox.",
        &[
            ELEMENT,
            &[part(
                "initial_value",
                "boolean?",
                "Whether it is ticked at first.",
            )],
            HINTS,
        ],
    ),
    table(
        "RadioElementOptions",
        "The options of patchbay.ui.radio.",
        &[
            ELEMENT,
            &[
                part("options", "{ Option }?", "What can be chosen."),
                part("initial_value", "string?", "What is chosen at first."),
                part("max_count", "number?", "How many may be chosen."),
            ],
            HINTS,
        ],
    ),
    alias(
        "Option",
        "One option of a select or radio: a text or a boolean, which is its own label, or both.",
        "string | boolean | LabelledOption",
    ),
    table(
        "LabelledOption",
        "An option with a label of its own.",
        &[&[
            part(
                "label",
                "string?",
                "What the user reads; the value when left out.",
            ),
            part("value", "string | boolean", "What is submitted."),
        ]],
    ),
    alias(
        "DependsOn",
        "What other fields must be, such as { access_granularity = \"table\" }, or a list of such tables. All must hold.",
        "{ [string]: string | number | boolean } | { { [string]: string | number | boolean } }",
    ),
    table(
        "Migration",
        "A migration in the list migrations of a single-file plugin.",
        &[&[
            part("id", "string", "Its id."),
            part("up", "(m: Recorder) -> ()", "Records what it does."),
            part("down", "((m: Recorder) -> ())?", "Records what undoes it."),
        ]],
    ),
    table(
        "MigrationSteps",
        "What a migration's file returns.",
        &[&[
            part("up", "(m: Recorder) -> ()", "Records what it does."),
            part(
                "down",
                "((m: Recorder) -> ())?",
                "Records what undoes it; needed where it cannot be derived.",
            ),
        ]],
    ),
    table(
        "Recorder",
        "Records the operations of a migration's step. They run later, on either database.",
        &[&[
            part(
                "create_table",
                "(self: Recorder, table: string, columns: { Column }) -> ()",
                "Creates a table. Its first column is column.id().",
            ),
            part(
                "drop_table",
                "(self: Recorder, table: string) -> ()",
                "Drops a table with its rows.",
            ),
            part(
                "add_column",
                "(self: Recorder, table: string, column: Column) -> ()",
                "Appends a column. One that is not nullable needs a default.",
            ),
            part(
                "rename_column",
                "(self: Recorder, table: string, from: string, to: string) -> ()",
                "Renames a column.",
            ),
            part(
                "drop_column",
                "(self: Recorder, table: string, column: string) -> ()",
                "Drops a column with its values.",
            ),
            part(
                "alter_column",
                "(self: Recorder, table: string, column: Column) -> ()",
                "Changes a column's type, whether it is nullable, or its default.",
            ),
            part(
                "create_index",
                "(self: Recorder, table: string, columns: { string }, options: IndexOptions?) -> ()",
                "Creates an index.",
            ),
            part(
                "drop_index",
                "(self: Recorder, table: string, name: string) -> ()",
                "Drops an index.",
            ),
            part(
                "update",
                "(self: Recorder, table: string, change: Change) -> ()",
                "Sets columns of the rows that match.",
            ),
        ]],
    ),
    table(
        "Column",
        "What patchbay.column.… makes.",
        &[&[
            part("type", "string", "Its type."),
            part("name", "string", "Its name."),
        ]],
    ),
    table(
        "ColumnOptions",
        "The options of patchbay.column.….",
        &[&[
            part(
                "nullable",
                "boolean?",
                "Whether it may be null; true when left out.",
            ),
            part(
                "default",
                "any",
                "What it is when a row is written without it.",
            ),
            part(
                "primary_key",
                "boolean?",
                "Whether it is the primary key; only column.id() is.",
            ),
            part("references", "Reference?", "The column that it refers to."),
        ]],
    ),
    table(
        "Reference",
        "A foreign key of one column.",
        &[&[
            part("table", "string", "The table that it refers to."),
            part(
                "column",
                "string?",
                "The column there; \"id\" when left out.",
            ),
            part(
                "on_delete",
                "string?",
                "\"cascade\", when deleting the row there deletes this one.",
            ),
        ]],
    ),
    table(
        "IndexOptions",
        "The options of an index.",
        &[&[
            part(
                "name",
                "string?",
                "Its name; made from the table and the columns when left out.",
            ),
            part(
                "unique",
                "boolean?",
                "Whether no two rows may agree in its columns.",
            ),
        ]],
    ),
    table(
        "Change",
        "What an update sets, and where.",
        &[&[
            part("set", "{ [string]: any }", "The new values, by column."),
            part(
                "where",
                "{ [string]: any }?",
                "What rows must have, by column; all rows when left out.",
            ),
        ]],
    ),
    alias(
        "Configuration",
        "The values of a configuration, by field. What is null is nil.",
        "{ [string]: any }",
    ),
    table(
        "Context",
        "What a hook is told besides the configuration.",
        &[&[
            part(
                "data_product",
                "DataProduct?",
                "The data product; nil where an access path is rendered for none.",
            ),
            part(
                "technical_mapping",
                "\"default\" | \"custom\"",
                "How the names in a configuration come about.",
            ),
            part(
                "environment",
                "Environment?",
                "The environment that the call is about.",
            ),
            part(
                "template",
                "string?",
                "The template that was filled, in render.",
            ),
            part(
                "settings",
                "{ [string]: any }",
                "The operator's settings of the plugin, with defaults.",
            ),
        ]],
    ),
    table(
        "DataProduct",
        "The owner of configurations.",
        &[&[
            part("id", "string", "Its id."),
            part("name", "string", "What users call it."),
            part(
                "namespace",
                "string",
                "Unique, and part of the names of what it owns.",
            ),
            part(
                "domain",
                "string",
                "The business domain that it is part of.",
            ),
        ]],
    ),
    table(
        "Environment",
        "An environment, such as production.",
        &[&[
            part("id", "string", "Its id."),
            part("name", "string", "Its name."),
            part("acronym", "string", "A short name, as in prd."),
            part(
                "context",
                "string",
                "What identifies it on the platform, such as a role with {{}} for the namespace.",
            ),
            part(
                "is_default",
                "boolean",
                "Whether it is the one that is used where none is named.",
            ),
            part(
                "entry",
                "{ [string]: any }?",
                "In render: its entry that belongs to the configuration.",
            ),
        ]],
    ),
    table(
        "Db",
        "Reads the catalogue and the plugin's own rows. Belongs to one call.",
        &[&[
            part(
                "platform_options",
                "(self: Db, platform_key: string?) -> { LabelledOption }",
                "The options of a platform service, the plugin's own by default. Without them the form is not configured.",
            ),
            part(
                "environments",
                "(self: Db) -> { Environment }",
                "The environments.",
            ),
            part(
                "platform_configuration",
                "(self: Db, environment: Environment | string) -> { [string]: any }?",
                "What the plugin's platform is in an environment, given by name or as a hook got it.",
            ),
            part(
                "service_configuration",
                "(self: Db, environment: Environment | string) -> { { [string]: any } }?",
                "The entries of the plugin's service in an environment.",
            ),
            part(
                "configurations",
                "(self: Db, filter: ConfigurationFilter?) -> { StoredConfiguration }",
                "The plugin's own rows, newest first.",
            ),
        ]],
    ),
    Record {
        name: "ConfigurationFilter",
        doc: "Which rows are wanted. Other keys are fields, and what they must be.",
        shape: Shape::Open(
            &[&[
                part(
                    "data_product_id",
                    "string?",
                    "Only those of this data product.",
                ),
                part(
                    "limit",
                    "number?",
                    "At most this many, from 1 to 1,000; 100 when left out.",
                ),
            ]],
            "any",
        ),
    },
    Record {
        name: "StoredConfiguration",
        doc: "A row: what belongs to every configuration, and the plugin's fields.",
        shape: Shape::Open(
            &[&[
                part("id", "string", "Its id."),
                part("name", "string", "Its name."),
                part("data_product_id", "string", "Who owns it."),
                part(
                    "technical_mapping",
                    "\"default\" | \"custom\"",
                    "How its names come about.",
                ),
            ]],
            "any",
        ),
    },
    table(
        "FieldError",
        "Something that is wrong with a configuration.",
        &[&[
            part(
                "field",
                "string?",
                "The field; nil when it is the configuration as a whole.",
            ),
            part(
                "message",
                "string",
                "What is wrong, for whoever filled in the form.",
            ),
        ]],
    ),
    alias(
        "Errors",
        "What is wrong: an error, a text, or a list of them. Nothing when the list is empty.",
        "string | FieldError | { string | FieldError }",
    ),
    table(
        "Refusal",
        "Why there is no link. Made by patchbay.not_found and patchbay.bad_request.",
        &[&[
            part(
                "kind",
                "string",
                "\"not_found\" or \"bad_request\"; a spec also meets \"not_implemented\".",
            ),
            part("message", "string", "What is missing."),
        ]],
    ),
    alias("Null", "JSON null: the type of patchbay.null.", "any"),
];
