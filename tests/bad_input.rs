//! Bad input: each case gets its documented answer and loses no good neighbour.
#![cfg(feature = "server")]

mod support;

use http::StatusCode;
use serde_json::{Value, json};
use support::web::Web;

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";
const GOOD: &str = r#"{"id":"good","model_name":"m","inputs":{"a":1},"outputs":{"b":2}}"#;

fn with(field: &str, value: &str) -> String {
    format!(r#"{{"id":"case","model_name":"m","inputs":{{"a":1}},"outputs":{{"b":2}},{field:?}:{value}}}"#)
}

/// A row whose `inputs` are `value`.
fn inputs(value: &str) -> String {
    format!(r#"{{"id":"case","model_name":"m","inputs":{value},"outputs":1}}"#)
}

fn named(model_name: &str) -> String {
    json!({"id": "case", "model_name": model_name, "inputs": {"a": 1}}).to_string()
}

fn nested(depth: usize) -> String {
    format!("{}1{}", "[".repeat(depth), "]".repeat(depth))
}

/// Rows that are refused, and what the answer must say of each.
fn refused() -> Vec<(String, &'static str)> {
    let long = "x".repeat(257);
    vec![
        (r#"{"id":"case","model_name":"m","inputs":{"a":1"#.to_owned(), "not JSON"),
        (r#"{"id":"case","model_name":"m","inputs":NaN}"#.to_owned(), "not JSON"),
        (r#"{"id":"case","model_name":"m","inputs":{"a":Infinity}}"#.to_owned(), "not JSON"),
        (r#"{'id':'case'}"#.to_owned(), "not JSON"),
        (r#"{"id":"case","model_name":"m","inputs":[1,2,]}"#.to_owned(), "not JSON"),
        (r#"{"id":"case","model_name":"m","inputs":01}"#.to_owned(), "not JSON"),
        (r#"{"id":"case","model_name":"m","inputs":"a	tab"}"#.to_owned(), "not JSON"),
        ("{}{}".to_owned(), "not JSON"),
        ("{}".to_owned(), "model_name is missing"),
        (r#"{"model_name":"m"}"#.to_owned(), "inputs is missing"),
        ("[]".to_owned(), "is not an object"),
        ("7".to_owned(), "is not an object"),
        (r#""text""#.to_owned(), "is not an object"),
        ("null".to_owned(), "is not an object"),
        (nested(10_000), "is not an object"),
        ("[".repeat(10_000), "not JSON"),
        (with("id", "\"again\""), "field id is given twice"),
        (with("inputs", "{}"), "field inputs is given twice"),
        (with("input", "{}"), "unknown field \"input\": did you mean `inputs`?"),
        (with("latency", "1"), "unknown field \"latency\""),
        (with("modelname", "1"), "did you mean `model_name`?"),
        (with("prediction", "1"), "features belong in `inputs`"),
        (named(""), "model_name=\"\": expected 1 to 256 bytes"),
        (named(&"n".repeat(1 << 20)), "model_name has 1048576 bytes: expected at most 256"),
        (named(&"é".repeat(129)), "model_name has 258 bytes"),
        (r#"{"model_name":5,"inputs":1}"#.to_owned(), "model_name=5: expected a string"),
        (r#"{"model_name":null,"inputs":1}"#.to_owned(), "model_name is missing"),
        (r#"{"model_name":"\ud800","inputs":1}"#.to_owned(), "model_name=\"\\ud800\": expected a string"),
        (r#"{"id":"","model_name":"m","inputs":1}"#.to_owned(), "id=\"\": expected 1 to 256 bytes"),
        (format!(r#"{{"id":"{long}","model_name":"m","inputs":1}}"#), "id has 257 bytes"),
        (r#"{"id":7,"model_name":"m","inputs":1}"#.to_owned(), "id=7: expected a string"),
        (with("timestamp", "\"yesterday\""), "timestamp=\"yesterday\" is not RFC 3339"),
        (with("timestamp", "1763868858"), "timestamp=1763868858: expected a string"),
        (with("timestamp", "\"2026-02-30T00:00:00Z\""), "is not RFC 3339"),
        (with("latency_ms", "\"fast\""), "latency_ms=\"fast\": expected a number"),
        (with("latency_ms", "1e400"), "latency_ms=1e400: expected a number"),
        (with("sample_weight", "[1]"), "sample_weight=[1]: expected a number"),
        (with("row_index", "9223372036854775808"), "row_index=9223372036854775808: expected at most 9223372036854775807"),
        (with("status_code", "99"), "status_code=99: expected an HTTP status"),
        (with("status_code", "70000"), "status_code=70000: expected an HTTP status"),
        (with("row_index", "-1"), "row_index=-1: expected a whole number"),
        (with("row_index", "18446744073709551616"), "row_index=18446744073709551616: expected a whole number"),
        (with("metadata", "[1]"), "metadata=[1]: expected an object of strings"),
        (with("metadata", "{\"k\":{\"deep\":1}}"), "metadata.k={\"deep\":1}: expected a string"),
        (with("metadata", &format!("{{\"k\":{}}}", nested(10_000))), "metadata.k="),
        (with("latency_ms", &nested(10_000)), "latency_ms=[[["),
        (with("model_version", &format!("\"{}\"", "v".repeat(1_025))), "model_version has 1025 bytes"),
        (with("error", "{}"), "error={}: expected a string"),
        (r#"{"model_name":"m","actuals":{"a":1}}"#.to_owned(), "id is missing: expected the id of the prediction"),
        (with("actuals", "1"), "actuals and inputs are in one row"),
        (r#"{"id":"i","model_name":"m","outputs":1,"actuals":1}"#.to_owned(), "actuals and outputs are in one row"),
        (
            format!(r#"{{"id":"i","model_name":"{}","actuals":1}}"#, "n".repeat(249)),
            "model_name has 249 bytes: expected at most 248 with actuals",
        ),
        (r#"{"id":"i","model_name":"_predlog_ledger","actuals":1}"#.to_owned(), "is the logger's own"),
    ]
}

/// Rows that are kept, and what must stand in their line.
fn kept() -> Vec<(String, String)> {
    let big_array = format!("[{}]", vec!["1"; 200_000].join(","));
    let mut cases = vec![
        (
            inputs(r#"{"a":18446744073709551615,"b":-9223372036854775808}"#),
            r#"{"a":18446744073709551615,"b":-9223372036854775808}"#.to_owned(),
        ),
        (
            inputs(r#"{"a":1e400,"b":123456789012345678901234567890}"#),
            r#"{"a":1e400,"b":123456789012345678901234567890}"#.to_owned(),
        ),
        // JSON has no NaN: its text form, as predlog writes it itself, is kept as the text that it is.
        (inputs(r#"{"a":"NaN"}"#), r#"{"a":"NaN"}"#.to_owned()),
        (inputs(r#"{"a":1,"a":2}"#), r#"{"a":1,"a":2}"#.to_owned()),
        (inputs(r#"{"":1," ":2,"a.b":3,"__proto__":4}"#), r#"{"":1," ":2,"a.b":3,"__proto__":4}"#.to_owned()),
        (inputs(r#"{"a":"\ud800"}"#), r#"{"a":"\ud800"}"#.to_owned()),
        (inputs(r#"{"a":"\u0000"}"#), r#"{"a":"\u0000"}"#.to_owned()),
        (inputs(r#"{"a":"مرحبا \u202e 😀"}"#), r#"{"a":"مرحبا \u202e 😀"}"#.to_owned()),
        (inputs("[1,[2,3]]"), "\"inputs\":[1,[2,3]],".to_owned()),
        (inputs("\"text\""), "\"inputs\":\"text\",".to_owned()),
        (inputs("null"), "\"inputs\":null,".to_owned()),
        (inputs("{ }"), "\"inputs\":{},".to_owned()),
        (inputs(&nested(64)), nested(64)),
        // Past the limits of depth and size a digest stands in for the value.
        (inputs(&nested(65)), r#""inputs":{"sha256":""#.to_owned()),
        (inputs(&nested(10_000)), r#""inputs":{"sha256":""#.to_owned()),
        (inputs(&big_array), big_array.clone()),
        (inputs(&format!("\"{}\"", "x".repeat(2 << 20))), r#""inputs":{"sha256":""#.to_owned()),
        // A column whose type changes is the store's matter: nothing is refused for it.
        (inputs(r#"{"t":1}"#), r#"{"t":1}"#.to_owned()),
        (inputs(r#"{"t":"one"}"#), r#"{"t":"one"}"#.to_owned()),
        (inputs(r#"{"t":{"o":1}}"#), r#"{"t":{"o":1}}"#.to_owned()),
        (with("latency_ms", "null"), "\"outputs\":{\"b\":2},\"writer\"".to_owned()),
        (
            with("metadata", r#"{"n":1.50,"b":true,"s":"x","none":null}"#),
            r#""metadata":{"n":"1.50","b":"true","s":"x"}"#.to_owned(),
        ),
    ];
    for name in [
        "../../etc/passwd",
        "a/b",
        "model_name=x",
        "nul\0name",
        "\u{202e}rtl مرحبا",
        "😀",
        " ",
        ".",
        "%2F",
        "CON",
        "a\nb",
        &"n".repeat(256),
    ] {
        cases.push((named(name), format!("\"model_name\":{}", serde_json::to_string(name).unwrap())));
    }
    cases
}

/// Each case between two good rows, in both forms of a body.
#[tokio::test]
async fn each_row_is_answered_for_itself() {
    assert!(refused().len() + kept().len() >= 60);
    for (case, said) in refused() {
        let web = Web::new();
        let lines = web.post(NDJSON, &[], format!("{GOOD}\n{case}\n{GOOD}")).await;
        let short: String = case.chars().take(80).collect();
        assert_eq!((lines.status, lines.accepted()), (StatusCode::ACCEPTED, 2), "{short}: {lines:?}");
        assert_eq!(lines.body["rejected"][0]["index"], 1, "{short}");
        assert!(lines.errors().contains(said), "{short}: {} does not say {said:?}", lines.errors());
        let alone = web.post(NDJSON, &[], case.clone()).await;
        assert_eq!((alone.status, alone.accepted()), (StatusCode::BAD_REQUEST, 0), "{short}");
        let stored = web.stored();
        assert!(stored.len() == 2 && stored.iter().all(|row| row["id"] == "good"), "{short}: {stored:?}");
    }
}

#[tokio::test]
async fn a_bad_element_of_an_array_costs_itself_and_a_syntax_error_what_follows() {
    for (case, said) in refused() {
        let web = Web::new();
        let answer = web.post(JSON, &[], format!("[{GOOD},{case},{GOOD}]")).await;
        let short: String = case.chars().take(80).collect();
        assert!(answer.errors().contains(said) || said == "not JSON", "{short}: {answer:?}");
        let broken = serde_json::from_str::<&serde_json::value::RawValue>(&case).is_err();
        let expected = if broken { 1 } else { 2 };
        assert_eq!((answer.status, answer.accepted()), (StatusCode::ACCEPTED, expected), "{short}: {answer:?}");
        let last = answer.body["rejected"].as_array().unwrap().last().unwrap();
        assert_eq!(last["rest"].as_bool().unwrap_or(false), broken, "{short}");
        assert_eq!(web.stored().len() as u64, expected, "{short}");
    }
}

#[tokio::test]
async fn what_is_strange_but_json_is_kept_to_the_letter() {
    for (case, expected) in kept() {
        let web = Web::new();
        let array = web.post(JSON, &[], format!("[{GOOD},{case},{GOOD}]")).await;
        let short: String = case.chars().take(80).collect();
        assert_eq!((array.status, array.accepted()), (StatusCode::ACCEPTED, 3), "{short}: {array:?}");
        assert_eq!(web.post(NDJSON, &[], case.clone()).await.accepted(), 1, "{short}");
        let lines = web.lines();
        let cased: Vec<_> = lines.iter().filter(|line| line.contains("\"id\":\"case\"")).collect();
        assert_eq!((lines.len(), cased.len()), (4, 2), "{short}");
        for line in cased {
            assert!(line.contains(&expected), "{short}: {}", line.chars().take(300).collect::<String>());
            serde_json::from_str::<&serde_json::value::RawValue>(line).unwrap();
        }
    }
}

#[tokio::test]
async fn bytes_that_are_no_text_cost_their_line_or_their_body() {
    for bad in [&b"\xff"[..], b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"] {
        let web = Web::new();
        let case = [br#"{"model_name":"m","inputs":""#.as_slice(), bad, br#""}"#].concat();
        let lines = [GOOD.as_bytes(), &case, GOOD.as_bytes()].join(&b'\n');
        let answer = web.post(NDJSON, &[], lines).await;
        assert_eq!(answer.accepted(), 2);
        let offset = format!("line=2 is not UTF-8: byte_offset={}", GOOD.len() + 1 + 28);
        assert_eq!((&answer.body["rejected"][0]["index"], answer.errors().as_str()), (&json!(1), offset.as_str()));
        let answer = web.post(JSON, &[], case).await;
        assert_eq!((answer.status, answer.errors().as_str()), (StatusCode::BAD_REQUEST, "the body is not UTF-8: byte_offset=28"));
        assert_eq!(web.stored().len(), 2);
    }
}

#[tokio::test]
async fn bodies_without_a_row_are_refused() {
    for (content_type, body, said) in [
        (JSON, "", "the body has no rows"),
        (JSON, " \n", "the body has no rows"),
        (JSON, "[]", "the body has no rows"),
        (NDJSON, "", "the body has no rows"),
        (NDJSON, "\n \r\n", "the body has no rows"),
        (JSON, "[", "not JSON"),
        (JSON, "\u{feff}", "the body has no rows"),
        (NDJSON, "\u{feff}\n", "the body has no rows"),
        (JSON, "\u{feff}\u{feff}{}", "not JSON"),
        (JSON, "hello", "not JSON"),
    ] {
        let web = Web::new();
        let answer = web.post(content_type, &[], body).await;
        assert_eq!((answer.status, answer.accepted()), (StatusCode::BAD_REQUEST, 0), "{body:?}");
        assert!(answer.errors().contains(said), "{body:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_byte_order_mark_costs_nothing() {
    let web = Web::new();
    for (content_type, body) in [(JSON, GOOD.to_owned()), (JSON, format!("[{GOOD}]")), (NDJSON, GOOD.to_owned())] {
        let answer = web.post(content_type, &[], format!("\u{feff}{body}")).await;
        assert_eq!((answer.status, answer.accepted()), (StatusCode::ACCEPTED, 1), "{body}: {answer:?}");
    }
    let answer = web.post(NDJSON, &[], [b"\xef\xbb\xbf\xff\n", GOOD.as_bytes()].concat()).await;
    assert_eq!((answer.accepted(), answer.errors().as_str()), (1, "line=1 is not UTF-8: byte_offset=3"));
}

#[tokio::test]
async fn a_body_cut_anywhere_keeps_the_rows_before_the_cut() {
    let web = Web::new();
    let body = format!("[{GOOD},{GOOD}]");
    let (first, second) = (1 + GOOD.len(), 2 + 2 * GOOD.len());
    let mut expected = 0;
    for end in 0..body.len() {
        let answer = web.post(JSON, &[], body[..end].to_owned()).await;
        let whole = u64::from(end >= first) + u64::from(end >= second);
        assert_eq!(answer.accepted(), whole, "cut at {end}: {answer:?}");
        assert_eq!(answer.status == StatusCode::ACCEPTED, whole > 0, "cut at {end}");
        expected += whole;
    }
    let stored: Vec<Value> = web.stored();
    assert_eq!(stored.len() as u64, expected);
}

#[tokio::test]
async fn a_huge_array_of_rows_is_taken_whole() {
    let web = Web::new();
    let body = format!("[{}]", vec![GOOD; 20_000].join(","));
    let answer = web.post(JSON, &[], body).await;
    assert_eq!((answer.status, answer.accepted()), (StatusCode::ACCEPTED, 20_000));
    assert_eq!(web.stored().len(), 20_000);
}
