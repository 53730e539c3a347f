//! Texts of others as a log or a terminal may have them: what would do something there instead of being shown is written
//! as it would be in a string.

use std::borrow::Cow;

use patchbay_lua::reorders_text;

/// Whether a character does something to a terminal, or to how the text around it is read.
pub(crate) fn acts(letter: char) -> bool {
    letter.is_control() || reorders_text(letter)
}

/// The text with `\u{…}` for each character that [acts], but for those that are `kept`.
pub(crate) fn visible<'a>(text: &'a str, kept: &[char]) -> Cow<'a, str> {
    let hidden = |letter: char| acts(letter) && !kept.contains(&letter);
    if !text.contains(hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match hidden(letter) {
            true => shown.extend(letter.escape_default()),
            false => shown.push(letter),
        }
    }
    Cow::Owned(shown)
}

/// The same for JSON, which has its own way to write such characters. Line ends and blanks between values stay.
pub(crate) fn visible_json(json: &str) -> Cow<'_, str> {
    let hidden = |letter: char| acts(letter) && !letter.is_ascii();
    if !json.contains(hidden) {
        return Cow::Borrowed(json);
    }
    let mut shown = String::with_capacity(json.len() + 16);
    for letter in json.chars() {
        match hidden(letter) {
            true => shown.push_str(&format!("\\u{:04x}", u32::from(letter))),
            false => shown.push(letter),
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_is_shown_and_the_rest_stays() {
        let text = "a\u{1b}[2J\u{9b}31m\u{202e}é\n\tb";
        assert_eq!(
            visible(text, &['\n', '\t']),
            "a\\u{1b}[2J\\u{9b}31m\\u{202e}é\n\tb"
        );
        assert_eq!(visible("a\nb", &[]), "a\\nb");
        assert_eq!(visible("plain é", &[]), "plain é");
        let json = serde_json::to_string(&[text]).expect("JSON");
        let shown = visible_json(&json);
        assert!(!shown.contains(acts), "{shown}");
        assert_eq!(
            serde_json::from_str::<[String; 1]>(&shown).expect("JSON"),
            [text]
        );
    }
}
