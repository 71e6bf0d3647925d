//! Times as people write them (RFC 3339 in UTC) and as the chain counts them (milliseconds since 1970).
//! There is no clock here.

use assent_proto::TimeMs;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use toml::value::{Date, Datetime, Offset, Time};

/// The last time that can be written: the end of the year 9999.
pub(crate) const TIME_MAX: TimeMs = TimeMs(253_402_300_799_999);
const DAY_MS: u64 = 86_400_000;

/// A time that stands in a document as `2026-11-22T08:00:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) TimeMs);

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        to_datetime(self.0).ok_or_else(|| ser::Error::custom("the time is after the year 9999"))?.serialize(s)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        from_datetime(&Datetime::deserialize(d)?).map(Moment).ok_or_else(|| {
            de::Error::custom("a time in UTC, from 1970 on and of whole milliseconds, is expected, such as 2026-11-22T08:00:00Z")
        })
    }
}

/// Days from 1970-01-01 to the first day of `year`, from 1970 on.
fn days_before(year: u64) -> u64 {
    let leap_days = |y: u64| y / 4 - y / 100 + y / 400;
    (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969)
}

fn month_days(year: u64) -> [u64; 12] {
    let leap = days_before(year + 1) - days_before(year) == 366;
    [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

fn from_datetime(t: &Datetime) -> Option<TimeMs> {
    let (Some(date), Some(time), Some(Offset::Z)) = (t.date, t.time, t.offset) else { return None };
    let year = u64::from(date.year);
    if year < 1970 {
        return None;
    }
    let months = month_days(year);
    let month = usize::from(date.month).checked_sub(1)?;
    let day = u64::from(date.day).checked_sub(1)?;
    if day >= *months.get(month)? || time.hour > 23 || time.minute > 59 || time.second > 59 {
        return None;
    }
    if time.nanosecond >= 1_000_000_000 || !time.nanosecond.is_multiple_of(1_000_000) {
        return None;
    }
    let days = days_before(year) + months[..month].iter().sum::<u64>() + day;
    let seconds = u64::from(time.hour) * 3600 + u64::from(time.minute) * 60 + u64::from(time.second);
    let ms = TimeMs(days * DAY_MS + seconds * 1000 + u64::from(time.nanosecond / 1_000_000));
    (ms <= TIME_MAX).then_some(ms)
}

fn to_datetime(t: TimeMs) -> Option<Datetime> {
    if t > TIME_MAX {
        return None;
    }
    let (days, ms) = (t.0 / DAY_MS, t.0 % DAY_MS);
    let mut year = 1970 + days / 366;
    while days_before(year + 1) <= days {
        year += 1;
    }
    let mut day = days - days_before(year);
    let mut month = 1;
    for length in month_days(year) {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let date = Date { year: year as u16, month, day: day as u8 + 1 };
    let time = Time {
        hour: (ms / 3_600_000) as u8,
        minute: (ms / 60_000 % 60) as u8,
        second: (ms / 1000 % 60) as u8,
        nanosecond: (ms % 1000) as u32 * 1_000_000,
    };
    Some(Datetime { date: Some(date), time: Some(time), offset: Some(Offset::Z) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(text: &str) -> Option<u64> {
        from_datetime(&text.parse().ok()?).map(|t| t.0)
    }

    #[test]
    fn known_times_read_as_known() {
        assert_eq!(ms("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(ms("2000-02-29T12:00:00Z"), Some(951_825_600_000));
        assert_eq!(ms("2026-01-01T00:00:00.125Z"), Some(1_767_225_600_125));
        assert_eq!(ms("9999-12-31T23:59:59.999Z"), Some(TIME_MAX.0));
        for bad in ["2026-01-01", "2026-01-01T00:00:00", "2026-01-01T00:00:00+08:00", "1969-12-31T23:59:59Z"]
        {
            assert_eq!(ms(bad), None, "{bad}");
        }
        assert_eq!(ms("2026-02-29T00:00:00Z"), None);
        assert_eq!(ms("2026-01-01T00:00:00.0001Z"), None);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(t in 0..=TIME_MAX.0) {
            let written = to_datetime(TimeMs(t)).unwrap().to_string();
            prop_assert_eq!(ms(&written), Some(t), "{}", written);
        }
    }
}
