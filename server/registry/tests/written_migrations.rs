//! The law of `patchbay plugin migration new`: whatever changes between two versions, the file that is written loads, does
//! what was meant, leaves nothing to derive, and what is said of its way back is true.

use std::collections::BTreeMap;
use std::sync::Arc;

use patchbay_lua::{Limits, Sandbox, Source};
use patchbay_plugin::definition::Definition;
use patchbay_plugin::migration::{Migration, Operation, Origin, next_step, plan, written_tables};
use patchbay_registry::wrong_downs;
use patchbay_store::proof::{Proof, prove};

/// What one field may be in a version; nothing when it is not there.
const VARIANTS: &[&str] = &[
    "",
    r#"field.string "NAME""#,
    r#"field.string "NAME" { required = true }"#,
    r#"field.string "NAME" { default = "it's \\ \"x\"\n…" }"#,
    r#"field.enum "NAME" { values = { "a", "b" }, required = true }"#,
    r#"field.enum "NAME" { values = { "a", "b" }, default = "a" }"#,
    r#"field.integer "NAME" { default = -3 }"#,
    r#"field.integer "NAME" { required = true }"#,
    r#"field.number "NAME" { default = 0.5 }"#,
    r#"field.number "NAME""#,
    r#"field.boolean "NAME" { default = true }"#,
    r#"field.boolean "NAME" { required = true }"#,
    r#"field.list "NAME" { default = { "a", "b\"" } }"#,
    r#"field.list "NAME" { of = "integer", required = true }"#,
    r#"field.json "NAME" { default = { ["end"] = { 1, patchbay.null }, plain = "x" } }"#,
];

fn version(fields: &[(&str, usize)]) -> String {
    let fields: Vec<String> = fields
        .iter()
        .map(|(name, variant)| VARIANTS[*variant].replace("NAME", name))
        .filter(|field| !field.is_empty())
        .collect();
    format!(
        "local field = patchbay.field\nreturn patchbay.plugin {{ name = \"LakeDataOutput\", fields = {{ field.string \"always\", {} }} }}",
        fields.join(", ")
    )
}

/// A plugin's folder, whose migrations grow with its versions.
struct Author {
    sandbox: Sandbox,
    files: BTreeMap<String, Arc<str>>,
}

impl Author {
    fn new() -> Author {
        Author {
            sandbox: Sandbox::new(Limits::default()),
            files: BTreeMap::new(),
        }
    }

    async fn load(&self) -> Arc<Definition> {
        let source = Source {
            label: "lua-plugins/lake".to_owned(),
            entry: "plugin.lua".to_owned(),
            files: Arc::new(self.files.clone()),
            refused: Arc::default(),
            single_file: false,
            libs: Arc::default(),
        };
        let loaded = self
            .sandbox
            .load(source, Arc::new(|_, _| Ok(Default::default())));
        match loaded.await {
            Ok(plugin) => plugin.definition().clone(),
            Err(error) => panic!("{:#?}\n{:#?}", error.reports, self.files),
        }
    }

    /// Changes the fields, and has the migration written; none when the table fits.
    async fn change(&mut self, source: String) -> Option<Migration> {
        self.files.insert("plugin.lua".to_owned(), source.into());
        let before = self.load().await;
        let tables = written_tables(&before, &[]).expect("the files so far run");
        let last = before.migrations.len() as u32;
        let step = next_step(&before, &tables, last, None, false).expect("a step or none")?;
        let path = format!("migrations/{}.lua", step.id);
        self.files.insert(path.clone(), step.file().into());
        let definition = self.load().await;
        let written = definition
            .migrations
            .last()
            .expect("the file is read")
            .clone();
        assert_eq!(written.path.as_deref(), Some(path.as_str()));
        assert_eq!(
            (&written.up, &written.down),
            (&step.up, &step.down),
            "{}",
            step.file()
        );
        // Nothing is left to derive, and nothing does not fit.
        let plan =
            plan(&definition, &[]).unwrap_or_else(|error| panic!("{error}\n{:#?}", self.files));
        assert!(
            plan.pending
                .iter()
                .all(|step| step.origin == Origin::Written),
            "{plan:#?}\n{}",
            step.file()
        );
        let tables = written_tables(&definition, &[]).expect("the files run");
        let again = next_step(&definition, &tables, last + 1, None, false).expect("none");
        assert_eq!(again, None, "it fits: {}", step.file());
        // What is said is broken into lines; what is code stays as it is.
        let file = step.file();
        for line in file
            .lines()
            .filter(|line| line.trim_start().starts_with("-- "))
        {
            assert!(
                line.contains("--     ") || line.chars().count() <= 120,
                "{line}"
            );
        }
        Some(written)
    }
}

/// What a file says of its way back holds on a database.
fn goes_back(definition: &Definition) {
    assert_eq!(
        wrong_downs(definition),
        Vec::<String>::new(),
        "{definition:#?}"
    );
    let ran: Vec<&Migration> = definition.migrations.iter().collect();
    let last = ran.len() - 1;
    let proof = prove(&ran, last, definition.table.as_ref(), &definition.examples);
    let adds_only = ran[last].up.iter().all(|operation| {
        matches!(
            operation,
            Operation::AddColumn { .. } | Operation::CreateTable { .. }
        )
    });
    match proof {
        Proof::WrongDown(reason) => panic!("{reason}"),
        Proof::Irreversible(reason) => assert!(!adds_only, "{reason}: {definition:#?}"),
        Proof::Reversible => {}
    }
}

#[tokio::test]
async fn from_every_field_to_every_other() {
    for from in 0..VARIANTS.len() {
        for to in 0..VARIANTS.len() {
            let mut author = Author::new();
            let created = author.change(version(&[("it", from)])).await;
            assert!(created.is_some(), "a table is created");
            goes_back(&*author.load().await);
            let changed = author.change(version(&[("it", to)])).await;
            if from == to {
                assert_eq!(changed, None);
            }
            goes_back(&*author.load().await);
        }
    }
}

#[tokio::test]
async fn through_many_versions_of_many_fields() {
    // A sequence that looks random and is the same every time.
    let mut state = 0x5061_7463_u64;
    let mut next = move |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize % below
    };
    for _ in 0..40 {
        let mut author = Author::new();
        for _ in 0..5 {
            let names = ["one", "two", "three", "end_of", "order"];
            let fields: Vec<(&str, usize)> = names
                .iter()
                .map(|name| (*name, next(VARIANTS.len())))
                .collect();
            author.change(version(&fields)).await;
        }
        goes_back(&*author.load().await);
    }
}
