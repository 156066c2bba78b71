//! From the kernel's monotonic nanoseconds to what people read.
//!
//! Lives here: the offset between the two clocks, the local time zone, and the few forms that BCC prints. A
//! form is made once per second, not once per row. Must never live here: sleeping or timers.

use std::env;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use nix::fcntl::OFlag;
use nix::time::{ClockId, clock_gettime};

use super::line::Line;
use super::number;

const SECOND: i64 = 1_000_000_000;
/// A different offset is believed from here on: the clock was set, or the machine slept. Less is measuring
/// noise, which must not reorder rows.
const STEP: u64 = 1_000_000;

/// Tells the time of day of events that carry `bpf_ktime_get_ns`.
#[derive(Clone)]
pub struct Clock {
    /// Real time minus the kernel's monotonic time.
    offset: i64,
    /// Our monotonic time minus the kernel's, which is something in a time namespace.
    ahead: i64,
    /// A test's clock keeps its offset.
    fixed: bool,
    /// Read at first use: most runs print no wall clock, and looking for the zone touches files.
    zone: Option<TimeZone>,
    /// The second that `hms` shows.
    hms_second: Option<i64>,
    hms: [u8; 8],
    /// The second that `date` shows.
    date_second: Option<i64>,
    /// `2026-05-01T12:34:56`.
    date: String,
}

impl Clock {
    /// The machine's clock and time zone.
    pub fn start() -> Self {
        Clock { fixed: false, zone: None, ..Clock::fixed(measured_offset(0), 0) }
    }

    /// Our monotonic clock is so many nanoseconds ahead of the kernel's own, as in a time namespace.
    pub fn set_ahead(&mut self, ns: i64) {
        if ns != 0 {
            self.ahead = ns;
            self.offset = measured_offset(ns);
        }
    }

    /// A clock for tests: real time is monotonic time plus `offset_ns`, local time is `hours` east of UTC.
    pub fn fixed(offset_ns: i64, hours: i8) -> Self {
        Clock {
            offset: offset_ns,
            ahead: 0,
            fixed: true,
            zone: Some(Offset::constant(hours).to_time_zone()),
            hms_second: None,
            hms: *b"00:00:00",
            date_second: None,
            date: String::new(),
        }
    }

    /// The monotonic clock, as the kernel side stamps events.
    pub fn monotonic_ns(&self) -> u64 {
        if self.fixed { 0 } else { (read(ClockId::CLOCK_MONOTONIC) - self.ahead).unsigned_abs() }
    }

    /// Local `HH:MM:SS`.
    pub fn hms(&mut self, ts_ns: u64) -> &str {
        let second = self.second(ts_ns, self.hms_second);
        if self.hms_second != Some(second) {
            let time = self.local(second).time();
            for (at, part) in [(0, time.hour()), (3, time.minute()), (6, time.second())] {
                let part = part.unsigned_abs();
                self.hms[at] = b'0' + part / 10;
                self.hms[at + 1] = b'0' + part % 10;
            }
            self.hms_second = Some(second);
        }
        str::from_utf8(&self.hms).unwrap_or_default()
    }

    /// C's asctime in local time, without its newline: `Tue Jan  3 07:38:55 2023`.
    pub fn asctime(&mut self, ts_ns: u64) -> String {
        let second = self.second(ts_ns, None);
        self.local(second).strftime("%a %b %e %H:%M:%S %Y").to_string()
    }

    /// Local date as `MM/DD/YY`, as tcpsubnet prints it.
    pub fn mdy(&mut self, ts_ns: u64) -> String {
        let second = self.second(ts_ns, None);
        self.local(second).strftime("%m/%d/%y").to_string()
    }

    /// RFC 3339 in UTC with nanoseconds.
    pub(super) fn write_rfc3339(&mut self, line: &mut Line<'_>, ts_ns: u64) {
        let second = self.second(ts_ns, self.date_second);
        if self.date_second != Some(second) {
            self.date = timestamp(second).strftime("%Y-%m-%dT%H:%M:%S").to_string();
            self.date_second = Some(second);
        }
        line.bytes(self.date.as_bytes());
        line.push(b'.');
        let real = self.real(ts_ns);
        number::padded(line, real.rem_euclid(SECOND).unsigned_abs(), 9);
        line.push(b'Z');
    }

    /// Nanoseconds of real time since 1970.
    pub(super) fn unix_ns(&mut self, ts_ns: u64) -> i64 {
        // Looks whether somebody set the clock.
        self.date_second = Some(self.second(ts_ns, self.date_second));
        self.real(ts_ns)
    }

    fn real(&self, ts_ns: u64) -> i64 {
        i64::try_from(ts_ns).unwrap_or(i64::MAX).saturating_add(self.offset)
    }

    /// The second of real time; in a new one, looks whether somebody set the clock.
    fn second(&mut self, ts_ns: u64, last: Option<i64>) -> i64 {
        let second = self.real(ts_ns).div_euclid(SECOND);
        if self.fixed || last == Some(second) {
            return second;
        }
        let offset = measured_offset(self.ahead);
        if offset.abs_diff(self.offset) >= STEP {
            self.offset = offset;
        }
        self.real(ts_ns).div_euclid(SECOND)
    }

    fn local(&mut self, second: i64) -> jiff::Zoned {
        timestamp(second).to_zoned(self.zone.get_or_insert_with(local_zone).clone())
    }
}

fn timestamp(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// What glibc would take: of `TZ` the zone of that name, else the rule that it is, else UTC; without `TZ`, the machine's
/// zone. jiff's own look-up is compiled out: it reads the head of every zone file of the machine, and whatever `TZ` names.
fn local_zone() -> TimeZone {
    let zone = match env::var_os("TZ") {
        Some(name) => name.to_str().and_then(|name| named_zone(name).or_else(|| TimeZone::posix(name).ok())),
        None => zone_file(Path::new("/etc/localtime")),
    };
    zone.unwrap_or(TimeZone::UTC)
}

fn named_zone(name: &str) -> Option<TimeZone> {
    let name = name.strip_prefix(':').unwrap_or(name);
    zone_file(&Path::new("/usr/share/zoneinfo").join(name))
}

/// A zone from a regular file of a size that zones have: what `TZ` names may be a device or a pipe.
fn zone_file(path: &Path) -> Option<TimeZone> {
    /// The largest of the world's has 4 KB.
    const MOST: u64 = 1 << 20;
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut data = Vec::new();
    file.take(MOST).read_to_end(&mut data).ok()?;
    TimeZone::tzif(&path.to_string_lossy(), &data).ok()
}

fn measured_offset(ahead: i64) -> i64 {
    read(ClockId::CLOCK_REALTIME) - (read(ClockId::CLOCK_MONOTONIC) - ahead)
}

/// Nanoseconds of one clock. Both clocks exist on every Linux; were one refused, times would start at 0.
fn read(clock: ClockId) -> i64 {
    let time = clock_gettime(clock).map(Duration::from).unwrap_or_default();
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Monotonic 0 is 2023-01-03 06:38:55.5 UTC, 07:38:55 in Berlin's winter.
    fn clock() -> Clock {
        Clock::fixed(1_672_727_935_500_000_000, 1)
    }

    #[test]
    fn local_forms() {
        let mut clock = clock();
        assert_eq!(clock.hms(0), "07:38:55");
        assert_eq!(clock.hms(499_999_999), "07:38:55");
        assert_eq!(clock.hms(500_000_000), "07:38:56");
        assert_eq!(clock.hms(0), "07:38:55", "also backwards");
        assert_eq!(clock.asctime(0), "Tue Jan  3 07:38:55 2023");
        assert_eq!(clock.mdy(0), "01/03/23");
        assert_eq!(clock.hms(86_400_000_000_000), "07:38:55");
    }

    #[test]
    fn rfc_3339_is_in_utc_and_exact() {
        let mut clock = clock();
        let mut at = |ts_ns| {
            let mut buf = Vec::new();
            clock.write_rfc3339(&mut Line::new(&mut buf), ts_ns);
            String::from_utf8(buf).unwrap()
        };
        assert_eq!(at(0), "2023-01-03T06:38:55.500000000Z");
        assert_eq!(at(7), "2023-01-03T06:38:55.500000007Z");
        assert_eq!(at(500_000_000), "2023-01-03T06:38:56.000000000Z");
        assert!(at(1).parse::<Timestamp>().is_ok());
    }

    #[test]
    fn zones_have_names_where_the_machine_has_zones() {
        assert!(named_zone("UTC0").is_none() && named_zone("").is_none());
        if Path::new("/usr/share/zoneinfo/Asia/Kolkata").exists() {
            for name in ["Asia/Kolkata", ":Asia/Kolkata", "/usr/share/zoneinfo/Asia/Kolkata"] {
                let mut clock = Clock { zone: named_zone(name), ..clock() };
                assert_eq!(clock.hms(0), "12:08:55");
            }
        }
    }

    #[test]
    fn the_real_clock_agrees_with_the_system() {
        let mut clock = Clock::start();
        let mut buf = Vec::new();
        let now = clock.monotonic_ns();
        clock.write_rfc3339(&mut Line::new(&mut buf), now);
        let told: Timestamp = String::from_utf8(buf).unwrap().parse().unwrap();
        assert!(told.duration_until(Timestamp::now()).abs() < jiff::SignedDuration::from_secs(5));
    }

    #[test]
    fn a_clock_that_was_set_is_noticed_in_the_next_second() {
        let mut clock = Clock::start();
        let now = clock.monotonic_ns();
        clock.offset += 3600 * SECOND;
        let wrong = clock.real(now);
        clock.second(now, None);
        assert!((wrong - clock.real(now) - 3600 * SECOND).abs() < SECOND);
    }
}
