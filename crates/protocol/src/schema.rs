//! The shapes of what is written by hand, as JSON Schema. Those of all else are derived.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{Digest, JobId, Json, Memory, Need, PoolName, ServiceName, SiteName, Word, WorkPath};

macro_rules! shape {
    ($type:ty, $name:literal, $schema:expr) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

shape! {
    JobId, "JobId", json_schema!({
        "description": "The id of a job; it does not tell the time of its submission.",
        "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$",
    })
}

shape! {
    PoolName, "PoolName", json_schema!({
        "description": "The name of a pool of a site.", "type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,63}$",
    })
}

shape! {
    SiteName, "SiteName", json_schema!({
        "description": "The name of a site.", "type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,63}$",
    })
}

shape! {
    ServiceName, "ServiceName", json_schema!({
        "description": "The name of a service of a site.", "type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,31}$",
    })
}

shape! {
    Need, "Need", json_schema!({
        "description": "A service that a job needs: its name, or an object with it and what is asked of its facts.",
        "anyOf": [
            { "type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,31}$", "examples": ["vqpu"] },
            {
                "type": "object",
                "properties": {
                    "service": { "type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,31}$" },
                },
                "required": ["service"],
                "maxProperties": crate::limits::NEEDS_MAX + 1,
                "propertyNames": { "pattern": "^[a-z0-9][a-z0-9_.-]{0,63}$" },
                "additionalProperties": {
                    "anyOf": [
                        {
                            "type": ["string", "number", "boolean"],
                            "maxLength": crate::limits::FACT_CHARS_MAX,
                            "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$",
                        },
                        {
                            "type": "object",
                            "properties": { "min": { "type": "number" }, "max": { "type": "number" } },
                            "minProperties": 1,
                            "additionalProperties": false,
                        },
                    ],
                },
                "examples": [{ "service": "vqpu", "qubits": { "min": 20 } }],
            },
        ],
    })
}

shape! {
    Digest, "Digest", json_schema!({
        "description": "The SHA-256 of a content, which is its name.", "type": "string", "pattern": "^[0-9a-f]{64}$",
    })
}

shape! {
    WorkPath, "WorkPath", json_schema!({
        "description": "A path below a job's directory, with `/` between its parts.",
        "type": "string", "minLength": 1, "maxLength": crate::limits::WORK_PATH_BYTES_MAX,
    })
}

shape! {
    Memory, "Memory", json_schema!({
        "description": "An amount of memory, from 1MiB to 4096TiB: a number of bytes, or a text with a unit.",
        "anyOf": [
            { "type": "integer", "minimum": Memory::MIN.bytes(), "maximum": Memory::MAX.bytes() },
            { "type": "string", "examples": ["2GiB", "512MiB", "1.5GB"] },
        ],
    })
}

/// Any JSON at all: what passes through unread has no shape.
impl JsonSchema for Json {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Json".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({})
    }
}

/// One of our words, or another one: programs of all ages meet here.
impl<T: JsonSchema> JsonSchema for Word<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let known = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [known, { "type": "string" }] })
    }
}
