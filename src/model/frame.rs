//! What a transport carried, before any language gave it meaning.

use bytes::Bytes;

/// One message of a transport, uninterpreted; its size was bounded at the door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Text; the bytes are UTF-8.
    Text(Bytes),
    /// Bytes of any kind.
    Binary(Bytes),
}

impl Frame {
    /// The bytes, whatever their kind.
    pub fn bytes(&self) -> &Bytes {
        let (Self::Text(bytes) | Self::Binary(bytes)) = self;
        bytes
    }
}

impl From<String> for Frame {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}
