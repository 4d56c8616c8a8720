//! Cron: expressions one by one, days on which clocks change, and everything against a walker that looks at each minute.

use super::*;
use jiff::{SignedDuration, Zoned};
use proptest::prelude::*;

fn cron(text: &str) -> Cron {
    Cron::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

/// The next firings behind a time in the zone, as the clock shows them there.
fn firings(text: &str, after: &str, count: usize) -> Vec<String> {
    let after: Zoned = after.parse().unwrap();
    let mut at = after.timestamp();
    let next = |_| {
        at = cron(text).next_after(at, after.time_zone()).unwrap();
        at.to_zoned(after.time_zone().clone()).strftime("%Y-%m-%d %H:%M %z").to_string()
    };
    (0..count).map(next).collect()
}

#[test]
fn fields_mean_what_they_mean_to_vixie() {
    let from = "2026-11-27T11:30:15+00:00[UTC]";
    let next = |text: &str| firings(text, from, 1).remove(0);
    for (text, expected) in [
        ("* * * * *", "2026-11-27 11:31"),
        ("30 11 * * *", "2026-11-28 11:30"),
        ("31 11 * * *", "2026-11-27 11:31"),
        ("*/20 * * * *", "2026-11-27 11:40"),
        ("5-59/25 * * * *", "2026-11-27 11:55"),
        ("0 9,17 * * *", "2026-11-27 17:00"),
        ("0 3 * * mon-fri", "2026-11-30 03:00"),
        ("0 3 * * FRI-sun", "2026-11-28 03:00"),
        ("0 3 * * 7", "2026-11-29 03:00"),
        ("0 3 * * 0", "2026-11-29 03:00"),
        ("0 0 1 jan,Jul *", "2027-01-01 00:00"),
        ("0 0 29 2 *", "2028-02-29 00:00"),
        ("0 0 29 2 */7", "2032-02-29 00:00"),
        ("@hourly", "2026-11-27 12:00"),
        ("@daily", "2026-11-28 00:00"),
        ("@midnight", "2026-11-28 00:00"),
        ("@weekly", "2026-11-29 00:00"),
        ("@monthly", "2026-12-01 00:00"),
        ("@Yearly", "2027-01-01 00:00"),
        ("@annually", "2027-01-01 00:00"),
    ] {
        assert_eq!(next(text), format!("{expected} +0000"), "{text}");
    }
}

#[test]
fn either_day_is_enough_where_both_are_restricted() {
    let from = "2026-11-27T11:30:00+00:00[UTC]";
    let days = |text: &str| -> Vec<String> {
        firings(text, from, 3).iter().map(|at| at[5..10].to_owned()).collect()
    };
    assert_eq!(days("0 0 13 * fri"), ["12-04", "12-11", "12-13"], "the 13th and Fridays");
    assert_eq!(days("0 0 13 * *"), ["12-13", "01-13", "02-13"]);
    assert_eq!(days("0 0 */2 * mon"), ["12-07", "12-21", "01-11"], "a stepped star restricts nothing: both");
    assert_eq!(days("0 0 30 2 mon"), ["02-01", "02-08", "02-15"], "there is no 30th, but there are Mondays");
}

#[test]
fn what_is_not_understood_is_refused_by_field() {
    for (text, word) in [
        ("", "five fields"),
        ("* * * *", "five fields"),
        ("* * * * * *", "five fields"),
        ("@reboot", "five fields"),
        ("60 * * * *", "minute"),
        ("* 24 * * *", "hour"),
        ("* * 0 * *", "day of the month"),
        ("* * 32 * *", "day of the month"),
        ("* * * 13 *", "month"),
        ("* * * * 8", "day of the week"),
        ("* * * mon *", "jan to dec"),
        ("mon * * * *", "minute"),
        ("5-1 * * * *", "ends before it begins"),
        ("*/0 * * * *", "step"),
        ("*/x * * * *", "step"),
        ("5/15 * * * *", "5-59/"),
        ("1,,2 * * * *", "minute"),
        ("-5 * * * *", "minute"),
        ("+5 * * * *", "minute"),
        ("1-2-3 * * * *", "minute"),
        ("* * L * *", "day of the month"),
        ("* * ? * *", "day of the month"),
        ("* * * * 1#2", "day of the week"),
        ("0 0 30 2 *", "never"),
        ("0 0 31 2,4,6,9,11 *", "never"),
        ("0 0 30,31 feb */2", "never"),
    ] {
        let error = Cron::parse(text).unwrap_err().to_string();
        assert!(error.contains(word), "{text}: {error}");
    }
    assert!(Cron::parse(&"1,".repeat(200)).is_err());
}

#[test]
fn a_time_that_the_clock_leaps_over_fires_at_the_leap() {
    let berlin = "2026-03-28T12:00:00+01:00[Europe/Berlin]";
    let expected = ["2026-03-29 03:00 +0200", "2026-03-30 02:30 +0200"];
    assert_eq!(firings("30 2 * * *", berlin, 2), expected);
    assert_eq!(
        firings("*/7 2 * * *", berlin, 2),
        ["2026-03-29 03:00 +0200", "2026-03-30 02:00 +0200"],
        "once"
    );
    assert_eq!(
        firings("0 2,3 * * *", berlin, 2),
        ["2026-03-29 03:00 +0200", "2026-03-30 02:00 +0200"],
        "once"
    );
    let new_york = "2026-03-07T12:00:00-05:00[America/New_York]";
    assert_eq!(firings("15 2 * * *", new_york, 2), ["2026-03-08 03:00 -0400", "2026-03-09 02:15 -0400"]);
}

#[test]
fn a_time_that_the_clock_shows_twice_fires_at_the_first() {
    let berlin = "2026-10-24T12:00:00+02:00[Europe/Berlin]";
    assert_eq!(firings("30 2 * * *", berlin, 2), ["2026-10-25 02:30 +0200", "2026-10-26 02:30 +0100"]);
    let between = "2026-10-25T02:45:00+02:00[Europe/Berlin]";
    assert_eq!(firings("30 2 * * *", between, 1), ["2026-10-26 02:30 +0100"]);
    let second = "2026-10-25T02:15:00+01:00[Europe/Berlin]";
    assert_eq!(firings("30 2 * * *", second, 1), ["2026-10-26 02:30 +0100"]);
    let new_york = "2026-10-31T12:00:00-04:00[America/New_York]";
    assert_eq!(firings("0 1 * * *", new_york, 2), ["2026-11-01 01:00 -0400", "2026-11-02 01:00 -0500"]);
}

#[test]
fn what_fires_in_every_hour_goes_on_while_the_clock_changes() {
    let fold = "2026-10-25T02:20:00+02:00[Europe/Berlin]";
    assert_eq!(
        firings("*/30 * * * *", fold, 4),
        [
            "2026-10-25 02:30 +0200",
            "2026-10-25 02:00 +0100",
            "2026-10-25 02:30 +0100",
            "2026-10-25 03:00 +0100"
        ]
    );
    let gap = "2026-03-29T01:20:00+01:00[Europe/Berlin]";
    assert_eq!(
        firings("*/30 * * * *", gap, 3),
        ["2026-03-29 01:30 +0100", "2026-03-29 03:00 +0200", "2026-03-29 03:30 +0200"]
    );
    assert_eq!(firings("@hourly", gap, 2), ["2026-03-29 03:00 +0200", "2026-03-29 04:00 +0200"]);
    let half = "2026-10-03T23:00:00+10:30[Australia/Lord_Howe]";
    assert_eq!(
        firings("0,30 * * * *", half, 7)[5..],
        ["2026-10-04 02:30 +1100", "2026-10-04 03:00 +1100"],
        "a leap of half an hour"
    );
}

#[test]
fn the_end_of_time_has_no_next() {
    let last = "9999-12-30T21:59:00Z".parse().unwrap();
    assert_eq!(cron("0 0 1 1 *").next_after(last, &TimeZone::UTC), None);
}

/// Looks at each minute, in the plainest way: by what the clock shows, or at the leap for what it does not show.
fn walked(text: &str, after: Timestamp, zone: &TimeZone, minutes: i32) -> Option<Timestamp> {
    let cron = cron(text);
    let minute = SignedDuration::from_mins(1);
    let first = Timestamp::from_second(after.as_second().div_euclid(60) * 60).unwrap();
    let shown = |at: Timestamp| zone.to_datetime(at);
    let mut last = shown(first);
    (1..=minutes).map(|n| first + minute * n).find(|at| {
        let now = shown(*at);
        let passed = i32::try_from(now.duration_since(last).as_secs() / 60).unwrap();
        let missed = (1..passed).any(|n| cron.shows(last + minute * n));
        last = now;
        if cron.fields.in_every_hour() {
            return cron.shows(now);
        }
        // once, where the clock shows it twice
        let is_first = || (1..=180).all(|back| shown(*at - minute * back) != now);
        missed || cron.shows(now) && is_first()
    })
}

fn field(least: u8, most: u8) -> impl Strategy<Value = String> {
    let value = least..=most;
    prop_oneof![
        3 => Just("*".to_owned()),
        3 => value.clone().prop_map(|n| n.to_string()),
        1 => (value.clone(), value.clone()).prop_map(|(a, b)| format!("{},{}", a.min(b), a.max(b))),
        1 => (value.clone(), value.clone(), 1u8..9).prop_map(|(a, b, n)| format!("{}-{}/{n}", a.min(b), a.max(b))),
        1 => (2u8..20).prop_map(|n| format!("*/{n}")),
    ]
}

/// Moments around which something happens in one of the zones, and any others.
fn moments() -> impl Strategy<Value = i64> {
    let changes = [
        "2026-03-29T01:00Z",
        "2026-10-25T01:00Z",
        "2026-03-08T07:00Z",
        "2026-11-01T06:00Z",
        "2026-10-03T15:30Z",
    ];
    let changes = changes.map(|text| text.parse::<Timestamp>().unwrap().as_second());
    prop_oneof![
        (0..changes.len(), -14_400i64..14_400).prop_map(move |(i, off)| changes[i] + off),
        946_684_800i64..4_000_000_000,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_next_firing_is_what_a_walker_finds(
        minute in field(0, 59), hour in field(0, 23), day in field(1, 31), month in field(1, 12), weekday in field(0, 7),
        after in moments(),
        place in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]),
    ) {
        let text = format!("{minute} {hour} {day} {month} {weekday}");
        let (zone, after) = (zone(place), Timestamp::from_second(after).unwrap());
        let Ok(cron) = Cron::parse(&text) else { return Ok(()) };
        let next = cron.next_after(after, &zone).unwrap();
        const DAYS: i32 = 2;
        match walked(&text, after, &zone, DAYS * 1_440) {
            Some(found) => prop_assert_eq!(next, found, "{} in {}", text, place),
            None => prop_assert!(next > after + SignedDuration::from_hours(24 * i64::from(DAYS)), "{} in {}: {}", text, place, next),
        }
        // and it is the right kind of moment, however far away
        let shown = zone.to_datetime(next);
        let leap = zone.to_datetime(next - SignedDuration::from_secs(1));
        prop_assert!(cron.shows(shown) || shown.duration_since(leap).as_secs() > 1, "{} in {}: {}", text, place, next);
    }

    #[test]
    fn no_text_breaks_the_parser(text in "[-0-9*/, a-z@#?]{0,40}") {
        if let Ok(cron) = Cron::parse(&text) {
            prop_assert!(cron.next_after(Timestamp::UNIX_EPOCH, &TimeZone::UTC).is_some(), "{}", text);
        }
    }
}
