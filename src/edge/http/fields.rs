//! What nodes tell each other about HTTP sessions: fields of any bytes, each behind its length.

use std::fmt;
use std::str::FromStr;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// Writes fields.
#[derive(Debug, Default)]
pub(super) struct Writer(BytesMut);

impl Writer {
    pub(super) fn bytes(&mut self, field: &[u8]) {
        // Nothing that a session holds has 4 GiB.
        self.0
            .put_u32(u32::try_from(field.len()).unwrap_or_default());
        self.0.put_slice(field);
    }

    pub(super) fn text(&mut self, field: impl fmt::Display) {
        self.bytes(field.to_string().as_bytes());
    }

    pub(super) fn number(&mut self, field: u64) {
        self.text(field);
    }
}

impl From<Writer> for Bytes {
    fn from(writer: Writer) -> Self {
        writer.0.freeze()
    }
}

/// Reads fields in their order; `None` for what is no such field.
#[derive(Debug)]
pub(super) struct Reader(Bytes);

impl Reader {
    pub(super) fn new(fields: Bytes) -> Self {
        Self(fields)
    }

    pub(super) fn bytes(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.0.try_get_u32().ok()?).ok()?;
        (length <= self.0.len()).then(|| self.0.split_to(length))
    }

    pub(super) fn parse<T: FromStr>(&mut self) -> Option<T> {
        std::str::from_utf8(&self.bytes()?).ok()?.parse().ok()
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        self.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_they_were_written_and_dirt_is_none() {
        let mut writer = Writer::default();
        writer.bytes(b"\xff\n");
        writer.number(7);
        writer.text("");
        let written = Bytes::from(writer);
        let mut reader = Reader::new(written.clone());
        assert_eq!(reader.bytes().as_deref(), Some(&b"\xff\n"[..]));
        assert_eq!(reader.number(), Some(7));
        assert_eq!(reader.parse::<String>(), Some(String::new()));
        assert_eq!(reader.bytes(), None);
        assert_eq!(Reader::new(written.slice(..3)).bytes(), None);
        assert_eq!(Reader::new(written.slice(..5)).bytes(), None);
    }
}
