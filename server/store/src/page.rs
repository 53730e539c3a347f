//! Pages: a list, and an opaque cursor to where it goes on.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::StoreError;

/// The most items of a page.
pub const MAX_PAGE: usize = 500;

/// A part of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// Where the list goes on; none at its end.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// The page that `items` are, where one more than `limit` was asked for to learn whether there is more.
    pub(crate) fn of(mut items: Vec<T>, limit: usize, cursor: impl Fn(&T) -> String) -> Page<T> {
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = match more {
            true => items.last().map(cursor),
            false => None,
        };
        Page { items, next_cursor }
    }
}

/// The limit that holds for a page.
pub(crate) fn limit_of(asked: usize) -> usize {
    asked.clamp(1, MAX_PAGE)
}

/// A place in a list that is ordered by time and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeCursor {
    pub(crate) time: OffsetDateTime,
    pub(crate) id: Uuid,
}

impl TimeCursor {
    pub(crate) fn write(self) -> String {
        let micros = self.time.unix_timestamp_nanos() / 1000;
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&i64::try_from(micros).unwrap_or(i64::MAX).to_be_bytes());
        bytes[8..].copy_from_slice(self.id.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    pub(crate) fn read(text: &str) -> Result<TimeCursor, StoreError> {
        let read = || {
            let bytes: [u8; 24] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
            let (time, id) = bytes.split_first_chunk::<8>()?;
            let nanos = i128::from(i64::from_be_bytes(*time)) * 1000;
            Some(TimeCursor {
                time: OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?,
                id: Uuid::from_slice(id).ok()?,
            })
        };
        read().ok_or_else(not_ours)
    }
}

/// A place in a list that is ordered by a unique text.
pub(crate) fn write_text_cursor(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

pub(crate) fn read_text_cursor(cursor: &str) -> Result<String, StoreError> {
    URL_SAFE_NO_PAD
        .decode(cursor)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(not_ours)
}

fn not_ours() -> StoreError {
    StoreError::Invalid("the cursor is none that this server gave".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_and_a_foreign_one_refused() {
        let cursor = TimeCursor {
            time: crate::time_text::now(),
            id: Uuid::now_v7(),
        };
        assert_eq!(TimeCursor::read(&cursor.write()), Ok(cursor));
        for bad in ["", "x", "Zm9v", &format!("f{}", "_".repeat(31))] {
            assert!(TimeCursor::read(bad).is_err(), "{bad}");
        }
        assert_eq!(
            read_text_cursor(&write_text_cursor("é")),
            Ok("é".to_owned())
        );
        assert!(read_text_cursor("_w").is_err());
    }
}
