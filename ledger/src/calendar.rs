//! Quarters of the civil year in UTC, by integers alone: the one thing that the rules ask of a calendar.

use assent_proto::ids::TimeMs;

const DAY_MS: u64 = 86_400_000;
/// Days from the first of January of the year 1 to that of 1970.
const EPOCH_DAY: u64 = 719_162;

/// A quarter of a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quarter {
    /// Four times the year, and 0 to 3 of it: one more from quarter to quarter.
    pub(crate) number: u64,
    /// Its first moment.
    pub(crate) start: TimeMs,
}

impl Quarter {
    /// The quarter in which a time lies.
    pub(crate) fn of(time: TimeMs) -> Quarter {
        let day = time.0 / DAY_MS + EPOCH_DAY;
        let year = year_of(day);
        let leap = u64::from(days_before(year + 1) - days_before(year) == 366);
        let starts = [0, 90 + leap, 181 + leap, 273 + leap].map(|d| days_before(year) + d);
        let of_year = starts.iter().filter(|start| **start <= day).count() - 1;
        let start = TimeMs((starts[of_year] - EPOCH_DAY) * DAY_MS);
        Quarter { number: year * 4 + of_year as u64, start }
    }
}

/// Days from the first of January of the year 1 to that of this year, by the Gregorian rule.
fn days_before(year: u64) -> u64 {
    let past = year - 1;
    past * 365 + past / 4 - past / 100 + past / 400
}

/// The mean year is 146,097 days in 400 years; the guess from it is off by one at most.
fn year_of(day: u64) -> u64 {
    let guess = day * 400 / 146_097 + 1;
    if days_before(guess) > day {
        guess - 1
    } else if days_before(guess + 1) <= day {
        guess + 1
    } else {
        guess
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts day by day, as a wall calendar does.
    #[test]
    fn quarters_agree_with_a_calendar_that_counts_days() {
        let (mut day, mut number) = (0, 1970 * 4);
        for year in 1970..2500_u64 {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            for days in [if leap { 91 } else { 90 }, 91, 92, 92] {
                let start = TimeMs(day * DAY_MS);
                for d in day..day + days {
                    assert_eq!(
                        Quarter::of(TimeMs(d * DAY_MS)),
                        Quarter { number, start },
                        "day {d} of {year}"
                    );
                    assert_eq!(Quarter::of(TimeMs((d + 1) * DAY_MS - 1)).number, number);
                }
                day += days;
                number += 1;
            }
        }
    }

    #[test]
    fn known_dates_and_the_end_of_time() {
        // 2026-01-01, 2026-03-31T23:59:59.999, 2026-04-01, 2028-04-01 after a leap day.
        let (january, april) = (TimeMs(1_767_225_600_000), TimeMs(1_775_001_600_000));
        assert_eq!(Quarter::of(january), Quarter { number: 2026 * 4, start: january });
        assert_eq!(Quarter::of(TimeMs(april.0 - 1)).start, january);
        assert_eq!(Quarter::of(april), Quarter { number: 2026 * 4 + 1, start: april });
        let leap = TimeMs(1_838_160_000_000);
        assert_eq!(Quarter::of(leap), Quarter { number: 2028 * 4 + 1, start: leap });
        assert!(Quarter::of(TimeMs(u64::MAX)).start < TimeMs(u64::MAX));
    }
}
