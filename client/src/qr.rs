//! Short texts for QR codes: a kind, then fixed-length bytes in base32 (RFC 4648, no padding), which a QR code
//! packs as alphanumeric and which can be read out, typed and pasted.

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

use crate::error::Failure;

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// The most characters of a text: a QR code of version 20 holds as many at error correction level M.
pub const TEXT_CHARS_MAX: usize = 970;

/// `ASSENT:KIND:BASE32`.
pub fn text(kind: &str, bytes: &[u8]) -> String {
    format!("ASSENT:{kind}:{}", base32(bytes))
}

/// Reads what [`text`] wrote, and nothing of another kind or length.
pub fn parse<const N: usize>(kind: &str, text: &str) -> Result<[u8; N], Failure> {
    parse_any(kind, text)?.try_into().map_err(|_| {
        let what = "it is cut short or too long";
        Failure::local("BadText", format!("this is not an ASSENT:{kind} text: {what}"))
    })
}

/// Reads what [`text`] wrote, of any length that a QR code holds.
pub fn parse_any(kind: &str, text: &str) -> Result<Vec<u8>, Failure> {
    let wrong = |what: &str| Failure::local("BadText", format!("this is not an ASSENT:{kind} text: {what}"));
    let text = text.trim();
    if text.len() > TEXT_CHARS_MAX {
        return Err(wrong("it is too long"));
    }
    let body = text.strip_prefix(&format!("ASSENT:{kind}:")).ok_or_else(|| wrong("it begins differently"))?;
    unbase32(body).ok_or_else(|| wrong("it has a wrong character or ending"))
}

/// The text as a QR code of block characters, for a terminal.
pub fn picture(text: &str) -> Result<String, Failure> {
    let code = QrCode::with_error_correction_level(text, EcLevel::M)
        .map_err(|e| Failure::local("BadText", format!("too long for a QR code: {e}")))?;
    Ok(code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}

fn base32(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut buffer, mut bits) = (0u32, 0);
    for byte in bytes {
        buffer = buffer << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(char::from(ALPHABET[(buffer >> bits & 31) as usize]));
        }
        buffer &= (1 << bits) - 1;
    }
    if bits > 0 {
        out.push(char::from(ALPHABET[(buffer << (5 - bits) & 31) as usize]));
    }
    out
}

fn unbase32(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 5 / 8);
    let (mut buffer, mut bits) = (0u32, 0);
    for c in text.bytes() {
        let value = ALPHABET.iter().position(|a| *a == c)?;
        buffer = buffer << 5 | value as u32;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            out.push((buffer >> bits) as u8);
        }
        buffer &= (1 << bits) - 1;
    }
    // One value has one text: no spare characters, and spare bits are zero.
    (bits < 5 && buffer == 0).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_agrees_with_rfc_4648_and_has_one_text_a_value() {
        for (plain, text) in
            [("", ""), ("f", "MY"), ("fo", "MZXQ"), ("foo", "MZXW6"), ("foobar", "MZXW6YTBOI")]
        {
            assert_eq!(base32(plain.as_bytes()), text);
            assert_eq!(unbase32(text).as_deref(), Some(plain.as_bytes()));
        }
        for bad in ["MZ", "M", "mzxq", "MZXQ====", "MZXW6YTB1", "MYA"] {
            assert_eq!(unbase32(bad), None, "{bad}");
        }
    }

    #[test]
    fn another_kind_or_length_is_refused() {
        let t = text("HA", &[7; 96]);
        assert_eq!(parse::<96>("HA", &t).unwrap(), [7; 96]);
        assert!(parse::<96>("HQ", &t).is_err());
        assert!(parse::<95>("HA", &t).is_err());
        assert!(parse::<96>("HA", &t[..t.len() - 1]).is_err());
        assert!(picture(&t).unwrap().lines().count() > 10);
    }
}
