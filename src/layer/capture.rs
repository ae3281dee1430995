//! A copy of a body that passes by.

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde::Serialize;
use serde_json::value::RawValue;

/// What has passed of one body.
#[derive(Debug)]
pub(super) struct Capture {
    copied: Vec<u8>,
    /// Bytes that have passed, copied or not.
    passed: u64,
    limit: usize,
    /// Why nothing is copied.
    omitted: Option<&'static str>,
    /// The body came to its end.
    pub(super) ended: bool,
}

/// What stands in a record for a body that is not kept.
#[derive(Debug, Serialize)]
pub(super) struct Omitted {
    omitted: &'static str,
    bytes: u64,
}

/// `inputs` or `outputs`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Captured<'a> {
    Json(&'a RawValue),
    Omitted(Omitted),
}

impl Capture {
    pub(super) fn of(headers: &HeaderMap, limit: usize) -> Self {
        let omitted = if !is_json(headers) {
            Some("not_json")
        } else if headers.get_all(CONTENT_ENCODING).iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            Some("encoded")
        } else {
            None
        };
        Capture { copied: Vec::new(), passed: 0, limit, omitted, ended: false }
    }

    pub(super) fn pass(&mut self, data: &[u8]) {
        self.passed += data.len() as u64;
        if self.omitted.is_some() {
            return;
        }
        if self.copied.len() + data.len() > self.limit {
            self.omitted = Some("too_large");
            self.copied = Vec::new();
        } else {
            self.copied.extend_from_slice(data);
        }
    }

    /// Bytes that have passed.
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    pub(super) fn captured(&self) -> Captured<'_> {
        let why = match self.omitted {
            // A body without a type and without bytes is no body.
            Some("not_json") if self.passed == 0 && self.ended => "empty",
            Some(why) => why,
            None if !self.ended => "incomplete",
            None if self.copied.is_empty() => "empty",
            None => match serde_json::from_slice::<&RawValue>(&self.copied) {
                Ok(json) => return Captured::Json(json),
                Err(_) => "invalid_json",
            },
        };
        Captured::Omitted(Omitted { omitted: why, bytes: self.passed })
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}
