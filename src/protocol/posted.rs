//! The native protocol in the bodies of HTTP requests.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::model::Refusal;

/// The beginning of a login message; the fields of the request follow.
const LOGIN: &[u8] = br#"{"type":"login""#;

#[derive(Deserialize)]
struct SessionRequest<'a> {
    #[serde(borrow, default)]
    login: Option<&'a RawValue>,
}

/// Reads the body that opens a session: empty, `{}`, or `{"login":{…}}` with the fields of a login.
/// Returns the login message.
pub fn initial_login(body: &Bytes) -> Result<Option<Bytes>, Refusal> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let request: SessionRequest<'_> = serde_json::from_slice(body).map_err(|_| Refusal::BadJson)?;
    let Some(login) = request.login.map(RawValue::get) else {
        return Ok(None);
    };
    let Some(fields) = login.strip_prefix('{') else {
        return Err(Refusal::BadMessage("Invalid login: send an object"));
    };
    let comma: &[u8] = if fields.trim_start().starts_with('}') {
        b""
    } else {
        b","
    };
    Ok(Some([LOGIN, comma, fields.as_bytes()].concat().into()))
}

/// Checks that a body is one JSON message.
pub fn message(body: Bytes) -> Result<Bytes, Refusal> {
    match serde_json::from_slice::<&RawValue>(&body) {
        Ok(_) => Ok(body),
        Err(_) => Err(Refusal::BadJson),
    }
}

/// Splits a body of newline-delimited JSON. Empty lines are skipped.
pub fn messages(body: &Bytes) -> Result<Vec<Bytes>, Refusal> {
    body.split(|&byte| byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
        .map(|line| message(body.slice_ref(line)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &'static str) -> Result<Option<Bytes>, Refusal> {
        initial_login(&Bytes::from_static(body.as_bytes()))
    }

    #[test]
    fn a_session_opens_with_or_without_a_login() {
        assert_eq!(parse(""), Ok(None));
        assert_eq!(parse(" {} "), Ok(None));
        assert_eq!(parse(r#"{"login":null}"#), Ok(None));
        let login = |said: &'static str| Ok(Some(Bytes::from_static(said.as_bytes())));
        assert_eq!(
            parse(r#"{"login": {"name": "a"}}"#),
            login(r#"{"type":"login","name": "a"}"#)
        );
        assert_eq!(parse(r#"{"login":{ }}"#), login(r#"{"type":"login" }"#));
        assert_eq!(parse("{"), Err(Refusal::BadJson));
        assert!(parse(r#"{"login":7}"#).is_err());
    }

    #[test]
    fn each_line_is_a_message() {
        let body = Bytes::from_static(b"{\"a\":1}\r\n\n  {}\n");
        let lines = messages(&body).unwrap();
        assert_eq!(lines, [&b"{\"a\":1}"[..], b"{}"]);
        assert!(messages(&Bytes::from_static(b"{}\n{")).is_err());
    }
}
