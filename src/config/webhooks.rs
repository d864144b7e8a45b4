//! Reads the section `[webhooks]`.

use super::reader::Reader;
use crate::model::Secret;
use crate::webhooks::{Receiver, WrongReceiver};

pub(super) fn read(reader: &mut Reader) -> Option<(String, Secret)> {
    // It may have a password in it.
    let url = reader.secret("webhooks.url");
    let secret = reader.secret("webhooks.secret");
    if url.is_empty() {
        return None;
    }
    if let Err(wrong) = Receiver::new(&url, &secret) {
        let key = match wrong {
            WrongReceiver::Secret => "webhooks.secret",
            WrongReceiver::Url | WrongReceiver::Client(_) => "webhooks.url",
        };
        reader.mistake(key, &wrong.to_string());
    }
    Some((url, Secret::claimed(&secret)))
}
