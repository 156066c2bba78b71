//! What one cell of a JSON row says of another, and of the clocks: looked at in every row of every run, whatever the test
//! is about. A schema knows of each cell what kind it is; here is whether it is the right one.

use nix::time::{ClockId, clock_gettime};
use serde_json::Value;

/// The clocks of a run: rows are from its time.
#[derive(Clone, Copy, Debug)]
pub struct Laws {
    /// The monotonic clock before the tool started, ns.
    since: u64,
    /// The monotonic time of the first row, ns.
    first: Option<u64>,
}

/// How far the two clocks may drift apart in a run, and how much later than the other one we read, ns.
const DRIFT: u64 = 2_000_000_000;

impl Laws {
    /// Of a run that starts now.
    #[must_use]
    pub fn from_now() -> Self {
        Self { since: now(ClockId::CLOCK_MONOTONIC), first: None }
    }

    /// Why the next row of the run cannot be true.
    ///
    /// # Errors
    /// The line is no JSON, or one of its cells contradicts another one or a clock.
    pub fn check(&mut self, line: &str) -> Result<(), String> {
        let row: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
        let at = row["ts_ns"].as_u64().ok_or("no ts_ns")?;
        let first = *self.first.get_or_insert(at);
        let (monotonic, real) = (now(ClockId::CLOCK_MONOTONIC), now(ClockId::CLOCK_REALTIME));
        if !(self.since..=monotonic).contains(&at) {
            return Err(format!("ts_ns is not between the start {} and now, {monotonic}", self.since));
        }
        let time = row["time"].as_str().and_then(nanoseconds).ok_or("no time")?;
        let wanted = real - (monotonic - at);
        if time.abs_diff(wanted) > DRIFT {
            return Err(format!("time is {time} ns since 1970, which by ts_ns should be {wanted}"));
        }
        consistent(&row, at, first)
    }
}

/// Why a row of this time, in a run whose first row is of that time, contradicts itself. It needs no clock.
///
/// # Errors
/// One of its cells is not what others make it.
pub fn consistent(row: &Value, at: u64, first: u64) -> Result<(), String> {
    let number = |key: &str| row.get(key).and_then(Value::as_f64);
    let near = |key: &str, wanted: f64| match number(key) {
        Some(told) if (told - wanted).abs() > wanted.abs() * 1e-9 => {
            Err(format!("{key} is {told}, not {wanted}"))
        }
        _ => Ok(()),
    };
    // Whole microseconds first, as BCC.
    let micros = (at / 1000).cast_signed() - (first / 1000).cast_signed();
    near("time_s", micros as f64 / 1e6)?;
    if let Some(told) = row.get("time_ns").and_then(Value::as_i64)
        && told != at.cast_signed() - first.cast_signed()
    {
        return Err(format!("time_ns is {told}, and the rows' times are {first} and {at}"));
    }
    if let Some(interval) = number("interval_ns") {
        let per_second = |key| number(key).map(|sum| sum * 1e9 / interval);
        per_second("bytes").map_or(Ok(()), |rate| near("bytes_per_s", rate))?;
        per_second("packets").map_or(Ok(()), |rate| near("packets_per_s", rate))?;
    }
    for unit in ["usecs", "nsecs"] {
        let bound = |side: &str| row.get(format!("{side}_{unit}")).and_then(Value::as_u64);
        if let (Some(low), Some(high)) = (bound("low"), bound("high")) {
            let next = high.wrapping_add(1);
            if !(next.is_power_of_two() || next == 0) || low != if high == 1 { 0 } else { high / 2 + 1 } {
                return Err(format!("{low} to {high} is no slot of a histogram"));
            }
        }
    }
    Ok(())
}

/// What a clock says, ns.
///
/// # Panics
/// The kernel lacks the clock.
#[must_use]
pub fn now(clock: ClockId) -> u64 {
    let time = clock_gettime(clock).expect("every kernel has it");
    u64::try_from(time.tv_sec() * 1_000_000_000 + time.tv_nsec()).expect("it is later than its beginning")
}

/// `2026-05-01T12:34:56.123456789Z` in nanoseconds since 1970.
#[must_use]
pub fn nanoseconds(time: &str) -> Option<u64> {
    let numbers: Vec<u64> = time
        .strip_suffix('Z')?
        .split(['-', 'T', ':', '.'])
        .map(|number| number.parse().ok())
        .collect::<Option<_>>()?;
    let [year, month, day, hour, minute, second, nanos] = numbers[..] else { return None };
    // Years begin in March here, so that the day that some have more is their last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000_000 + nanos)
}
