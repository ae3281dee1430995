use super::*;

fn f64_of(text: &str) -> (f64, bool) {
    let (number, len) = scan(text.as_bytes()).expect("a number");
    assert_eq!(len, text.len());
    number.as_f64(text.as_bytes())
}

#[test]
fn doubles_are_nearest_and_hold_what_texts_of_doubles_say() {
    for (text, exact) in [
        ("0.1", true),
        ("1", true),
        ("1.50", true),
        ("1e23", true),
        ("4.9406564584124654e-324", false),
        ("5e-324", true),
        ("1.7976931348623157e308", true),
        ("0.1000000000000000001", false),
        ("0.10000000000000000000000", true),
        ("9007199254740992", true),
        ("9007199254740993", false),
        ("9007199254740994", true),
        ("9007199254740993.0", false),
        ("18446744073709551615", false),
        ("18446744073709551616", true),
        ("-18446744073709551616", true),
        ("100000000000000000000", true),
        ("100000000000000000001", false),
        ("1e400", false),
        ("-1e400", false),
        ("1e-400", false),
        ("0e400", true),
        ("0e-99999999999999999999", true),
        ("0.8414709848078965", true),
        ("0.84147098480789651", true),
        ("0.841470984807896512", false),
        ("1.7976931348623155e+300", false),
        ("1.7976931348623155e-300", true),
        ("2.4703282292062327e-324", false),
        ("9007199254740.9375", true),
        ("1e99999999999999999999", false),
    ] {
        let (value, found) = f64_of(text);
        let nearest: f64 = text.parse().expect("a number");
        assert_eq!(value.to_bits(), nearest.to_bits(), "{text}");
        assert_eq!(found, exact, "{text}");
    }
    assert!(f64_of("-0").0.is_sign_negative() && f64_of("-0").1);
    assert!(f64_of("-0.0").0.is_sign_negative() && f64_of("-0e5").1);
}

#[test]
fn a_division_of_many_digits_gives_the_nearest_double() {
    let mut random = fastrand::Rng::with_seed(11);
    for round in 0..400_000 {
        // Halves between two doubles, which must go to the even one, too.
        let mantissa = match round % 4 {
            0 => random.u64(1 << 52..SEVENTEEN_DIGITS),
            1 => random.u64(1..1 << 53),
            2 => (random.u64(1 << 52..1 << 53) * 2 + 1).min(SEVENTEEN_DIGITS - 1),
            _ => FIVES[random.usize(0..24)].saturating_mul(random.u64(1..9)).min(SEVENTEEN_DIGITS - 1),
        };
        let places = random.usize(1..=27);
        let expected: f64 = format!("{mantissa}e-{places}").parse().expect("a number");
        assert_eq!(divided(mantissa, places).to_bits(), expected.to_bits(), "{mantissa}e-{places}");
    }
}

#[test]
fn integers_keep_every_bit_or_are_refused() {
    let int = |text: &str| scan(text.as_bytes()).expect("a number").0.as_i64(text.as_bytes());
    assert_eq!(int("9223372036854775807"), Some(i64::MAX));
    assert_eq!(int("-9223372036854775808"), Some(i64::MIN));
    for refused in
        ["9223372036854775808", "-9223372036854775809", "-0", "1.0", "1e2", "99999999999999999999", "18446744073709551617"]
    {
        assert_eq!(int(refused), None, "{refused}");
    }
}

/// Numbers around each edge of [`short`] and [`long`], and what comes behind them: each takes what the scanner takes, and to the same value, or nothing.
#[test]
fn the_usual_forms_are_read_as_any_other() {
    let mut random = fastrand::Rng::with_seed(13);
    let digits = |count: usize, random: &mut fastrand::Rng| -> String {
        (0..count).map(|_| if random.u8(..3) == 0 { '0' } else { char::from(b'0' + random.u8(..10)) }).collect()
    };
    let (mut shorts, mut longs) = (0, 0);
    for round in 0..200_000 {
        let (whole, places) = (round % 20, (round / 20) % 26);
        let mut text = ["", "-", "--"][random.usize(..30).saturating_sub(27)].to_owned();
        text += &digits(if random.bool() { whole } else { 1 }, &mut random);
        if random.bool() {
            text += ".";
            text += &digits(places, &mut random);
        }
        let behind = [",", "}", "]", " ", "e", "E5", ".", ".5", "-", "e-3", "\"", "\n", "/", ":"][random.usize(..14)];
        let before = ["\"key\":", "{\"timestamp\":\"2026-11-23T03\",\"x\":", "1234567890123456789012345", ""][random.usize(..4)];
        let line = format!("{before}{text}{behind}{}", " ".repeat(random.usize(..40)));
        let (short, long) = (short(line.as_bytes(), before.len()), long(line.as_bytes(), before.len()));
        if short.is_none() && long.is_none() {
            continue;
        }
        let (number, len) = scan(&line.as_bytes()[before.len()..]).expect("a number");
        let text = &line[before.len()..before.len() + len];
        let (value, exact) = number.as_f64(text.as_bytes());
        assert!(exact && value == text.parse::<f64>().expect("a number"), "{line}");
        if let Some(short) = short {
            shorts += 1;
            assert_eq!(short.end, before.len() + len, "{line}");
            assert_eq!(short.as_i64(), number.as_i64(text.as_bytes()), "{line}");
            assert_eq!(short.as_f64().to_bits(), value.to_bits(), "{line}");
        }
        if let Some((long, end)) = long {
            longs += 1;
            assert_eq!(end, before.len() + len, "{line}");
            assert_eq!(long.to_bits(), value.to_bits(), "{line}");
        }
    }
    assert!(shorts > 10_000 && longs > 5_000, "{shorts} and {longs} of them are usual");
    let read = |text: &str| {
        let line = format!("{:24}{text},{:32}", "", "");
        (short(line.as_bytes(), 24).is_some(), long(line.as_bytes(), 24).is_some())
    };
    for usual in ["0", "-0", "7", "12345678", "123456789012345", "-12345678901234", "0.5", "-0.0", "123456.12345678", "1.1234567"]
    {
        assert!(read(usual).0, "{usual}");
    }
    for usual in [
        "12345678.12345678",
        "0.8414709848078965",
        "-0.841470984807896",
        "12345678.123456789",
        "0.90071992547409930",
        "1.123456789",
    ] {
        assert_eq!(read(usual), (false, true), "{usual}");
    }
    for unusual in ["01", "-01", "1234567890123456", "1.", "1.e5", "1e5", "1.5E5", "123456789.5", "-", "", "0.841470984807896512"]
    {
        assert_eq!(read(unusual), (false, false), "{unusual}");
    }
}

#[test]
fn what_is_no_number_is_refused() {
    for text in ["-", "-a", "1.", "1.e5", "1e", "1e+", ".5", "+1", ""] {
        assert!(scan(text.as_bytes()).is_err(), "{text}");
    }
}
