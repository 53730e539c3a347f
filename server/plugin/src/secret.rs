//! Secrets in configurations of the catalogue: how they are told, and that they never leave.
//!
//! Whatever a hook or a template can read may end up in an answer, so a snapshot of the catalogue has none; over REST each
//! goes out as `""`, and `""` that comes back keeps what is stored.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;

use serde_json::Value;

use crate::Map;
use crate::validation::{Loc, LocStep};

/// Whether a key of an environment's configuration holds a secret.
///
/// `admin_pwd` is the origin's; the words are how such keys end wherever they come from, in `snake_case`, `kebab-case`
/// and `camelCase`. Any other value is marked as a secret by writing it as `{ "secret": … }`.
pub fn is_secret_key(key: &str) -> bool {
    const ENDINGS: &[&str] = &[
        "pwd",
        "passwd",
        "password",
        "passphrase",
        "secret",
        "token",
        "credential",
        "credentials",
        "private_key",
        "api_key",
        "apikey",
        "secret_key",
        "secretkey",
        "access_key",
        "accesskey",
        "pass",
        "passcode",
        "bearer",
        "pw",
        "authorization",
        "connection_string",
        "connectionstring",
        "dsn",
        "ssh_key",
        "account_key",
        "storage_key",
        "shared_key",
        "signing_key",
        "master_key",
        "sas",
        "sas_url",
    ];
    /// What is a secret alone, and at the end of other words is none, as in `function_signature`.
    const WHOLE: &[&str] = &["pin", "signature"];
    let words = words_of(key);
    let words = words.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '_');
    WHOLE.contains(&words)
        || ENDINGS.iter().any(|ending| {
            words == *ending
                || words
                    .strip_suffix(ending)
                    .is_some_and(|rest| rest.ends_with('_'))
        })
}

/// A key in `snake_case`, however it was written: `authToken` and `APIToken` have two words each.
fn words_of(key: &str) -> String {
    let letters: Vec<char> = key.chars().collect();
    let mut words = String::with_capacity(key.len() + 4);
    for (place, letter) in letters.iter().enumerate() {
        let before = place.checked_sub(1).and_then(|before| letters.get(before));
        let after = letters.get(place + 1);
        let begins_word = letter.is_uppercase()
            && before.is_some_and(|before| {
                before.is_lowercase()
                    || before.is_ascii_digit()
                    || (before.is_uppercase() && after.is_some_and(|after| after.is_lowercase()))
            });
        if begins_word {
            words.push('_');
        }
        match letter {
            '-' | ' ' | '.' => words.push('_'),
            other => words.extend(other.to_lowercase()),
        }
    }
    words
}

/// The configuration without its secrets, at any depth: also without the passwords in its URLs.
pub fn without_secrets(value: &Value) -> Value {
    map_secrets(value, &|_| None, "")
}

/// The configuration as it goes out over REST: each secret that is set as `""`, and no password in a URL.
pub fn with_blank_secrets(value: &Value) -> Value {
    let blank = |secret: &Value| {
        Some(if secret.is_null() {
            Value::Null
        } else {
            Value::String(String::new())
        })
    };
    map_secrets(value, &blank, ":")
}

/// `password` is what stands in a URL for the colon and the password.
fn map_secrets(value: &Value, secret: &dyn Fn(&Value) -> Option<Value>, password: &str) -> Value {
    match value {
        Value::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| map_secrets(item, secret, password))
                .collect(),
        ),
        Value::Object(entries) => Value::Object(
            entries
                .iter()
                .filter_map(|(key, value)| {
                    let kept = if is_secret_key(key) {
                        secret(value)?
                    } else {
                        map_secrets(value, secret, password)
                    };
                    Some((key.clone(), kept))
                })
                .collect::<Map>(),
        ),
        Value::String(text) => {
            let found = passwords_of(text);
            Value::String(replaced(text, &found, |_| password))
        }
        other => other.clone(),
    }
}

/// Where URLs in a text have a password, its colon included: `:hush` in `postgres://user:hush@host/db`.
///
/// A user alone is none: `abfss://container@account` names a place.
fn passwords_of(text: &str) -> Vec<Range<usize>> {
    const SCHEME: &str = "://";
    let ends_authority = |letter: char| {
        matches!(letter, '/' | '?' | '#' | '"' | '\'' | '<' | '>') || letter.is_whitespace()
    };
    text.match_indices(SCHEME)
        .filter_map(|(place, _)| {
            let begins = place + SCHEME.len();
            let rest = text.get(begins..)?;
            let authority = rest.split(ends_authority).next()?;
            let user_information = authority.rsplit_once('@')?.0;
            let colon = user_information.find(':')?;
            Some(begins + colon..begins + user_information.len())
        })
        .collect()
}

/// The text with other words at these places; `word` is told which of them it is.
fn replaced<'a>(text: &str, places: &[Range<usize>], word: impl Fn(usize) -> &'a str) -> String {
    let mut whole = String::with_capacity(text.len());
    let mut done = 0;
    for (number, place) in places.iter().enumerate() {
        whole.push_str(text.get(done..place.start).unwrap_or_default());
        whole.push_str(word(number));
        done = place.end;
    }
    whole.push_str(text.get(done..).unwrap_or_default());
    whole
}

/// Why a configuration cannot replace what is stored: some secret would be lost, or come to another entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unkept {
    /// Where in the configuration.
    pub loc: Loc,
    /// What is wrong, as a sentence.
    pub message: String,
    /// What was sent there.
    pub input: Value,
}

impl fmt::Display for Unkept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("config")?;
        for step in &self.loc {
            match step {
                LocStep::Key(key) => write!(f, ".{key}")?,
                LocStep::Index(place) => write!(f, "[{place}]")?,
            }
        }
        write!(f, ": {}", self.message)
    }
}

/// The configuration to store when `sent` replaces `stored`: a secret sent as `""` keeps what is stored, null clears it.
///
/// Entries of a list are matched by their `identifier`; those without one by what they look like without their secrets,
/// else, in a list that is as long as before, by their place.
///
/// # Errors
/// [`Unkept`] where it is not certain whose secret is kept: an identifier twice in a list, and `""` in an entry that
/// cannot be told to be one of those stored, such as one that was renamed, or that was edited and moved.
pub fn keep_secrets(sent: &Value, stored: Option<&Value>) -> Result<Value, Unkept> {
    keep(sent, Before::of(stored), &mut Vec::new())
}

/// What stands where a part of a configuration comes to.
#[derive(Clone, Copy)]
enum Before<'a> {
    Stored(&'a Value),
    Nothing,
    /// Nothing, though the list has other entries.
    NoSuchEntry,
}

impl<'a> Before<'a> {
    fn of(stored: Option<&'a Value>) -> Before<'a> {
        stored.map_or(Before::Nothing, Before::Stored)
    }

    fn at(self, key: &str) -> Before<'a> {
        match self {
            Before::Stored(stored) => Before::of(stored.get(key)),
            other => other,
        }
    }
}

fn keep(sent: &Value, before: Before<'_>, loc: &mut Loc) -> Result<Value, Unkept> {
    match sent {
        Value::Object(entries) => {
            let mut kept = Map::new();
            for (key, value) in entries {
                loc.push(key.as_str().into());
                let before = before.at(key);
                let value = match is_secret_key(key) {
                    true => keep_secret(value, before, loc)?,
                    false => Some(keep(value, before, loc)?),
                };
                loc.pop();
                if let Some(value) = value {
                    kept.insert(key.clone(), value);
                }
            }
            Ok(Value::Object(kept))
        }
        Value::Array(items) => {
            let entries = Entries::of(items, before);
            let mut kept = Vec::with_capacity(items.len());
            let mut identifiers = HashSet::new();
            for (place, item) in items.iter().enumerate() {
                loc.push(place.into());
                let identifier = identifier_of(item);
                if let Some(identifier) = identifier
                    && !identifiers.insert(identifier)
                {
                    loc.push("identifier".into());
                    return Err(Unkept {
                        loc: std::mem::take(loc),
                        message: format!(
                            "Each entry needs an identifier of its own, {identifier} is another one's too"
                        ),
                        input: identifier.clone(),
                    });
                }
                kept.push(keep(item, entries.before(item, place), loc)?);
                loc.pop();
            }
            Ok(Value::Array(kept))
        }
        Value::String(text) => keep_passwords(text, before, loc).map(Value::String),
        other => Ok(other.clone()),
    }
}

/// A text whose URLs have their passwords again, where these are empty as they went out.
fn keep_passwords(text: &str, before: Before<'_>, loc: &mut Loc) -> Result<String, Unkept> {
    let sent = passwords_of(text);
    let is_blank = |place: &Range<usize>| place.len() == 1;
    if !sent.iter().any(is_blank) {
        return Ok(text.to_owned());
    }
    let stored = match before {
        Before::Stored(Value::String(stored)) => stored.as_str(),
        Before::NoSuchEntry => return Err(no_such_secret(text.into(), loc)),
        Before::Stored(_) | Before::Nothing => "",
    };
    let kept = passwords_of(stored);
    if kept.len() != sent.len() {
        return Ok(text.to_owned());
    }
    Ok(replaced(text, &sent, |number| {
        let own = sent.get(number).filter(|place| !is_blank(place));
        own.and_then(|place| text.get(place.clone()))
            .or_else(|| stored.get(kept.get(number)?.clone()))
            .unwrap_or_default()
    }))
}

fn no_such_secret(input: Value, loc: &mut Loc) -> Unkept {
    Unkept {
        loc: std::mem::take(loc),
        message: "There is no secret to keep: no entry that is stored can be told to be this one. Send the secret, or null for none"
            .to_owned(),
        input,
    }
}

fn identifier_of(entry: &Value) -> Option<&Value> {
    entry.get("identifier").filter(|it| !it.is_null())
}

/// The entries of a list that is stored, to find those again that are sent.
struct Entries<'a> {
    /// What stands where the list comes to.
    list: Before<'a>,
    stored: &'a [Value],
    by_identifier: HashMap<&'a Value, &'a Value>,
    /// Which entries without an identifier look like this without their secrets.
    by_look: HashMap<Value, Vec<&'a Value>>,
    /// How many are sent that look so.
    looks: HashMap<&'a Value, Vec<usize>>,
    is_as_long: bool,
}

impl<'a> Entries<'a> {
    fn of(sent: &'a [Value], list: Before<'a>) -> Entries<'a> {
        let stored = match list {
            Before::Stored(Value::Array(stored)) => stored.as_slice(),
            _ => &[],
        };
        let mut entries = Entries {
            list,
            stored,
            by_identifier: HashMap::new(),
            by_look: HashMap::new(),
            looks: HashMap::new(),
            is_as_long: sent.len() == stored.len(),
        };
        for entry in stored {
            match identifier_of(entry) {
                Some(identifier) => {
                    entries.by_identifier.entry(identifier).or_insert(entry);
                }
                None => {
                    let look = with_blank_secrets(entry);
                    entries.by_look.entry(look).or_default().push(entry);
                }
            }
        }
        for (place, entry) in sent.iter().enumerate() {
            if identifier_of(entry).is_none() && entries.by_look.contains_key(entry) {
                entries.looks.entry(entry).or_default().push(place);
            }
        }
        entries
    }

    /// What is stored of the entry that is sent at this place.
    fn before(&self, entry: &Value, place: usize) -> Before<'a> {
        if !matches!(self.list, Before::Stored(Value::Array(_))) {
            return self.list;
        }
        if let Some(identifier) = identifier_of(entry) {
            let stored = self.by_identifier.get(identifier);
            return stored.map_or(Before::NoSuchEntry, |stored| Before::Stored(stored));
        }
        if let Some(alike) = self.by_look.get(entry) {
            let sent = self.looks.get(entry).map_or(&[][..], Vec::as_slice);
            let is_one = alike.iter().all(|other| other == &alike[0]);
            let number = sent.iter().position(|other| *other == place);
            return match number.filter(|_| sent.len() == alike.len()) {
                Some(number) => Before::Stored(alike[number]),
                None if is_one => Before::Stored(alike[0]),
                None => Before::NoSuchEntry,
            };
        }
        // It was edited where it stands, unless what stood there is sent elsewhere.
        let stored = self.stored.get(place).filter(|stored| {
            let is_elsewhere = || self.looks.contains_key(&with_blank_secrets(stored));
            self.is_as_long && identifier_of(stored).is_none() && !is_elsewhere()
        });
        match stored {
            Some(stored) => Before::Stored(stored),
            None if self.stored.is_empty() => Before::Nothing,
            None => Before::NoSuchEntry,
        }
    }
}

fn keep_secret(sent: &Value, before: Before<'_>, loc: &mut Loc) -> Result<Option<Value>, Unkept> {
    match (sent, before) {
        (Value::Null, _) => Ok(None),
        (Value::String(text), before) if text.is_empty() => match before {
            Before::Stored(stored) => Ok(Some(stored.clone())),
            Before::Nothing => Ok(None),
            Before::NoSuchEntry => Err(no_such_secret(sent.clone(), loc)),
        },
        (other, _) => Ok(Some(other.clone())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_never_leave_and_blank_keeps_them() {
        let stored = json!([{"identifier": "a", "host": "h", "admin_pwd": "x"}, {"identifier": "b", "admin_pwd": "y"}]);
        assert_eq!(
            without_secrets(&stored),
            json!([{"identifier": "a", "host": "h"}, {"identifier": "b"}])
        );
        assert_eq!(
            with_blank_secrets(&stored),
            json!([{"identifier": "a", "host": "h", "admin_pwd": ""}, {"identifier": "b", "admin_pwd": ""}])
        );
        let sent =
            json!([{"identifier": "b", "admin_pwd": ""}, {"identifier": "a", "admin_pwd": null}]);
        assert_eq!(
            keep_secrets(&sent, Some(&stored)),
            Ok(json!([{"identifier": "b", "admin_pwd": "y"}, {"identifier": "a"}]))
        );
        assert_eq!(keep_secrets(&json!({"admin_pwd": ""}), None), Ok(json!({})));
    }

    #[test]
    fn a_secret_is_neither_lost_nor_given_to_another_entry() {
        let stored =
            json!([{"identifier": "a", "admin_pwd": "x"}, {"identifier": "b", "admin_pwd": "y"}]);
        let refused = |sent: Value, stored: Option<&Value>| {
            keep_secrets(&sent, stored)
                .expect_err("a refusal")
                .to_string()
        };
        let twice =
            json!([{"identifier": "a", "admin_pwd": ""}, {"identifier": "a", "admin_pwd": ""}]);
        for stored in [Some(&stored), None] {
            assert_eq!(
                refused(twice.clone(), stored),
                "config[1].identifier: Each entry needs an identifier of its own, \"a\" is another one's too"
            );
        }
        let renamed = json!([{"identifier": "z", "login": {"admin_pwd": ""}}, {"identifier": "b", "admin_pwd": ""}]);
        let told = refused(renamed, Some(&stored));
        assert!(
            told.starts_with("config[0].login.admin_pwd: There is no secret to keep"),
            "{told}"
        );
        // What is new may say that it has none, and an entry that had none may stay so.
        let without =
            json!([{"identifier": "z", "admin_pwd": null}, {"identifier": "b", "user_pwd": ""}]);
        assert_eq!(
            keep_secrets(&without, Some(&stored)),
            Ok(json!([{"identifier": "z"}, {"identifier": "b"}]))
        );
    }

    #[test]
    fn entries_without_an_identifier_keep_their_own_secrets() {
        let entry = |host: &str, secret: &str| json!({ "host": host, "pwd": secret });
        let stored = json!([entry("a", "x"), entry("b", "y"), entry("b", "z")]);
        let kept = |sent: Value| keep_secrets(&sent, Some(&stored));
        // As they went out; in another order; one edited where it stands.
        let (a, b) = (entry("a", ""), entry("b", ""));
        assert_eq!(kept(json!([a, b, b])), Ok(stored.clone()));
        assert_eq!(
            kept(json!([b, a, b])),
            Ok(json!([entry("b", "y"), entry("a", "x"), entry("b", "z")]))
        );
        assert_eq!(
            kept(json!([entry("c", ""), b, b])),
            Ok(json!([entry("c", "x"), entry("b", "y"), entry("b", "z")]))
        );
        // One is gone: what is left is known by its look, unless others look the same.
        assert_eq!(kept(json!([a])), Ok(json!([entry("a", "x")])));
        for unsure in [
            json!([b]),
            json!([entry("c", ""), b]),
            json!([b, entry("c", ""), a]),
            json!([a, b, b, entry("c", "")]),
        ] {
            let refused = kept(unsure.clone()).expect_err("a refusal");
            assert!(
                refused.message.starts_with("There is no secret to keep"),
                "{unsure}"
            );
        }
        let urls = json!(["s://u:1@a", "s://u:2@b"]);
        assert_eq!(
            keep_secrets(&json!(["s://u:@b", "s://u:@a"]), Some(&urls)),
            Ok(json!(["s://u:2@b", "s://u:1@a"]))
        );
    }

    #[test]
    fn passwords_in_urls_never_leave_and_blank_keeps_them() {
        let stored = json!({"url": "jdbc:postgresql://u:hu:sh@h:5432/db?a=b@c"});
        let blank = json!({"url": "jdbc:postgresql://u:@h:5432/db?a=b@c"});
        assert_eq!(with_blank_secrets(&stored)["url"], blank["url"]);
        assert_eq!(
            without_secrets(&stored)["url"],
            json!("jdbc:postgresql://u@h:5432/db?a=b@c")
        );
        let two = json!("amqp://u:p1@a http://v:p2@b");
        assert_eq!(with_blank_secrets(&two), json!("amqp://u:@a http://v:@b"));
        for same in [
            "abfss://container@account.dfs.core.windows.net/x",
            "ssh://git@host:22/x",
            "https://host:8080/a:b@c",
            "u:p@h",
            "://",
        ] {
            assert_eq!(with_blank_secrets(&json!(same)), json!(same));
            assert_eq!(keep_secrets(&json!(same), None), Ok(json!(same)));
        }
        let kept = |sent: Value, stored: Value| keep_secrets(&sent, Some(&stored)).expect("kept");
        assert_eq!(
            kept(
                json!({"url": "s://u:@new/é"}),
                json!({"url": "s://u:hush@old"})
            ),
            json!({"url": "s://u:hush@new/é"})
        );
        assert_eq!(
            kept(json!("amqp://u:@a http://v:new@b"), two),
            json!("amqp://u:p1@a http://v:new@b")
        );
        assert_eq!(
            kept(json!("s://u@h"), json!("s://u:hush@h")),
            json!("s://u@h")
        );
        let renamed = json!([{"identifier": "z", "url": "s://u:@h"}]);
        let stored = json!([{"identifier": "a", "url": "s://u:hush@h"}]);
        let refused = keep_secrets(&renamed, Some(&stored)).expect_err("a refusal");
        assert_eq!(refused.loc, [LocStep::Index(0), "url".into()]);
    }

    #[test]
    fn secret_keys_are_known_in_every_spelling() {
        for key in [
            "admin_pwd",
            "PASSWORD",
            "clientSecret",
            "api-key",
            "accessKey",
            "authToken",
            "APIToken",
            "secret",
            "apikey",
            "password1",
            "connection_string",
            "ConnectionString",
            "sentry-dsn",
            "Authorization",
            "deploy_ssh_key",
            "accountKey",
            "signature",
            "container_sas",
            "master_pw",
            "pin",
        ] {
            assert!(is_secret_key(key), "{key}");
        }
        for key in [
            "tokenizer",
            "credential_name",
            "kms_key_arn",
            "secretary",
            "login_url",
            "mapping",
            "function_signature",
            "atlas",
            "primary_key",
            "ssh_key_name",
            "authorization_url",
            "connection",
        ] {
            assert!(!is_secret_key(key), "{key}");
        }
        assert_eq!(
            without_secrets(&json!({"login": {"secret": "x"}})),
            json!({"login": {}})
        );
    }
}
