//! The snapshots of one spec: values by name, kept as JSON beside it.

use std::collections::{BTreeMap, BTreeSet};

use patchbay_plugin::term::Term;
use serde_json::Value;

/// The snapshots of one spec, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshots(BTreeMap<String, Value>);

impl Snapshots {
    /// Reads what [`Snapshots::to_text`] wrote.
    ///
    /// # Errors
    /// Why the text is none.
    pub fn parse(text: &str) -> Result<Snapshots, String> {
        serde_json::from_str(text)
            .map(Snapshots)
            .map_err(|error| format!("it is no object of snapshots by name: {error}"))
    }

    /// As JSON, ordered by name, and every table by key: the same values always give the same text.
    pub fn to_text(&self) -> String {
        let mut text = serde_json::to_string_pretty(&self.0)
            .unwrap_or_else(|_| unreachable!("JSON can be written"));
        text.push('\n');
        text
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a value came to beside its snapshot.
pub(super) enum Kept {
    /// It is as it was, or was written.
    Same,
    /// There is no snapshot of that name.
    Missing,
    /// The snapshot is this.
    Differs(Term),
}

/// The snapshots while a spec runs.
#[derive(Default)]
pub(super) struct Book {
    before: Snapshots,
    now: Snapshots,
    asked: BTreeSet<String>,
    update: bool,
}

impl Book {
    pub(super) fn new(before: Snapshots, update: bool) -> Book {
        Book {
            now: before.clone(),
            before,
            asked: BTreeSet::new(),
            update,
        }
    }

    /// Compares a value with the snapshot of that name; writes it instead when that was asked for.
    pub(super) fn look(&mut self, name: &str, value: &Term) -> Kept {
        let first = self.asked.insert(name.to_owned());
        let known = self.now.0.get(name).cloned().map(Term::from_json);
        match known {
            Some(known) if super::compare::equal(&known, value) => Kept::Same,
            // A name stands for one value: the second that differs is a mistake, not an update.
            known if self.update && (first || known.is_none()) => {
                self.now
                    .0
                    .insert(name.to_owned(), value.clone().into_json());
                Kept::Same
            }
            Some(known) => Kept::Differs(known),
            None => Kept::Missing,
        }
    }

    /// What is to be stored, if anything changed, and the names that nobody asked for. Those are only dropped where all
    /// tests ran and passed.
    pub(super) fn close(mut self, all_ran: bool) -> (Option<Snapshots>, Vec<String>) {
        let mut obsolete: Vec<String> = Vec::new();
        if all_ran {
            obsolete = self
                .now
                .0
                .keys()
                .filter(|name| !self.asked.contains(*name))
                .cloned()
                .collect();
        }
        if self.update {
            for name in obsolete.drain(..) {
                self.now.0.remove(&name);
            }
        }
        ((self.now != self.before).then_some(self.now), obsolete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(text: &str, update: bool) -> Book {
        Book::new(Snapshots::parse(text).expect("snapshots"), update)
    }

    #[test]
    fn a_snapshot_is_compared_and_only_written_when_told() {
        let mut book = book(r#"{"a": [1, 2.0], "old": 1}"#, false);
        let same = Term::List(vec![Term::Integer(1), Term::Integer(2)]);
        assert!(matches!(book.look("a", &same), Kept::Same));
        assert!(matches!(
            book.look("a", &Term::Null),
            Kept::Differs(Term::List(_))
        ));
        assert!(matches!(book.look("b", &Term::Null), Kept::Missing));
        assert_eq!(book.close(true), (None, vec!["old".to_owned()]));
    }

    #[test]
    fn updating_writes_what_differs_and_drops_what_nobody_asks_for() {
        let mut changed = book(r#"{"a": 1, "old": 1}"#, true);
        assert!(matches!(changed.look("a", &Term::Integer(2)), Kept::Same));
        assert!(matches!(
            changed.look("a", &Term::Integer(3)),
            Kept::Differs(_)
        ));
        let (now, obsolete) = changed.close(true);
        assert_eq!(now.expect("a change").to_text(), "{\n  \"a\": 2\n}\n");
        assert!(obsolete.is_empty());
        let mut failed = book(r#"{"a": 1, "old": 1}"#, true);
        failed.look("a", &Term::Integer(1));
        assert_eq!(failed.close(false), (None, Vec::new()));
    }
}
