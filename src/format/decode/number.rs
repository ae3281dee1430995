//! JSON numbers, and when a column holds one exactly.
//!
//! A [`Number`] goes from hand to hand by value: once its address is taken it lives in memory, where bytes that were stored one by one and are read
//! as a word cost more than all the rest of reading a number.

use super::chunk::{self, CHUNK};

/// A number's text, taken apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number {
    /// All digits as one integer; meaningless past 19 digits.
    pub mantissa: u64,
    /// The power of ten to multiply it with.
    pub exponent: i32,
    /// Digits before the exponent, leading zeros included.
    pub digits: usize,
    pub negative: bool,
    /// Whether it has a fraction or an exponent.
    pub float: bool,
}

/// Digits that always fit u64.
const MAX_DIGITS: usize = 19;

const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21,
    1e22,
];

/// Powers of five that 64 bits hold.
const FIVES: [u64; 28] = {
    let mut fives = [1; 28];
    let mut at = 1;
    while at < fives.len() {
        fives[at] = fives[at - 1] * 5;
        at += 1;
    }
    fives
};

/// Decimals below this have at most 17 significant digits.
const SEVENTEEN_DIGITS: u64 = 100_000_000_000_000_000;
/// Doubles from here on have no fraction.
const WHOLE_FROM: f64 = 9_007_199_254_740_992.0;

/// The powers of ten that 64 bits hold, but for the last.
const TENS: [u64; MAX_DIGITS] = {
    let mut tens = [1; MAX_DIGITS];
    let mut at = 1;
    while at < tens.len() {
        tens[at] = tens[at - 1] * 10;
        at += 1;
    }
    tens
};

/// The number that eight bytes of decimal digits are; in each byte only the low four bits count.
#[inline(always)]
pub(super) fn eight_digits(word: u64) -> u64 {
    let pairs = (word & 0x0f0f_0f0f_0f0f_0f0f).wrapping_mul(2_561) >> 8;
    let fours = (pairs & 0x00ff_00ff_00ff_00ff).wrapping_mul(6_553_601) >> 16;
    (fours & 0x0000_ffff_0000_ffff).wrapping_mul(42_949_672_960_001) >> 32
}

/// Reads digits from `at` on behind those of `mantissa`; returns all of them as one integer, and where they end.
///
/// Eight at a time, and those that are left in one step: a loop over them would end at a length that no branch predictor can guess.
#[inline(always)]
fn digits(bytes: &[u8], mut at: usize, mut mantissa: u64) -> (u64, usize) {
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        // A digit is 0 to 9 once '0' is taken off. In any other byte the high bit gets set; what it carries on to comes after it.
        let offset = word ^ 0x3030_3030_3030_3030;
        let others = (offset.wrapping_add(0x7676_7676_7676_7676) | offset) & 0x8080_8080_8080_8080;
        if others == 0 {
            mantissa = mantissa.wrapping_mul(100_000_000).wrapping_add(eight_digits(word));
            at += 8;
            continue;
        }
        let count = others.trailing_zeros() / 8;
        // Digits move to the end of the word; zeros come before them.
        let value = eight_digits(word.checked_shl(64 - 8 * count).unwrap_or(0));
        mantissa = mantissa.wrapping_mul(TENS[(count & 7) as usize]).wrapping_add(value);
        return (mantissa, at + count as usize);
    }
    while let Some(byte @ b'0'..=b'9') = bytes.get(at) {
        mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
        at += 1;
    }
    (mantissa, at)
}

/// A number of the usual form: few digits, no exponent. A double holds it exactly, and so does an i64 if it has no fraction and is not `-0`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Short {
    /// All digits as one integer, of at most 15 digits.
    mantissa: u64,
    /// How many of them are the fraction's.
    places: usize,
    negative: bool,
    /// Where it ends in its line.
    pub end: usize,
}

/// How much of a line is looked at for a number.
const WINDOW: usize = 2 * CHUNK;

/// The digits before the point of the number at the start of `window`: where they start, behind the sign, how many there are, and which bytes from there on are
/// digits. `None` if there are none, or a zero before others.
#[inline(always)]
fn whole_part(window: &[u8; WINDOW], mut digits: u32) -> Option<(usize, usize, u32)> {
    let negative = digits & 1 == 0;
    if negative && window[0] != b'-' {
        return None;
    }
    let start = usize::from(negative);
    digits >>= start;
    let whole = (!digits).trailing_zeros() as usize;
    (whole > 0 && (window[start] != b'0' || whole == 1)).then_some((start, whole, digits))
}

/// Scans the number at `at`, if it is of the usual form: an integer of at most 15 digits, or at most eight digits before the point and as many behind it,
/// together at most 14; and no exponent. `None` says nothing of what is there, which may be too near the end of the line.
///
/// Without a loop: all digits are found in one step, and turned into a number in one or two.
#[inline(always)]
pub(crate) fn short(line: &[u8], at: usize) -> Option<Short> {
    let window = line.get(at..)?.first_chunk::<WINDOW>()?;
    let (start, whole, digits) = whole_part(window, chunk::digits(window.first_chunk()?))?;
    let first = word(window, start)?;
    let (mantissa, places, len) = if window.get(start + whole) == Some(&b'.') {
        let places = (!(digits >> (whole + 1))).trailing_zeros() as usize;
        // The end of the fraction is in the chunk, too, or there may be more of it.
        if whole > 8 || !(1..=8).contains(&places) || start + whole + 1 + places >= CHUNK {
            return None;
        }
        let count = whole + places;
        let mantissa = if count < 8 {
            let before = u64::MAX >> (64 - 8 * whole);
            eight_digits(((first & before) | ((first >> 8) & !before)) << (64 - 8 * count))
        } else {
            let fraction = word(window, start + whole + 1)?;
            eight_digits(first << (64 - 8 * whole)) * TENS[places] + eight_digits(fraction << (64 - 8 * places))
        };
        (mantissa, places, start + count + 1)
    } else if whole <= 8 {
        (eight_digits(first << (64 - 8 * whole)), 0, start + whole)
    } else if start + whole < CHUNK {
        let rest = word(window, start + 8)?;
        (eight_digits(first) * TENS[whole - 8] + eight_digits(rest << (64 - 8 * (whole - 8))), 0, start + whole)
    } else {
        return None;
    };
    let exponent = window[len] | 0x20 == b'e';
    (!exponent).then_some(Short { mantissa, places, negative: start == 1, end: at + len })
}

/// Scans the decimal at `at` if it is as programs print most doubles: at most eight digits before the point, no exponent, and no more digits than a
/// double's text has. Returns the nearest double, which holds it exactly in the sense of [`Number::as_f64`], and where it ends.
#[inline(always)]
pub(crate) fn long(line: &[u8], at: usize) -> Option<(f64, usize)> {
    let window = line.get(at..)?.first_chunk::<WINDOW>()?;
    let digits = chunk::digits(window.first_chunk()?) | chunk::digits(window.last_chunk()?) << CHUNK;
    let (start, whole, digits) = whole_part(window, digits)?;
    if whole > 8 || window[start + whole] != b'.' {
        return None;
    }
    let places = (!(digits >> (whole + 1))).trailing_zeros() as usize;
    let len = start + whole + 1 + places;
    if places == 0 || whole + places > MAX_DIGITS || len >= WINDOW || window[len] | 0x20 == b'e' {
        return None;
    }
    // The fraction by its last eight digits, those before them, and those before these; what is none of its digits counts as zeros.
    let end = at + len;
    let fraction = line.get(end.checked_sub(24)?..end)?;
    let digits_of = |word: u64, count: usize| if count == 0 { 0 } else { eight_digits(word & (u64::MAX << (64 - 8 * count))) };
    let last = places.min(8);
    let middle = (places - last).min(8);
    let mantissa = eight_digits(word(window, start)? << (64 - 8 * whole)) * TENS[places]
        + digits_of(word(fraction, 0)?, places - last - middle) * TENS[16]
        + digits_of(word(fraction, 8)?, middle) * TENS[8]
        + digits_of(word(fraction, 16)?, last);
    let value = if mantissa <= 1 << 53 {
        mantissa as f64 / POWERS[places]
    } else if mantissa < SEVENTEEN_DIGITS {
        divided(mantissa, places)
    } else {
        return None;
    };
    Some((signed(value, start == 1), end))
}

#[inline(always)]
fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk::<8>().map(|chunk| u64::from_le_bytes(*chunk))
}

impl Short {
    /// The integer, if it is written as one. `-0` is none: its sign would be lost.
    #[inline(always)]
    pub fn as_i64(self) -> Option<i64> {
        let value = self.mantissa as i64;
        (self.places == 0 && !(self.negative && value == 0)).then_some(if self.negative { -value } else { value })
    }

    /// The nearest double. It holds the number exactly: see [`Number::as_f64`].
    #[inline(always)]
    pub fn as_f64(self) -> f64 {
        signed(self.mantissa as f64 / POWERS[self.places], self.negative)
    }
}

/// Scans a number at the start of `bytes`: the number and its length, or where a digit is missing.
#[inline(always)]
pub(crate) fn scan(bytes: &[u8]) -> Result<(Number, usize), usize> {
    let negative = bytes.first() == Some(&b'-');
    let start = usize::from(negative);
    let (mut mantissa, mut at) = match bytes.get(start) {
        Some(b'0') => (0, start + 1),
        Some(b'1'..=b'9') => digits(bytes, start, 0),
        _ => return Err(start),
    };
    let (mut count, mut exponent, mut float) = (at - start, 0, false);
    if bytes.get(at) == Some(&b'.') {
        let (all, end) = digits(bytes, at + 1, mantissa);
        let fraction = end - at - 1;
        if fraction == 0 {
            return Err(end);
        }
        count += fraction;
        (mantissa, at, float) = (all, end, true);
        exponent = -i32::try_from(fraction).unwrap_or(i32::MAX);
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        let (value, end) = scan_exponent(bytes, at + 1)?;
        (exponent, at, float) = (exponent.saturating_add(value), end, true);
    }
    Ok((Number { mantissa, exponent, digits: count, negative, float }, at))
}

/// Scans what follows the `e`: its value, and where it ends.
#[inline(never)]
fn scan_exponent(bytes: &[u8], mut at: usize) -> Result<(i32, usize), usize> {
    let minus = bytes.get(at) == Some(&b'-');
    if let Some(b'-' | b'+') = bytes.get(at) {
        at += 1;
    }
    let start = at;
    let mut value: i32 = 0;
    while let Some(byte @ b'0'..=b'9') = bytes.get(at) {
        value = value.saturating_mul(10).saturating_add(i32::from(byte - b'0'));
        at += 1;
    }
    if at == start { Err(at) } else { Ok((if minus { -value } else { value }, at)) }
}

impl Number {
    /// The integer, if it is written as one and 64 bits hold it. `-0` is none: its sign would be lost.
    #[inline(always)]
    pub fn as_i64(self, text: &[u8]) -> Option<i64> {
        if self.float || self.digits > MAX_DIGITS {
            return None;
        }
        match (self.negative, i64::try_from(self.mantissa)) {
            (false, Ok(value)) => Some(value),
            (true, Ok(0)) => None,
            (true, Ok(value)) => Some(-value),
            // Only i64::MIN is left, or nothing.
            (true, Err(_)) => std::str::from_utf8(text).ok()?.parse().ok(),
            (false, Err(_)) => None,
        }
    }

    /// The nearest double, and whether it holds the number exactly.
    ///
    /// An integer is held exactly if the double has its value. A decimal is if it has at most 17 significant digits, as the texts of doubles have
    /// that other programs write (17 name one double), or if it is the double's shortest text, which alone counts from 2^53 on, where decimals may be
    /// integers that no double has; 0.1000000000000000001 and 1e400 are not. An infinity is never exact.
    #[inline(always)]
    pub fn as_f64(self, text: &[u8]) -> (f64, bool) {
        // Clinger's fast path: both factors are doubles, so one correctly rounded operation gives the nearest double. Below 2^52, a unit of the
        // last decimal place is more than a unit of the double's last place, so no other decimal of as few digits is as near: it is the shortest.
        if self.digits <= MAX_DIGITS && self.mantissa < (1 << 52) && (-22..=22).contains(&self.exponent) {
            let magnitude = self.mantissa as f64;
            let scale = POWERS[self.exponent.unsigned_abs() as usize];
            let value = if self.exponent < 0 { magnitude / scale } else { magnitude * scale };
            return (signed(value, self.negative), true);
        }
        self.as_f64_of_many_digits(text)
    }

    #[inline(never)]
    fn as_f64_of_many_digits(self, text: &[u8]) -> (f64, bool) {
        if self.digits <= MAX_DIGITS && (1..SEVENTEEN_DIGITS).contains(&self.mantissa) && (-27..0).contains(&self.exponent) {
            let value = divided(self.mantissa, self.exponent.unsigned_abs() as usize);
            if value < WHOLE_FROM {
                return (signed(value, self.negative), true);
            }
        }
        self.as_f64_checked(text)
    }

    fn as_f64_checked(self, text: &[u8]) -> (f64, bool) {
        let (Ok(value), Ok(text)) = (fast_float2::parse::<f64, _>(text), std::str::from_utf8(text)) else {
            return (f64::NAN, false);
        };
        if !value.is_finite() {
            return (value, false);
        }
        let exact = if self.float {
            let short = self.digits <= MAX_DIGITS && (1..SEVENTEEN_DIGITS).contains(&self.mantissa);
            let mut buffer = zmij::Buffer::new();
            // Below the normal doubles fewer digits count.
            (short && value.is_normal() && value.abs() < WHOLE_FROM) || {
                let shortest = buffer.format_finite(value);
                shortest == text || same_decimal(shortest, text)
            }
        } else if self.digits <= MAX_DIGITS {
            value.abs() as u128 == u128::from(self.mantissa)
        } else {
            format!("{value:.0}") == text
        };
        (value, exact)
    }
}

#[inline(always)]
fn signed(magnitude: f64, negative: bool) -> f64 {
    // A branch would wait for the division.
    f64::from_bits(magnitude.to_bits() | (u64::from(negative) << 63))
}

/// The double that is nearest to `mantissa` / 10^`places`, for a mantissa that is not 0 and at most 27 places.
#[inline]
fn divided(mantissa: u64, places: usize) -> f64 {
    let five = FIVES[places];
    // Both with their highest bit set: the quotient, times 2^63, has 63 or 64 bits, and what the division leaves is only asked whether it is 0.
    let (above, below) = (mantissa << mantissa.leading_zeros(), five << five.leading_zeros());
    let dividend = u128::from(above) << 63;
    let quotient = (dividend / u128::from(below)) as u64;
    let rest = dividend - u128::from(quotient) * u128::from(below);
    let dropped = 11 - quotient.leading_zeros();
    let (kept, half, low) = (quotient >> dropped, 1 << (dropped - 1), quotient & ((1 << dropped) - 1));
    let up = low > half || (low == half && (rest != 0 || kept & 1 == 1));
    let exponent = five.leading_zeros() as i32 - mantissa.leading_zeros() as i32 - 63 - places as i32 + dropped as i32;
    // At least 10^-27, so both factors are normal doubles, and the product is exact.
    (kept + u64::from(up)) as f64 * f64::from_bits(((1_023 + exponent) as u64) << 52)
}

/// Whether two JSON numbers denote the same decimal.
fn same_decimal(one: &str, two: &str) -> bool {
    Decimal::of(one) == Decimal::of(two)
}

/// Significant digits without leading and trailing zeros, and the power of ten of the last one.
#[derive(PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    exponent: i64,
}

impl Decimal {
    fn of(text: &str) -> Decimal {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        // An exponent that is no i64 belongs to a number that is zero or has no double of its own: any huge value will differ.
        let huge = if exponent.starts_with('-') { i64::MIN / 2 } else { i64::MAX / 2 };
        let mut exponent = exponent.parse::<i64>().unwrap_or(huge).clamp(i64::MIN / 2, i64::MAX / 2) - fraction.len() as i64;
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).skip_while(|digit| *digit == b'0').collect();
        while digits.last() == Some(&b'0') {
            digits.pop();
            exponent += 1;
        }
        if digits.is_empty() {
            exponent = 0;
        }
        Decimal { negative, digits, exponent }
    }
}

#[cfg(test)]
#[path = "number_tests.rs"]
mod tests;
