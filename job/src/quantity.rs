//! Kubernetes quantities of bytes, compared. Only whole numbers with a suffix occur in claims.

/// The number of bytes that a quantity stands for, rounded up; none if it is not a quantity.
pub fn bytes(quantity: &str) -> Option<u128> {
    let end = quantity
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(quantity.len());
    let (number, suffix) = quantity.split_at(end);
    let scale: u128 = match suffix {
        "" => 1,
        "k" => 1000,
        "M" => 1000u128.pow(2),
        "G" => 1000u128.pow(3),
        "T" => 1000u128.pow(4),
        "P" => 1000u128.pow(5),
        "E" => 1000u128.pow(6),
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "Ei" => 1 << 60,
        "m" => return bytes(number).map(|thousandths| thousandths.div_ceil(1000)),
        exponent if exponent.starts_with(['e', 'E']) => {
            10u128.checked_pow(exponent[1..].parse().ok()?)?
        }
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u128 = whole.parse().ok()?;
    let part = if fraction.is_empty() {
        0
    } else {
        let digits: u128 = fraction.parse().ok()?;
        (digits.checked_mul(scale)?)
            .div_ceil(10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?)
    };
    whole.checked_mul(scale)?.checked_add(part)
}

/// The quantity of so many bytes, in the largest unit that needs no fraction.
pub fn quantity(bytes: u128) -> String {
    let units = ["Ei", "Pi", "Ti", "Gi", "Mi", "Ki"];
    for (unit, power) in units.iter().zip((1..=6).rev()) {
        let scale = 1u128 << (10 * power);
        if bytes >= scale && bytes.is_multiple_of(scale) {
            return format!("{}{unit}", bytes / scale);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::{bytes, quantity};

    #[test]
    fn bytes_are_said_in_the_largest_unit_without_a_fraction() {
        for (text, expected) in [
            ("0", "0"),
            ("1500", "1500"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("2Ei", "2Ei"),
        ] {
            assert_eq!(quantity(bytes(text).unwrap()), expected);
        }
    }

    #[test]
    fn quantities_of_claims_are_read_as_kubernetes_does() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1024", Some(1024)),
            ("1Ki", Some(1024)),
            ("1.5Gi", Some(1_610_612_736)),
            ("10G", Some(10_000_000_000)),
            ("1e3", Some(1000)),
            ("1500m", Some(2)),
            ("12X", None),
            ("", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
