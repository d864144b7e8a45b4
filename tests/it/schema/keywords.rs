//! The keywords of JSON Schema (2020-12) that the documents in docs/src/schema use. Any other is an error, so that none
//! is passed over. A validator with all of them would bring 27 crates; `make lint` checks the documents with one.

use serde_json::{Map, Value};

/// Whether a value fits a schema; `$ref` leads into the document `root`.
pub(super) fn fits(root: &Value, schema: &Value, value: &Value) -> bool {
    let schema = schema.as_object().expect("a schema is an object");
    let mut keywords = schema.iter();
    keywords.all(|(keyword, wanted)| applies(root, schema, (keyword.as_str(), wanted), value))
}

fn applies(
    root: &Value,
    schema: &Map<String, Value>,
    (keyword, wanted): (&str, &Value),
    value: &Value,
) -> bool {
    let inner = |schema: &Value| fits(root, schema, value);
    let schemas = || wanted.as_array().unwrap().iter();
    // A keyword for another type of value says nothing.
    let text = |is_so: &dyn Fn(&str) -> bool| value.as_str().is_none_or(is_so);
    let number = |is_so: &dyn Fn(f64) -> bool| value.as_f64().is_none_or(is_so);
    let length = || usize::try_from(wanted.as_u64().unwrap()).unwrap();
    match keyword {
        "$schema" | "$id" | "$defs" | "title" | "description" => true,
        "$ref" => {
            let pointer = wanted.as_str().unwrap().trim_start_matches('#');
            inner(root.pointer(pointer).expect(pointer))
        }
        "oneOf" => schemas().filter(|schema| inner(schema)).count() == 1,
        "anyOf" => schemas().any(inner),
        "const" => value == wanted,
        "enum" => schemas().any(|known| known == value),
        "type" => match wanted {
            Value::Array(types) => types.iter().any(|kind| is_of(value, kind)),
            kind => is_of(value, kind),
        },
        "required" => value.as_object().is_none_or(|fields| {
            schemas().all(|field| fields.contains_key(field.as_str().unwrap()))
        }),
        "properties" => value.as_object().is_none_or(|fields| {
            let mut known = wanted.as_object().unwrap().iter();
            known.all(|(field, schema)| fields.get(field).is_none_or(|it| fits(root, schema, it)))
        }),
        "additionalProperties" => value.as_object().is_none_or(|fields| {
            let known = schema.get("properties");
            let is_known = |field: &str| known.is_some_and(|known| known.get(field).is_some());
            let mut others = fields.iter().filter(|(field, _)| !is_known(field));
            others.all(|(_, it)| fits(root, wanted, it))
        }),
        "items" => value
            .as_array()
            .is_none_or(|items| items.iter().all(|item| fits(root, wanted, item))),
        "minLength" => text(&|text| text.chars().count() >= length()),
        "maxLength" => text(&|text| text.chars().count() <= length()),
        "pattern" => text(&|text| has_form(text, wanted.as_str().unwrap())),
        "minimum" => number(&|number| number >= wanted.as_f64().unwrap()),
        "maximum" => number(&|number| number <= wanted.as_f64().unwrap()),
        other => panic!("the keyword {other} is not known here"),
    }
}

fn is_of(value: &Value, kind: &Value) -> bool {
    match kind.as_str().unwrap() {
        "string" => value.is_string(),
        // Also one that is too long for 64 bits.
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the type {other} is not known here"),
    }
}

fn has_form(text: &str, pattern: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match pattern {
        "^[0-9]+-[0-9]+$" => text
            .split_once('-')
            .is_some_and(|(one, other)| digits(one) && digits(other)),
        "^[0-9a-f]{32}$" => {
            let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            text.len() == 32 && text.bytes().all(is_hex)
        }
        other => panic!("the pattern {other} is not known here"),
    }
}
