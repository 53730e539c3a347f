//! The tables that cross the border between a spec and its host.

use crate::api::{Record, part, table};

/// Every type of the API of specs.
pub const SPEC_RECORDS: &[Record] = &[
    table(
        "Expectation",
        "What is expected of a value. An expectation that fails ends the test.",
        &[&[
            part(
                "never",
                "Expectation",
                "The opposite of the matcher that follows.",
            ),
            part(
                "to_be",
                "(self: Expectation, expected: any) -> ()",
                "It is the same value. For texts, numbers, booleans and nil.",
            ),
            part(
                "to_equal",
                "(self: Expectation, expected: any) -> ()",
                "It is plain data that holds the same.",
            ),
            part(
                "to_contain",
                "(self: Expectation, expected: any) -> ()",
                "It is a text with that part, a list with that item, or a table with those entries.",
            ),
            part(
                "to_match",
                "(self: Expectation, pattern: string) -> ()",
                "It is a text that matches a Lua pattern.",
            ),
            part(
                "to_fail",
                "(self: Expectation, message: string?) -> ()",
                "It is a function that raises an error when it is called, with that text in its message.",
            ),
            part(
                "to_match_snapshot",
                "(self: Expectation, name: string) -> ()",
                "It is what it was when the snapshot of that name was written, with --update.",
            ),
        ]],
    ),
    table(
        "PluginUnderTest",
        "The plugin beside the spec. Each method takes the world around the call, over that of patchbay.test.plugin.",
        &[&[
            part(
                "definition",
                "Definition",
                "What the plugin is, once it is checked.",
            ),
            part(
                "form",
                "(self: PluginUnderTest, world: World?) -> Form",
                "The form, as the server gives it out; what is null is nil.",
            ),
            part(
                "normalize",
                "(self: PluginUnderTest, configuration: Configuration, world: World?) -> (Configuration?, { FieldError }?)",
                "The values as they are stored: checked by the fields, normalised, checked again. Or nil and errors.",
            ),
            part(
                "validate",
                "(self: PluginUnderTest, configuration: Configuration, world: World?) -> { FieldError }",
                "Everything that a server says is wrong with a configuration: by its fields, by normalize, by validate.",
            ),
            part(
                "render",
                "(self: PluginUnderTest, template: string, configuration: Configuration, world: World?) -> (string?, string?)",
                "A template, filled and finished; with an environment as its technical info. Nil where no entry belongs to it.",
            ),
            part(
                "url",
                "(self: PluginUnderTest, world: World?) -> (string?, Refusal?)",
                "The link, or nil and the refusal.",
            ),
            part(
                "upgrade",
                "(self: PluginUnderTest, configuration: Configuration, from_version: string, world: World?) -> (Configuration?, { FieldError }?)",
                "The values of a row of an older version as they are stored: upgraded, checked, normalised and validated. Or nil and errors.",
            ),
        ]],
    ),
    table(
        "World",
        "What is around a call of the plugin. All of it may be left out.",
        &[&[
            part(
                "catalogue",
                "FakeCatalogue?",
                "The catalogue; no options and two plain environments when left out.",
            ),
            part(
                "data_product",
                "(FakeDataProduct | false)?",
                "The data product, or false for none; \"sales\" when left out.",
            ),
            part(
                "technical_mapping",
                "(\"default\" | \"custom\")?",
                "The technical mapping; \"default\" when left out.",
            ),
            part(
                "environment",
                "string?",
                "The name of the environment that the call is about.",
            ),
            part(
                "configurations",
                "{ Configuration }?",
                "The plugin's rows. They belong to the data product unless they say otherwise.",
            ),
            part(
                "settings",
                "{ [string]: any }?",
                "The operator's settings of the plugin.",
            ),
        ]],
    ),
    table(
        "FakeCatalogue",
        "A catalogue, as a spec writes it.",
        &[&[
            part(
                "options",
                "{ string }?",
                "The options of the plugin's own service. Without them the form is not configured.",
            ),
            part(
                "services",
                "{ [string]: { string } }?",
                "The options of other services, by platform key.",
            ),
            part(
                "environments",
                "{ FakeEnvironment }?",
                "The environments; development and production when left out.",
            ),
        ]],
    ),
    table(
        "FakeEnvironment",
        "An environment, as a spec writes it.",
        &[&[
            part("name", "string", "Its name."),
            part(
                "acronym",
                "string?",
                "A short name; its name when left out.",
            ),
            part("context", "string?", "What identifies it on the platform."),
            part("is_default", "boolean?", "Whether it is the default."),
            part(
                "platform_configuration",
                "{ [string]: any }?",
                "What the plugin's platform is in it. Secrets are left out, as everywhere.",
            ),
            part(
                "service_configuration",
                "{ { [string]: any } }?",
                "The entries of the plugin's service in it.",
            ),
        ]],
    ),
    table(
        "FakeDataProduct",
        "A data product, as a spec writes it.",
        &[&[
            part("id", "string?", "Its id."),
            part(
                "name",
                "string?",
                "What users call it; \"Sales\" when left out.",
            ),
            part(
                "namespace",
                "string?",
                "Its namespace; \"sales\" when left out.",
            ),
            part(
                "domain",
                "string?",
                "Its domain; \"commerce\" when left out.",
            ),
        ]],
    ),
    table(
        "Form",
        "A form, as the server gives it out.",
        &[&[
            part(
                "not_configured",
                "boolean",
                "Whether the catalogue lacks what it needs; then there are no elements.",
            ),
            part(
                "elements",
                "{ { [string]: any } }",
                "Its elements, in order.",
            ),
        ]],
    ),
    table(
        "Definition",
        "A plugin's definition, once it is checked, with its defaults.",
        &[&[
            part("name", "string", "Its name."),
            part("version", "string", "Its version, as written."),
            part("aliases", "{ string }", "Other names it answers to."),
            part(
                "requires",
                "string?",
                "The Patchbay versions it works with.",
            ),
            part(
                "platform",
                "{ [string]: any }",
                "How it presents itself, with its defaults.",
            ),
            part("fields", "{ { [string]: any } }", "Its fields."),
            part("settings", "{ { [string]: any } }", "Its settings."),
            part("table", "string?", "Its table."),
            part("examples", "{ Configuration }", "Its examples."),
            part(
                "hooks",
                "{ [string]: boolean }",
                "Which hooks it has, by name.",
            ),
            part(
                "environment_entry",
                "string?",
                "The field that the identifier of an environment's entry equals, or \"first\".",
            ),
            part(
                "placeholders",
                "{ string }",
                "Placeholders that render fills.",
            ),
            part(
                "migrations",
                "{ string }",
                "The ids of its written migrations.",
            ),
        ]],
    ),
];
