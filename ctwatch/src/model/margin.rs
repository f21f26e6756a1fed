//! How far an estimate can be off: pure arithmetic.
//!
//! Beyond the budget each event is taken with probability `1/w`, by numbers that no sender knows, and
//! counted `w` times. Who it is decides `w` by how much he sends, but before the event is drawn, and no
//! `w` is larger than `W`. So for a sum `S` of what was taken, and `s = S/W`, a true number of `W * m`
//! events gives a sum as small (for `m >= s`) or as large (for `m <= s`) as that with a probability of at
//! most `exp(-(m - s + s ln(s/m)))`: Chernoff's bound, of the exponential supermartingale, so it holds
//! whatever the weights depend on in what came before.

/// That the truth is within the margin.
pub const CONFIDENCE: f64 = 0.999;

/// -ln of the probability that it is beyond one of the two ends: `ln(2 / 0.001)`.
const EXPONENT: f64 = 7.600_902_459_542_082;

/// Halvings of the interval in which an end is looked for: more than a double has digits.
const HALVINGS: u32 = 60;

/// There were no more than that, of which a weighted sum of `sum` was taken, none for more than
/// `heaviest`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive, and the largest values saturate"
)]
pub fn at_most(sum: u64, heaviest: u64) -> u64 {
    if heaviest <= 1 {
        return sum;
    }
    let scale = heaviest as f64;
    let s = sum as f64 / scale;
    // Far enough: the exponent there is larger than the one that is looked for.
    let (mut low, mut high) = (s, s + 2.0 * (s * EXPONENT).sqrt() + 3.0 * EXPONENT);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if exponent(middle, s) < EXPONENT { low = middle } else { high = middle }
    }
    (high * scale).ceil() as u64
}

/// There were no fewer than that.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive, and no larger than the sum"
)]
pub fn at_least(sum: u64, heaviest: u64) -> u64 {
    if heaviest <= 1 {
        return sum;
    }
    let scale = heaviest as f64;
    let s = sum as f64 / scale;
    let (mut low, mut high) = (0.0, s);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if exponent(middle, s) > EXPONENT { low = middle } else { high = middle }
    }
    ((low * scale).floor() as u64).max(surely(sum, heaviest))
}

/// There were no fewer than that, whatever chance did.
pub fn surely(sum: u64, heaviest: u64) -> u64 {
    sum.div_ceil(heaviest.max(1))
}

/// How unlikely a sum of `s` is where `m` is to be expected.
fn exponent(m: f64, s: f64) -> f64 {
    let surprise = if s > 0.0 { s * (s / m).ln() } else { 0.0 };
    m - s + surprise
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_scaled_is_exact() {
        for sum in [0, 1, 1000, u64::MAX] {
            for heaviest in [0, 1] {
                assert_eq!((at_least(sum, heaviest), at_most(sum, heaviest)), (sum, sum));
            }
        }
    }

    #[test]
    fn the_exponent_is_that_of_the_confidence() {
        assert!((EXPONENT - (2.0 / (1.0 - CONFIDENCE)).ln()).abs() < 1e-9);
        // Of what none was taken: exp(-m) is half of one in a thousand.
        assert_eq!((at_least(0, 64), at_most(0, 64)), (0, (64.0 * EXPONENT).ceil() as u64));
    }

    #[test]
    fn margins_narrow_as_more_is_taken() {
        let mut last = f64::INFINITY;
        for sum in [64_u64, 640, 6_400, 64_000, 6_400_000] {
            let (least, most) = (at_least(sum, 64), at_most(sum, 64));
            assert!(surely(sum, 64) <= least && least < sum && sum < most, "{sum}");
            let width = (most - least) as f64 / sum as f64;
            assert!(width < last, "{sum}: {width}");
            last = width;
        }
        assert!(last < 0.03, "{last}");
        // The ends solve what they are to solve.
        for end in [at_least(6_400_000, 64), at_most(6_400_000, 64)] {
            let off = exponent(end as f64 / 64.0, 100_000.0) - EXPONENT;
            assert!(off.abs() < 0.01, "{end}: {off}");
        }
    }

    #[test]
    fn no_number_is_too_large() {
        let most = at_most(u64::MAX, 1 << 20);
        assert!(most >= u64::MAX - 1 && at_least(u64::MAX, 1 << 20) > u64::MAX / 2);
    }
}
