//! Schemas: a file is compiled or refused with a reason, and every message is judged within the bounds.
//!
//! Input: the schema, a zero byte, the message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minium_bus::{SchemaFile, SchemaOptions, Schemas};

fuzz_target!(|input: &str| {
    let (schema, message) = input.split_once('\0').unwrap_or((input, "{\"a\":[1,\"b\",null]}"));
    let schemas = Schemas::empty();
    let report = schemas.replace(vec![SchemaFile::new("sub/x.json", schema)]);
    assert_eq!(report.in_force + report.refused.len(), 1);
    let options = SchemaOptions::default();
    let most = options.detail_bytes_max + '…'.len_utf8();
    for refused in &report.refused {
        assert!(!refused.reason.is_empty() && refused.reason.len() <= most + 200, "{}", refused.reason);
    }
    let (Some(schema), Ok(message)) = (schemas.get("sub/x.json"), serde_json::from_str(message)) else {
        return;
    };
    if let Err(faults) = schema.check(&message) {
        assert!((1..=options.faults_max).contains(&faults.len()));
        for fault in faults {
            assert!(fault.pointer.len() <= most && fault.schema.len() <= most && fault.detail.len() <= most);
        }
    }
});
