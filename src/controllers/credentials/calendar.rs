//! At which times of the calendar passwords are replaced. Pure.

use std::time::Duration;

use cronexpr::{Crontab, MakeTimestamp, parse_crontab};
use k8s_openapi::jiff::{Timestamp, tz::TimeZone};

use crate::api::credentials::RotationSettings;

/// So many times of a schedule are looked at for how close they are.
const TIMES: usize = 40;

/// The times that a schedule names.
#[derive(Debug)]
pub struct Calendar(Crontab);

impl Calendar {
    /// `None` without a schedule; an error says what is wrong with it.
    pub fn read(settings: &RotationSettings) -> Result<Option<Self>, String> {
        let Some(schedule) = &settings.schedule else {
            return Ok(None);
        };
        let (field, zone) = ("spec.credentials.rotation", &settings.time_zone);
        TimeZone::get(zone).map_err(|_| {
            format!(
                "{field}.timeZone: {zone:?} is not a time zone of the IANA database; write one such as Europe/Paris or UTC"
            )
        })?;
        let wrong = |why: String| {
            format!(
                "{field}.schedule: {schedule:?} is not a schedule of five fields (minute, hour, day of the month, month, day of the week), such as \"30 2 1 * *\": {why}"
            )
        };
        if schedule.split(' ').count() != 5 {
            return Err(wrong("it has another number of fields".into()));
        }
        let calendar = parse_crontab(&format!("{schedule} {zone}")).map_err(|error| {
            // Its first line; the others draw where it is.
            let text = error.to_string();
            wrong(text.lines().next().unwrap_or_default().to_owned())
        })?;
        let calendar = Self(calendar);
        match calendar.next(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(Some(calendar)),
            None => Err(wrong("there is no such day".into())),
        }
    }

    /// The first time after a moment.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let next = self.0.find_next(MakeTimestamp(after)).ok()?;
        Some(next.timestamp())
    }

    /// The shortest time between two times.
    pub fn closest(&self) -> Duration {
        let times: Vec<_> = std::iter::successors(self.next(Timestamp::UNIX_EPOCH), |at| self.next(*at))
            .take(TIMES)
            .collect();
        let between = times
            .windows(2)
            .filter_map(|pair| Duration::try_from(pair[1].duration_since(pair[0])).ok());
        between.min().unwrap_or(Duration::MAX)
    }

    /// When a password is due: at a time that was `announced`, has come and was not carried out (`rotated` is when one last was), else at the next. A
    /// schedule that is new, or another than before, asks for nothing in the past.
    pub fn due(&self, announced: Option<Timestamp>, rotated: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
        let open = |at: &Timestamp| *at <= now && rotated.is_none_or(|rotated| rotated < *at);
        let ours = |at: &Timestamp| self.0.matches(MakeTimestamp(*at)).unwrap_or_default();
        announced.filter(|at| open(at) && ours(at)).or_else(|| self.next(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(schedule: &str, zone: &str) -> Result<Option<Calendar>, String> {
        Calendar::read(&RotationSettings {
            schedule: Some(schedule.into()),
            time_zone: zone.into(),
            ..RotationSettings::default()
        })
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn times_of_the_calendar_in_its_time_zone() {
        let next = |schedule, zone, after| read(schedule, zone).unwrap().unwrap().next(at(after)).unwrap();
        let table = [
            ("30 2 1 * *", "UTC", "2026-11-25T12:00:00Z", "2026-12-01T02:30:00Z"),
            ("0 0 * * SUN", "UTC", "2026-11-25T12:00:00Z", "2026-11-29T00:00:00Z"),
            (
                "0 3 * * *",
                "Europe/Paris",
                "2026-07-01T12:00:00Z",
                "2026-07-02T01:00:00Z",
            ),
            (
                "0 3 * * *",
                "Europe/Paris",
                "2026-12-01T12:00:00Z",
                "2026-12-02T02:00:00Z",
            ),
            // On 2026-03-29 the clocks of Paris go from 02:00 to 03:00.
            (
                "0 4 * * *",
                "Europe/Paris",
                "2026-03-28T12:00:00Z",
                "2026-03-29T02:00:00Z",
            ),
        ];
        for (schedule, zone, after, expected) in table {
            assert_eq!(next(schedule, zone, after), at(expected), "{schedule} {zone}");
        }
        let closest = |schedule| read(schedule, "UTC").unwrap().unwrap().closest();
        assert_eq!(closest("0 1,3 1 * *"), Duration::from_secs(2 * 3600));
        assert_eq!(closest("0 0 29 2 *"), Duration::from_secs((4 * 365 + 1) * 86400));
    }

    #[test]
    fn a_time_that_was_announced_and_missed_is_made_up_for_once() {
        let calendar = read("0 3 * * *", "UTC").unwrap().unwrap();
        let (now, announced, tomorrow) = (
            at("2026-11-25T12:00:00Z"),
            Some(at("2026-11-24T03:00:00Z")),
            Some(at("2026-11-26T03:00:00Z")),
        );
        assert_eq!(calendar.due(None, None, now), tomorrow, "a new schedule");
        assert_eq!(calendar.due(announced, None, now), announced);
        assert_eq!(
            calendar.due(announced, Some(at("2026-11-01T00:00:00Z")), now),
            announced
        );
        assert_eq!(
            calendar.due(announced, Some(at("2026-11-25T11:00:00Z")), now),
            tomorrow,
            "done"
        );
        let of_another = Some(at("2026-11-24T05:00:00Z"));
        assert_eq!(calendar.due(of_another, None, now), tomorrow, "of another schedule");
        assert_eq!(calendar.due(Some(at("2027-01-01T03:00:00Z")), None, now), tomorrow);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (schedule, zone, expected) in [
            ("61 * * * *", "UTC", "schedule"),
            ("0 3 * *", "UTC", "number of fields"),
            ("0 3 * * * UTC", "UTC", "number of fields"),
            ("0 3 30 2 *", "UTC", "no such day"),
            ("H 3 * * *", "UTC", "schedule"),
            ("0 3 * * *", "Mars/Base", "timeZone"),
        ] {
            let problem = read(schedule, zone).unwrap_err();
            assert!(
                problem.contains(expected) && !problem.contains('\n'),
                "{schedule}: {problem}"
            );
        }
    }
}
