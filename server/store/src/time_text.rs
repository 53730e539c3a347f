//! Times as SQLite keeps them: RFC 3339 in UTC, always with six digits of a second, so that text orders as time does.

use std::fmt::Write;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Now, as precisely as both databases keep it.
pub(crate) fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_microsecond(now.microsecond())
        .unwrap_or_else(|_| unreachable!("the microseconds are the time's own"))
}

/// The text of a time.
pub(crate) fn format(time: OffsetDateTime) -> String {
    let time = time.to_offset(time::UtcOffset::UTC);
    let mut text = String::with_capacity(27);
    let written = write!(
        text,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.microsecond()
    );
    debug_assert!(written.is_ok(), "writing to a string does not fail");
    text
}

/// The time of a text.
pub(crate) fn parse(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_orders_as_time_does() {
        let base = OffsetDateTime::UNIX_EPOCH;
        let times: Vec<OffsetDateTime> = [0, 1, 10, 999_999, 1_000_000, 86_400_000_000]
            .into_iter()
            .map(|micros| base + time::Duration::microseconds(micros))
            .collect();
        let texts: Vec<String> = times.iter().map(|time| format(*time)).collect();
        assert_eq!(texts[1], "1970-01-01T00:00:00.000001Z");
        assert!(texts.is_sorted());
        let back: Vec<OffsetDateTime> = texts.iter().filter_map(|text| parse(text)).collect();
        assert_eq!(back, times);
        let now = now();
        assert_eq!(parse(&format(now)), Some(now));
    }
}
