//! Points in time and ages, as a person writes them (FORMAT.md section 5.4).
//!
//! Parsing needs no clock: what depends on the present is resolved later, against a `now` that
//! the caller gives once, so that two addresses in one command mean the same moment. Deliberately
//! absent: calendars (a year is a number of days) and names of time zones.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDate, NaiveTime, SecondsFormat, TimeDelta, TimeZone, Utc};

use crate::error::{ObjectError, Result};

/// What an address's `when=` says: `~10d` before now, or `@` and a date, a time or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimeSpec {
    /// `~<n><unit>`: so long before now.
    Ago(TimeDelta),
    /// `@2024-01-02T03:04:05Z`: that very moment.
    At(DateTime<Utc>),
    /// `@2024-01-02`: the midnight at which that day begins where the caller is.
    Date(NaiveDate),
    /// `@9:30pm`: that time of today, in UTC, as in SPFS.
    Today(NaiveTime),
}

impl TimeSpec {
    /// The moment that is meant. The zone of `now` is the one in which days begin.
    ///
    /// # Errors
    /// A moment outside of what a calendar can say.
    pub fn resolve<Zone: TimeZone>(&self, now: &DateTime<Zone>) -> Result<DateTime<Utc>> {
        let moment = match self {
            Self::Ago(age) => now.to_utc().checked_sub_signed(*age),
            Self::At(moment) => Some(*moment),
            Self::Date(date) => midnight(*date, &now.timezone()),
            Self::Today(time) => Some(now.to_utc().date_naive().and_time(*time).and_utc()),
        };
        moment.ok_or_else(|| invalid("time", &self.to_string(), "no calendar has it"))
    }
}

/// When `date` begins. Where clocks skip its midnight, the day begins an hour later.
fn midnight<Zone: TimeZone>(date: NaiveDate, zone: &Zone) -> Option<DateTime<Utc>> {
    let start = date.and_time(NaiveTime::MIN);
    [start, start.checked_add_signed(TimeDelta::hours(1))?]
        .iter()
        .find_map(|start| zone.from_local_datetime(start).earliest())
        .map(|moment| moment.to_utc())
}

impl FromStr for TimeSpec {
    type Err = ObjectError;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = match text.split_at_checked(1) {
            Some(("~", age)) => duration(age, YEAR_OF_DAYS).map(Self::Ago),
            Some(("@", absolute)) => parse_absolute(absolute),
            _ => Err("it begins with '~' (before now) or '@' (a date or a time)"),
        };
        parsed.map_err(|reason| invalid("time", text, reason))
    }
}

impl fmt::Display for TimeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ago(age) => write!(f, "~{}s", age.num_seconds()),
            Self::At(moment) => {
                let text = moment.to_rfc3339_opts(SecondsFormat::AutoSi, true);
                write!(f, "@{text}")
            }
            Self::Date(date) => write!(f, "@{date}"),
            Self::Today(time) => write!(f, "@{}", time.format("%H:%M")),
        }
    }
}

/// How old something is, as `clean` is told: `<n><y|w|d|h|m|s>`, where a year is 52 weeks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Age(TimeDelta);

impl Age {
    /// How long that is; never negative.
    pub fn duration(self) -> TimeDelta {
        self.0
    }
}

impl FromStr for Age {
    type Err = ObjectError;

    fn from_str(text: &str) -> Result<Self> {
        let age = duration(text, YEAR_OF_WEEKS);
        age.map(Self).map_err(|reason| invalid("age", text, reason))
    }
}

const DAY: i64 = 24 * 60 * 60;
const YEAR_OF_DAYS: i64 = 365 * DAY;
const YEAR_OF_WEEKS: i64 = 52 * 7 * DAY;

/// `<n><unit>`, where a year has `year` seconds.
fn duration(text: &str, year: i64) -> Result<TimeDelta, &'static str> {
    let reason = "it is a number and a unit, as in 10d: y, w, d, h, m or s";
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: i64 = number.parse().map_err(|_| reason)?;
    let seconds = match unit.trim_start() {
        "y" | "yr" | "yrs" | "year" | "years" => year,
        "w" | "wk" | "wks" | "week" | "weeks" => 7 * DAY,
        "d" | "day" | "days" => DAY,
        "h" | "hr" | "hrs" | "hour" | "hours" => 60 * 60,
        "m" | "min" | "mins" | "minute" | "minutes" => 60,
        "s" | "sec" | "secs" | "second" | "seconds" => 1,
        _ => return Err(reason),
    };
    let seconds = number.checked_mul(seconds);
    seconds
        .and_then(TimeDelta::try_seconds)
        .ok_or("it is longer than time is")
}

fn parse_absolute(text: &str) -> Result<TimeSpec, &'static str> {
    if text.contains(['T', 't']) {
        let moment = DateTime::parse_from_rfc3339(text);
        let reason = "a date with a time is written as in @2024-01-02T03:04:05Z";
        return moment
            .map(|moment| TimeSpec::At(moment.to_utc()))
            .map_err(|_| reason);
    }
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Ok(TimeSpec::Date(date));
    }
    let reason = "a date is written as in @2024-01-02, a time as in @9am, @9:30pm or @14:45";
    parse_time(text).map(TimeSpec::Today).ok_or(reason)
}

/// `9am`, `9:30pm`, `14:45`.
fn parse_time(text: &str) -> Option<NaiveTime> {
    let text = text.to_ascii_lowercase();
    let (clock, half) = match (text.strip_suffix("am"), text.strip_suffix("pm")) {
        (Some(clock), _) => (clock.trim_end(), Some(0)),
        (_, Some(clock)) => (clock.trim_end(), Some(12)),
        (None, None) => (text.as_str(), None),
    };
    let (hour, minute) = match clock.split_once(':') {
        Some((hour, minute)) => (two_digits(hour)?, two_digits(minute)?),
        // A bare number is no time.
        None => (two_digits(clock).filter(|_| half.is_some())?, 0),
    };
    let hour = match half {
        Some(half) if (1..=12).contains(&hour) => hour % 12 + half,
        Some(_) => return None,
        None => hour,
    };
    NaiveTime::from_hms_opt(hour, minute, 0)
}

fn two_digits(text: &str) -> Option<u32> {
    let is_number = matches!(text.len(), 1 | 2) && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

fn invalid(what: &'static str, text: &str, reason: &'static str) -> ObjectError {
    ObjectError::InvalidSpec {
        what,
        text: text.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use chrono::FixedOffset;

    use super::*;

    /// Half past one in the night, two hours east of Greenwich: there it is still yesterday.
    const NOW: &str = "2024-03-10T01:30:00+02:00";

    fn resolved(text: &str) -> String {
        let now: DateTime<FixedOffset> = NOW.parse().unwrap();
        let spec: TimeSpec = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        let moment = spec.resolve(&now).unwrap();
        moment.to_rfc3339_opts(SecondsFormat::AutoSi, true)
    }

    #[test]
    fn every_form_means_a_moment() {
        for (text, expected) in [
            ("~1s", "2024-03-09T23:29:59Z"),
            ("~90m", "2024-03-09T22:00:00Z"),
            ("~2 hours", "2024-03-09T21:30:00Z"),
            ("~1d", "2024-03-08T23:30:00Z"),
            ("~1week", "2024-03-02T23:30:00Z"),
            ("~1y", "2023-03-10T23:30:00Z"),
            ("~0s", "2024-03-09T23:30:00Z"),
            ("@2024-01-02T03:04:05.5+01:00", "2024-01-02T02:04:05.500Z"),
            ("@2024-01-02", "2024-01-01T22:00:00Z"),
            ("@9am", "2024-03-09T09:00:00Z"),
            ("@12am", "2024-03-09T00:00:00Z"),
            ("@12:05PM", "2024-03-09T12:05:00Z"),
            ("@9:30pm", "2024-03-09T21:30:00Z"),
            ("@14:45", "2024-03-09T14:45:00Z"),
        ] {
            assert_eq!(resolved(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for text in ["~60s", "@2024-01-02T03:04:05Z", "@2024-01-02", "@14:45"] {
            let spec: TimeSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "~",
            "@",
            "1d",
            "~d",
            "~1",
            "~-1d",
            "~1x",
            "~1.5d",
            "~1d2h",
            "@9",
            "@25:00",
            "@13pm",
            "@0am",
            "@9:5:1",
            "@2024-13-01",
            "@2024-01-02T03:04",
            "@\u{e9}",
            "~99999999999999999999d",
            "~9223372036854775807y",
        ] {
            let error = text.parse::<TimeSpec>().expect_err(text).to_string();
            assert!(error.contains("is not a valid time"), "{error}");
        }
    }

    #[test]
    fn a_time_before_all_time_is_an_error() {
        let now: DateTime<Utc> = "2024-03-10T00:00:00Z".parse().unwrap();
        let spec: TimeSpec = "~999999999999s".parse().unwrap();
        assert!(spec.resolve(&now).is_ok());
        let spec: TimeSpec = "~9999999999999s".parse().unwrap();
        assert!(spec.resolve(&now).is_err());
    }

    #[test]
    fn ages_are_bare_and_their_year_has_52_weeks() {
        for (text, seconds) in [
            ("15m", 900),
            ("1h", 3600),
            ("2d", 172_800),
            ("1w", 604_800),
            ("1y", 364 * 86_400),
        ] {
            let age: Age = text.parse().unwrap();
            assert_eq!(age.duration(), TimeDelta::seconds(seconds), "{text}");
        }
        assert!("~1d".parse::<Age>().is_err());
    }
}
