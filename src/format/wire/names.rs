//! Names that Avro takes: letters, digits and `_`, and no digit first.

use crate::sink::broker::topic::escape;

/// The field's name as Avro takes it: another for each other name.
pub(crate) fn usable_name(name: &str) -> String {
    let escaped = escape(name, &['_']);
    match escaped.as_bytes().first() {
        // The digit as an escape: without it the `_` before another two would be escaped itself.
        Some(digit @ b'0'..=b'9') => format!("_{digit:02X}{}", &escaped[1..]),
        _ => escaped,
    }
}

/// The full name of a model's record.
pub(crate) fn record_name(model_name: &str) -> String {
    format!("predlog.{}", usable_name(model_name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_kept_where_avro_takes_them() {
        assert_eq!(usable_name("wine_quality"), "wine_quality");
        assert_eq!(usable_name("fixed acidity"), "fixed_20acidity");
        assert_eq!(usable_name("1st"), "_31st");
        assert_eq!(usable_name("_31st"), "_5F31st");
        assert_eq!(record_name("a.b"), "predlog.a_2Eb");
    }

    proptest! {
        #[test]
        fn different_names_stay_different(one in "[_0-9A-F]{1,4}|\\PC{1,3}", other in "[_0-9A-F]{1,4}|\\PC{1,3}") {
            let names = [usable_name(&one), usable_name(&other)];
            for name in &names {
                prop_assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{}", name);
                prop_assert!(!name.starts_with(|c: char| c.is_ascii_digit()), "{}", name);
            }
            prop_assert_eq!(one == other, names[0] == names[1]);
        }
    }
}
