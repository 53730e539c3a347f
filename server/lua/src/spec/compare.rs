//! What an expectation compares, and how a difference is shown.

use std::fmt::Write;

use patchbay_plugin::term::Term;
use similar::{ChangeTag, TextDiff};

/// Whether a term holds a function, of which nobody can say whether it equals another.
pub(super) fn has_function(term: &Term) -> bool {
    match term {
        Term::Function => true,
        Term::List(items) => items.iter().any(has_function),
        Term::Table(entries) => entries.iter().any(|(_, term)| has_function(term)),
        _ => false,
    }
}

/// Whether two terms are the same value. Numbers are compared as numbers.
pub(super) fn equal(one: &Term, other: &Term) -> bool {
    match (one, other) {
        (Term::Integer(one), Term::Number(other)) | (Term::Number(other), Term::Integer(one)) => {
            *one as f64 == *other
        }
        (Term::List(one), Term::List(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| equal(one, other))
        }
        (Term::Table(one), Term::Table(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(key, value)| entry(other, key).is_some_and(|other| equal(value, other)))
        }
        _ => one == other,
    }
}

fn entry<'a>(entries: &'a [(String, Term)], key: &str) -> Option<&'a Term> {
    entries
        .iter()
        .find(|(name, _)| name == key)
        .map(|(_, term)| term)
}

/// Whether `whole` contains `part`: a text a text, a list an item, a table the entries of another. None when it is
/// nothing that contains.
pub(super) fn contains(whole: &Term, part: &Term) -> Option<bool> {
    match (whole, part) {
        (Term::String(whole), Term::String(part)) => Some(whole.contains(part)),
        (Term::List(items), part) => Some(items.iter().any(|item| equal(item, part))),
        (Term::Table(whole), Term::Table(part)) => Some(
            part.iter()
                .all(|(key, value)| entry(whole, key).is_some_and(|found| equal(found, value))),
        ),
        (Term::Table(_), Term::List(items)) if items.is_empty() => Some(true),
        _ => None,
    }
}

/// A value as an author would write it.
pub(super) fn shown(term: &Term) -> String {
    let mut text = String::new();
    write_term(&mut text, term, 0);
    text
}

fn write_term(text: &mut String, term: &Term, depth: usize) {
    let indent = |text: &mut String, depth: usize| {
        for _ in 0..depth {
            text.push_str("  ");
        }
    };
    match term {
        Term::Nil => text.push_str("nil"),
        Term::Null => text.push_str("patchbay.null"),
        Term::Function => text.push_str("a function"),
        Term::Boolean(value) => {
            let _ = write!(text, "{value}");
        }
        Term::Integer(value) => {
            let _ = write!(text, "{value}");
        }
        Term::Number(value) => {
            let _ = write!(text, "{value}");
        }
        Term::String(value) => {
            let _ = write!(text, "{value:?}");
        }
        Term::List(items) if items.is_empty() => text.push_str("{}"),
        Term::List(items) => {
            text.push_str("{\n");
            for item in items {
                indent(text, depth + 1);
                write_term(text, item, depth + 1);
                text.push_str(",\n");
            }
            indent(text, depth);
            text.push('}');
        }
        Term::Table(entries) => {
            text.push_str("{\n");
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| key);
            for (key, value) in entries {
                indent(text, depth + 1);
                match is_name(key) {
                    true => text.push_str(key),
                    false => {
                        let _ = write!(text, "[{key:?}]");
                    }
                }
                text.push_str(" = ");
                write_term(text, value, depth + 1);
                text.push_str(",\n");
            }
            indent(text, depth);
            text.push('}');
        }
    }
}

fn is_name(key: &str) -> bool {
    key.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The lines in which two shown values differ, each with some lines around it; none where a look at both is easier.
pub(super) fn difference(expected: &str, found: &str) -> Option<String> {
    if !expected.contains('\n') && !found.contains('\n') {
        return None;
    }
    let diff = TextDiff::from_lines(expected, found);
    let mut text = String::new();
    for (place, group) in diff.grouped_ops(2).iter().enumerate() {
        if place > 0 {
            text.push_str("  …\n");
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            text.push_str(match change.tag() {
                ChangeTag::Delete => "- ",
                ChangeTag::Insert => "+ ",
                ChangeTag::Equal => "  ",
            });
            text.push_str(change.value().trim_end_matches('\n'));
            text.push('\n');
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn term(value: serde_json::Value) -> Term {
        Term::from_json(value)
    }

    #[test]
    fn tables_are_equal_by_what_they_hold() {
        let one = Term::Table(vec![
            ("a".into(), Term::Integer(1)),
            ("b".into(), Term::Null),
        ]);
        let other = Term::Table(vec![
            ("b".into(), Term::Null),
            ("a".into(), Term::Number(1.0)),
        ]);
        assert!(equal(&one, &other));
        assert!(!equal(&one, &term(json!({"a": 1}))));
        assert!(!equal(&term(json!([1, 2])), &term(json!([2, 1]))));
        assert!(has_function(&Term::List(vec![Term::Function])));
    }

    #[test]
    fn texts_lists_and_tables_contain() {
        let whole = term(json!({"a": [1], "b": {"c": 2}}));
        assert_eq!(contains(&whole, &term(json!({"a": [1]}))), Some(true));
        assert_eq!(contains(&whole, &term(json!({"b": {}}))), Some(false));
        assert_eq!(
            contains(&term(json!(["x", {"y": 1}])), &term(json!({"y": 1}))),
            Some(true)
        );
        assert_eq!(
            contains(&term(json!("abc")), &term(json!("bc"))),
            Some(true)
        );
        assert_eq!(contains(&term(json!(5)), &term(json!(5))), None);
    }

    #[test]
    fn a_difference_shows_its_lines_and_a_few_around_them() {
        let list = |last: &str| {
            shown(&term(
                json!({"items": ["a", "b", "c", "d", "e", "f", last], "an odd key": true}),
            ))
        };
        assert_eq!(
            difference(&list("g"), &list("h")).expect("a difference"),
            "      \"e\",\n      \"f\",\n-     \"g\",\n+     \"h\",\n    },\n  }\n"
        );
        assert_eq!(difference("1", "2"), None);
    }
}
