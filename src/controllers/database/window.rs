//! The maintenance window: whether it is open, and when it opens next. Pure.

use std::time::Duration;

use k8s_openapi::jiff::{Timestamp, ToSpan, Zoned, civil::Time, civil::Weekday, tz::TimeZone};

use crate::api::common::{Day, MaintenanceWindow};

/// Where the window stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    Open,
    OpensIn(Duration),
}

/// The longest that a window may last: the next one may begin then.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Judges the window at a moment, or says what is wrong with it.
pub fn at(window: &MaintenanceWindow, now: Timestamp) -> Result<Window, String> {
    let zone = TimeZone::get(&window.time_zone).map_err(|_| {
        format!(
            "spec.maintenanceWindow.timeZone: {:?} is not a time zone of the IANA database; write one such as Europe/Paris or UTC",
            window.time_zone
        )
    })?;
    let start: Time = window.start.parse().map_err(|_| {
        format!(
            "spec.maintenanceWindow.start: {:?} is not a time such as 02:30",
            window.start
        )
    })?;
    let duration = window.duration.get();
    if duration.is_zero() || duration > LONGEST {
        return Err("spec.maintenanceWindow.duration: write a time of at most 24h".into());
    }
    let now = now.to_zoned(zone);
    // Yesterday's may still be open; of a week every day has been looked at.
    for day in -1..=7 {
        let Some(begin) = begin(&now, day, start, window) else {
            continue;
        };
        if begin > now {
            return Ok(Window::OpensIn(between(&now, &begin)));
        }
        if between(&begin, &now) < duration {
            return Ok(Window::Open);
        }
    }
    Ok(Window::OpensIn(LONGEST))
}

fn begin(now: &Zoned, day: i64, start: Time, window: &MaintenanceWindow) -> Option<Zoned> {
    let date = now.date().checked_add(day.days()).ok()?;
    let wanted = window.days.is_empty() || window.days.iter().any(|wanted| weekday(*wanted) == date.weekday());
    date.to_datetime(start)
        .to_zoned(now.time_zone().clone())
        .ok()
        .filter(|_| wanted)
}

fn between(from: &Zoned, to: &Zoned) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

fn weekday(day: Day) -> Weekday {
    match day {
        Day::Monday => Weekday::Monday,
        Day::Tuesday => Weekday::Tuesday,
        Day::Wednesday => Weekday::Wednesday,
        Day::Thursday => Weekday::Thursday,
        Day::Friday => Weekday::Friday,
        Day::Saturday => Weekday::Saturday,
        Day::Sunday => Weekday::Sunday,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn judge(window: serde_json::Value, now: &str) -> Result<Window, String> {
        at(&serde_json::from_value(window).unwrap(), now.parse().unwrap())
    }

    fn hours(hours: u64) -> Result<Window, String> {
        Ok(Window::OpensIn(Duration::from_secs(hours * 3600)))
    }

    #[test]
    fn days_hours_and_zones() {
        // 2026-11-25 is a Wednesday.
        let nightly = json!({"start": "02:00", "duration": "2h"});
        assert_eq!(judge(nightly.clone(), "2026-11-25T03:59:59Z"), Ok(Window::Open));
        assert_eq!(judge(nightly.clone(), "2026-11-25T01:00:00Z"), hours(1));
        assert_eq!(judge(nightly, "2026-11-25T04:00:00Z"), hours(22));

        let weekend = json!({"days": ["Saturday"], "start": "22:00", "duration": "6h", "timeZone": "Europe/Paris"});
        assert_eq!(judge(weekend.clone(), "2026-11-28T21:00:00Z"), Ok(Window::Open));
        assert_eq!(
            judge(weekend.clone(), "2026-11-29T02:59:00Z"),
            Ok(Window::Open),
            "past midnight"
        );
        assert_eq!(judge(weekend.clone(), "2026-11-29T03:00:00Z"), hours(6 * 24 + 18));
        assert_eq!(judge(weekend, "2026-11-28T20:00:00Z"), hours(1));
    }

    #[test]
    fn an_hour_that_the_clocks_leave_out_still_opens_it() {
        let window = json!({"days": ["Sunday"], "start": "02:30", "duration": "1h", "timeZone": "Europe/Paris"});
        // On 2026-03-29 the clocks go from 02:00 to 03:00, that is at 01:00Z.
        assert_eq!(judge(window, "2026-03-29T01:45:00Z"), Ok(Window::Open));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let says = |window| judge(window, "2026-11-25T00:00:00Z").unwrap_err();
        assert!(says(json!({"start": "02:00", "timeZone": "Mars/Base"})).contains("Mars/Base"));
        assert!(says(json!({"start": "25:00"})).contains("start"));
        assert!(says(json!({"start": "02:00", "duration": "25h"})).contains("24h"));
    }
}
