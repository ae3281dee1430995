//! CRC-32C (Castagnoli), the checksum of what is written to disk.

use crc_fast::{CrcAlgorithm, Digest};

/// The checksum of `bytes`.
#[inline]
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The checksum of bytes whose own is `before`, and `bytes` behind them.
#[inline]
pub(crate) fn crc32c_append(before: u32, bytes: &[u8]) -> u32 {
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(!before));
    digest.update(bytes);
    digest.finalize() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_castagnolis_and_goes_on_from_another() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        let text: Vec<u8> = (0..2_000u32).map(|at| (at * 7) as u8).collect();
        for at in [0, 1, 7, 8, 255, 256, 1_999, 2_000] {
            assert_eq!(crc32c_append(crc32c(&text[..at]), &text[at..]), crc32c(&text), "{at}");
        }
    }
}
