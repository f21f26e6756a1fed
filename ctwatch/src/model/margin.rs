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
    let far = s + 2.0 * (s * EXPONENT).sqrt() + 3.0 * EXPONENT;
    (end(s, s, far) * scale).ceil() as u64
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
    ((end(s, s, 0.0) * scale).floor() as u64).max(surely(sum, heaviest))
}

/// There were no fewer than that, whatever chance did.
pub fn surely(sum: u64, heaviest: u64) -> u64 {
    sum.div_ceil(heaviest.max(1))
}

/// Where the exponent for `s` reaches the one of the confidence, from `near`, where it is smaller, to `far`,
/// where it is larger: just beyond.
fn end(s: f64, mut near: f64, mut far: f64) -> f64 {
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(near, far);
        if exponent(middle, s) < EXPONENT { near = middle } else { far = middle }
    }
    far
}

/// How unlikely a sum of `s` is where `m` is to be expected.
fn exponent(m: f64, s: f64) -> f64 {
    let surprise = if s > 0.0 { s * (s / m).ln() } else { 0.0 };
    m - s + surprise
}

#[cfg(test)]
mod tests {
    use ctwatch_abi::{
        budget::{Budget, Window},
        testing::Random,
    };

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
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a few hundred"
        )]
        let expected = (64.0 * EXPONENT).ceil() as u64;
        assert_eq!((at_least(0, 64), at_most(0, 64)), (0, expected));
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

    /// Senders who know the code and the budget, and not the numbers: one of each kind in every run, and
    /// as many events of others as they like. On one CPU and on several.
    #[test]
    fn margins_hold_in_ten_thousand_runs() {
        const RUNS: u64 = 10_000;
        const WINDOW: Window = Window { events: 8, shift: 0 };
        /// Which of his windows' events are his.
        type Sender = fn(window: u64, at: u64, came: u64) -> bool;
        let senders: [Sender; 6] = [
            |_, at, _| at < 8,
            |_, at, _| at % 16 == 15,
            |window, at, _| window % 2 == 0 && at % 3 == 0,
            |_, at, came| at + 8 >= came,
            |window, at, _| window == 3 && at > 60,
            |_, at, _| at == 20,
        ];
        let (mut pairs, mut beyond) = (0_u64, 0_u64);
        for run in 0..RUNS {
            let mut random = Random(run.wrapping_mul(0x1234_5678_9abc_def1));
            let cpus = 1 + run % 3;
            let mut budgets = [Budget::default(); 3];
            let (mut sums, mut truths) = ([0_u64; 6], [0_u64; 6]);
            let mut scaled = [0_u64; 6];
            for window in 0..6 {
                for budget in budgets.iter_mut().take(cpus as usize) {
                    // A rate that changes in any window.
                    let came = 1 << (3 + random.draw() % 5);
                    let secret = random.draw();
                    for at in 0..came {
                        let weight = budget.take(5 + window, WINDOW, || secret);
                        for (who, sender) in senders.iter().enumerate() {
                            if sender(window, at, came) {
                                truths[who] += 1;
                                let weight = weight.map_or(0, u64::from);
                                sums[who] += weight;
                                scaled[who] += if weight > 1 { weight } else { 0 };
                            }
                        }
                    }
                }
            }
            let heaviest = budgets.iter().map(Budget::heaviest).max().unwrap_or(1);
            let let_by: u64 = budgets.iter().map(|budget| budget.let_by).sum();
            for who in 0..senders.len() {
                let (truth, certain) = (truths[who], sums[who] - scaled[who]);
                let proven = certain + surely(scaled[who], heaviest);
                assert!(proven <= truth && truth <= sums[who] + let_by, "{run} {who}");
                let least = certain + at_least(scaled[who], heaviest);
                let most = certain + at_most(scaled[who], heaviest);
                pairs += 1;
                beyond += u64::from(truth < least || most < truth);
            }
        }
        let may = 0.001 * pairs as f64;
        assert!((beyond as f64) <= may + 3.0 * may.sqrt(), "{beyond} of {pairs}");
    }
}
