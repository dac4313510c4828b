//! The JSON Schema of the configuration, for editors and for checks before a rollout.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{ByteSize, Component, Config, Place, SecretRef, Span};

/// The schema of [`Config`], as JSON Schema 2020-12.
///
/// ```
/// let schema = backup_core::config::schema();
/// assert!(schema["properties"]["jobs"].is_object());
/// ```
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Config).to_value()
}

macro_rules! text {
    ($type:ty, $name:literal, $schema:tt) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

text!(ByteSize, "ByteSize", {
    "description": "A number of bytes, like \"64MiB\"",
    "anyOf": [
        { "type": "integer", "minimum": 0 },
        { "type": "string", "pattern": r"^\s*[0-9]+\s*([kKmMgGtTpP]([iI]?[bB])?|[bB])?\s*$" }
    ]
});
text!(Span, "Span", {
    "description": "A length of time, like \"90d\" or \"1h30m\"",
    "type": "string",
    "pattern": r"^\s*(0|([0-9]+(w|d|h|m|s|ms)\s*)+)$"
});
text!(SecretRef, "SecretRef", {
    "description": "Where a secret is found",
    "type": "string",
    "pattern": "^(env|file|command):.+$"
});
text!(Component, "Component", {
    "description": "A kind and its settings",
    "type": "object",
    "properties": { "kind": { "type": "string" } },
    "required": ["kind"]
});
text!(Place, "Place", {
    "description": "Where objects are kept: a URL or path, or a kind and its settings",
    "type": "object",
    "anyOf": [
        { "properties": { "kind": { "type": "string" } }, "required": ["kind"] },
        { "properties": { "url": { "type": "string" } }, "required": ["url"], "additionalProperties": false }
    ]
});

#[cfg(test)]
mod tests {
    #[test]
    fn the_schema_forbids_what_the_model_forbids() {
        let schema = super::schema();
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["$defs"]["JobConfig"]["required"], serde_json::json!(["source", "repository"]));
        assert!(schema["properties"].get("file").is_none());
    }
}
