//! OTLP/JSON: each row as a record of OpenTelemetry's logs, one request a line, as collectors read it from a file.
//!
//! Lives here: the form of a record (opentelemetry-proto, `logs/v1/logs.proto`, in the JSON that the protocol's
//! specification lays down), and the values that the semantic conventions want where ours are others. Must never live
//! here: what a tool's columns are.

use std::fmt::Write as _;

use super::Moment;
use super::cell::Cell;
use super::json;
use super::line::Line;
use super::table::Column;

/// What the rows of a run have in common.
pub(super) struct Origin {
    /// All that stands before a record's time.
    head: String,
}

/// What closes all that an [`Origin`] opens.
const TAIL: &[u8] = b"]}]}]}]}\n";

impl Origin {
    /// Records of `tool` on the host of this name.
    pub(super) fn of(tool: &str, host: &str) -> Self {
        let attribute = |key: &str, value: &str| {
            format!(r#"{{"key":"{key}","value":{{"stringValue":{}}}}}"#, json::quoted(value))
        };
        let version = env!("CARGO_PKG_VERSION");
        let resource = [
            attribute("service.name", "netbcc"),
            attribute("service.version", version),
            attribute("host.name", host),
        ];
        let name = json::quoted(&format!("netbcc.{tool}"));
        Self {
            head: format!(
                r#"{{"resourceLogs":[{{"resource":{{"attributes":[{}]}},"scopeLogs":[{{"scope":{{"name":{name},"version":"{version}"}},"logRecords":[{{"eventName":{name},"#,
                resource.join(","),
            ),
        }
    }

    /// One record. A field that is not known is left out.
    pub(super) fn row<'c, R: 'c>(
        &self,
        line: &mut Line<'_>,
        columns: impl Iterator<Item = &'c Column<R>>,
        row: &R,
        moment: &mut Moment<'_>,
    ) {
        line.bytes(self.head.as_bytes());
        let now = moment.clock.unix_ns(moment.ts_ns);
        // It is observed where it happens. Writing to memory does not fail.
        for key in ["timeUnixNano", "observedTimeUnixNano"] {
            let _ = write!(line, "\"{key}\":\"{now}\",");
        }
        line.bytes(br#""attributes":[{"key":"netbcc.ts_ns","value":"#);
        value(line, Cell::Unsigned(moment.ts_ns));
        line.push(b'}');
        for column in columns {
            let cell = moment.cell(column, row);
            // Nothing known, or no number: NaN and the infinite ones.
            let is_none = match cell {
                Cell::Float(number) | Cell::ScaledFloat(number) => !number.is_finite(),
                _ => matches!(cell, Cell::Empty),
            };
            if is_none {
                continue;
            }
            line.bytes(br#",{"key":"#);
            let name = column.attribute();
            line.bytes(json::quoted(&name).as_bytes());
            line.bytes(br#","value":"#);
            match conventional(&name, cell) {
                // An attribute has one type in all rows.
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "what may have a fraction is a mean or a rate"
                )]
                Cell::Unsigned(number) | Cell::Scaled(number) if column.is_number() => {
                    value(line, Cell::Float(number as f64));
                }
                cell => value(line, cell),
            }
            line.push(b'}');
        }
        line.bytes(TAIL);
    }
}

/// The value that the conventions have for an attribute, where it is another than ours.
fn conventional<'c>(attribute: &str, cell: Cell<'c>) -> Cell<'c> {
    let label = match (attribute, cell) {
        ("network.type", Cell::Unsigned(4)) => "ipv4",
        ("network.type", Cell::Unsigned(6)) => "ipv6",
        ("network.io.direction", Cell::Label("tx")) => "transmit",
        ("network.io.direction", Cell::Label("rx")) => "receive",
        ("network.connection.state", Cell::Label(state)) => match state {
            "ESTABLISHED" => "established",
            "SYN_SENT" => "syn_sent",
            "SYN_RECV" | "NEW_SYN_RECV" => "syn_received",
            "FIN_WAIT1" => "fin_wait_1",
            "FIN_WAIT2" => "fin_wait_2",
            "TIME_WAIT" => "time_wait",
            "CLOSE" => "closed",
            "CLOSE_WAIT" => "close_wait",
            "LAST_ACK" => "last_ack",
            "LISTEN" => "listen",
            "CLOSING" => "closing",
            other => other,
        },
        _ => return cell,
    };
    Cell::Label(label)
}

/// An `AnyValue`. Its whole numbers are strings, as protobuf's JSON wants, and have 63 bits and a sign; what is larger, as no
/// count of ours ever is, becomes text.
fn value(line: &mut Line<'_>, cell: Cell<'_>) {
    let (kind, quoted) = match cell {
        Cell::Unsigned(number) | Cell::Scaled(number) if i64::try_from(number).is_err() => {
            ("stringValue", true)
        }
        Cell::Unsigned(_) | Cell::Scaled(_) | Cell::Signed(_) => ("intValue", true),
        Cell::Float(_) | Cell::ScaledFloat(_) => ("doubleValue", false),
        Cell::Bool(_) => ("boolValue", false),
        Cell::List(names) => {
            line.bytes(br#"{"arrayValue":{"values":["#);
            for (nth, name) in names.iter().enumerate() {
                line.bytes(if nth > 0 { b"," } else { b"" });
                value(line, Cell::Name(name.as_bytes()));
            }
            line.bytes(b"]}}");
            return;
        }
        Cell::Numbers(numbers) => {
            line.bytes(br#"{"arrayValue":{"values":["#);
            for (nth, number) in numbers.iter().enumerate() {
                line.bytes(if nth > 0 { b"," } else { b"" });
                value(line, Cell::Unsigned((*number).into()));
            }
            line.bytes(b"]}}");
            return;
        }
        _ => ("stringValue", false),
    };
    line.bytes(b"{\"");
    line.bytes(kind.as_bytes());
    line.bytes(b"\":");
    match cell {
        _ if !quoted => json::value(line, cell),
        _ => {
            line.push(b'"');
            json::value(line, cell);
            line.push(b'"');
        }
    }
    line.push(b'}');
}
