//! The JSON Schema of the file, for editors.

use serde_json::{Map, Value, json};

use super::{CREDENTIALS, Choice, Key, Kind, ROOT, TableFormat};

/// The JSON Schema (draft 2020-12) of the file, as `sidekey schema` prints it. Keys that are not there yet are
/// described and refused.
pub fn json_schema() -> Value {
    let mut schema = table(&ROOT);
    let mut definitions = Map::new();
    definitions.insert("text".into(), text());
    definitions.insert("secret".into(), secret());
    definitions.insert("credential".into(), credential());
    if let Some(object) = schema.as_object_mut() {
        object.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        object.insert("title".into(), "sidekey".into());
        object.insert("$defs".into(), definitions.into());
    }
    schema
}

fn table(format: &TableFormat) -> Value {
    let properties: Map<String, Value> =
        format.all_keys().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<&str> = format.all_keys().filter(|key| key.required).map(|key| key.name).collect();
    let mut schema = json!({
        "type": "object",
        "description": format.doc,
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn property(key: &Key) -> Value {
    if let Some(what) = key.later {
        return json!({ "not": {}, "description": format!("Not there yet: {what}.") });
    }
    let mut schema = kind(&key.kind);
    let description = match key.default {
        "" => key.doc.to_owned(),
        default => format!("{} Default: {default}.", key.doc),
    };
    schema["description"] = description.into();
    schema
}

fn kind(kind_of: &Kind) -> Value {
    match kind_of {
        Kind::Text(_) | Kind::Url => json!({ "$ref": "#/$defs/text" }),
        Kind::Secret => json!({ "$ref": "#/$defs/secret" }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Off => json!({ "const": false }),
        Kind::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Duration { zero } => measure("^[0-9]+(ms|s|m|h)$", *zero),
        Kind::Size { zero } => measure("^[0-9]+(B|KiB|MiB|GiB)$", *zero),
        Kind::Rate => measure("^[0-9]+/(s|min|h)$", false),
        Kind::OneOf(choices) => any_of(vec![words(choices), reference()]),
        Kind::List(item) => json!({ "type": "array", "items": kind(item) }),
        Kind::AnyOf(kinds) => any_of(kinds.iter().map(kind).collect()),
        Kind::Table(format) => table(format),
        Kind::Named(format) => json!({ "type": "object", "additionalProperties": table(format) }),
        Kind::Fields => json!({ "type": "object", "additionalProperties": { "$ref": "#/$defs/text" } }),
        Kind::Credential => json!({ "$ref": "#/$defs/credential" }),
        Kind::Credentials => {
            json!({ "type": "object", "additionalProperties": { "$ref": "#/$defs/credential" } })
        }
    }
}

fn words(choices: &[Choice]) -> Value {
    let words: Vec<&str> = choices.iter().map(|choice| choice.word).collect();
    json!({ "enum": words })
}

fn measure(pattern: &str, zero: bool) -> Value {
    let text = json!({ "type": "string", "pattern": pattern });
    if zero {
        any_of(vec![text, json!({ "const": 0 }), reference()])
    } else {
        any_of(vec![text, reference()])
    }
}

fn any_of(mut alternatives: Vec<Value>) -> Value {
    if alternatives.len() == 1 { alternatives.remove(0) } else { json!({ "anyOf": alternatives }) }
}

/// A string written elsewhere.
fn reference() -> Value {
    any_of(vec![only("env", json!({ "type": "string" })), only("file", json!({ "type": "string" }))])
}

fn text() -> Value {
    any_of(vec![json!({ "type": "string" }), reference()])
}

fn secret() -> Value {
    any_of(vec![
        only("env", json!({ "type": "string" })),
        only("file", json!({ "type": "string" })),
        only("exec", json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 })),
        only("value", json!({ "type": "string" })),
    ])
}

fn only(key: &str, value: Value) -> Value {
    let properties: Map<String, Value> = [(key.to_owned(), value)].into_iter().collect();
    json!({ "type": "object", "properties": properties, "required": [key], "additionalProperties": false })
}

fn credential() -> Value {
    let types = CREDENTIALS.iter().filter(|format| format.later.is_none()).map(|format| {
        let mut schema = table(format);
        schema["properties"]["type"] = json!({ "const": format.name });
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        schema["required"] = [vec![json!("type")], required].concat().into();
        schema
    });
    json!({ "oneOf": types.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_of_the_schema_is_closed_and_every_key_described() {
        fn walk(schema: &Value, path: &str) {
            if schema["type"] == "object" {
                assert!(!schema["additionalProperties"].is_null(), "{path} is open");
            }
            match schema {
                Value::Object(entries) => {
                    entries.iter().for_each(|(key, value)| walk(value, &format!("{path}/{key}")));
                }
                Value::Array(items) => items.iter().for_each(|item| walk(item, path)),
                _ => {}
            }
        }
        let schema = json_schema();
        walk(&schema, "");
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        for key in ROOT.all_keys() {
            assert!(schema["properties"][key.name]["description"].is_string(), "{}", key.name);
        }
        assert_eq!(schema["$defs"]["credential"]["oneOf"].as_array().map(Vec::len), Some(8));
    }
}
