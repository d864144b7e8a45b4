//! Frames: messages of a transport before a codec decodes them.

use bytes::Bytes;

/// One message of a transport. The transport has checked its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Text; the bytes are UTF-8.
    Text(Bytes),
    /// Binary data.
    Binary(Bytes),
}

impl Frame {
    /// The bytes of either kind.
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
