//! What a column means, said where it is declared: manual pages and JSON Schemas are views of it.
//!
//! Must never live here: how a cell is written. That a declaration and the cells agree is tested on real rows.

use std::borrow::Cow;

use super::Format;
use super::choice::names_of;
use super::json::quoted;
use super::table::Table;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number, never negative.
    Count,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// 0 to 65535.
    Port,
    /// Text.
    Text,
    /// An IPv4 or IPv6 address, without brackets.
    Address,
    /// RFC 3339, in UTC, with nanoseconds.
    Time,
    /// A number as hexadecimal digits: JSON's numbers lose bits above 2^53.
    Hex,
    /// One of these words.
    Word(&'static [&'static str]),
    /// One of these numbers.
    Choice(&'static [u64]),
    /// One of these words, or the number of what has no name yet.
    WordOrNumber(&'static [&'static str]),
    /// Yes or no.
    Bool,
    /// Texts.
    List,
    /// Whole numbers, never negative.
    Numbers,
}

/// What a column means.
#[derive(Clone, Copy, Debug)]
pub struct About {
    pub(super) kind: Kind,
    pub(super) text: &'static str,
    pub(super) otel: Option<&'static str>,
    pub(super) nullable: bool,
}

impl About {
    /// A column of `kind`; `text` is one sentence for users, or two.
    pub const fn new(kind: Kind, text: &'static str) -> Self {
        Self { kind, text, otel: None, nullable: false }
    }

    /// A whole number, never negative.
    pub const fn count(text: &'static str) -> Self {
        Self::new(Kind::Count, text)
    }

    /// Text.
    pub const fn text(text: &'static str) -> Self {
        Self::new(Kind::Text, text)
    }

    /// The attribute of OpenTelemetry's semantic conventions that says the same.
    #[must_use]
    pub const fn otel(mut self, name: &'static str) -> Self {
        self.otel = Some(name);
        self
    }

    /// JSON has `null` where nothing is known.
    #[must_use]
    pub const fn or_null(mut self) -> Self {
        self.nullable = true;
        self
    }
}

/// A declared column, whether or not this run shows it.
#[derive(Clone, Debug)]
pub struct Field {
    pub(super) title: &'static str,
    pub(super) key: Option<&'static str>,
    pub(super) formats: u8,
    /// The formats that have it in every run.
    pub(super) always: u8,
    pub(super) about: Option<About>,
    /// Why this run does not know its values.
    pub(super) unknown: Option<&'static str>,
}

impl Field {
    /// What every JSON row begins with.
    pub fn of_every_row() -> [Self; 2] {
        let field = |title, about| Self {
            title,
            key: Some(title),
            formats: Format::Json.bit(),
            always: Format::Json.bit(),
            about: Some(about),
            unknown: None,
        };
        [
            field(
                "time",
                About::new(Kind::Time, "When it happened: RFC 3339, in UTC, with nanoseconds.")
                    .otel("timestamp"),
            ),
            field("ts_ns", About::count("The same moment on the kernel's monotonic clock, in nanoseconds.")),
        ]
    }

    /// The column's title in text and CSV.
    pub fn title(&self) -> &'static str {
        self.title
    }

    /// The key in JSON: the title in lower case, unless it has a name of its own.
    pub fn key(&self) -> Cow<'static, str> {
        match self.key {
            Some(key) => key.into(),
            None => key_of(self.title).into(),
        }
    }

    /// Whether `-o` means it by this name, which is in lower case: its key, or its title.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.key() == name || self.title.eq_ignore_ascii_case(name)
    }

    /// What would make its values known, if this run does not know them.
    pub(super) fn unknown(&self) -> Option<&'static str> {
        self.unknown
    }

    /// Whether text or CSV has it.
    pub fn has_title(&self) -> bool {
        self.formats & (Format::Text.bit() | Format::Csv.bit()) != 0
    }

    /// Whether JSON has it.
    pub fn has_key(&self) -> bool {
        self.formats & Format::Json.bit() != 0
    }

    /// Whether JSON has it in every run.
    pub fn is_required(&self) -> bool {
        self.always & self.formats & Format::Json.bit() != 0
    }

    /// The sentence about it; empty where nobody wrote one, which a test refuses.
    pub fn text(&self) -> &'static str {
        self.about.map_or("", |about| about.text)
    }

    /// The value in words, for readers of manuals.
    pub fn value(&self) -> String {
        match self.about.map(|about| about.kind) {
            Some(Kind::Word(words)) => format!("One of {}.", words.join(", ")),
            Some(Kind::WordOrNumber(words)) => {
                format!("One of {}; a state without a name is a number.", words.join(", "))
            }
            _ => String::new(),
        }
    }

    /// OpenTelemetry's name for it.
    pub fn otel(&self) -> Option<&'static str> {
        self.about.and_then(|about| about.otel)
    }

    /// Its JSON Schema.
    pub fn schema(&self) -> String {
        let about = self.about.unwrap_or(About::text(""));
        let words = |words: &[&str]| words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(",");
        let mut schema = match about.kind {
            Kind::Count => r#""type":"integer","minimum":0"#.to_owned(),
            Kind::Integer => r#""type":"integer""#.to_owned(),
            Kind::Number => r#""type":"number""#.to_owned(),
            Kind::Port => r#""type":"integer","minimum":0,"maximum":65535"#.to_owned(),
            Kind::Text => r#""type":"string""#.to_owned(),
            Kind::Address => r#""type":"string","anyOf":[{"format":"ipv4"},{"format":"ipv6"}]"#.to_owned(),
            Kind::Time => r#""type":"string","format":"date-time""#.to_owned(),
            Kind::Hex => r#""type":"string","pattern":"^[0-9a-f]+$""#.to_owned(),
            Kind::Word(list) => format!(r#""enum":[{}]"#, words(list)),
            Kind::Choice(list) => {
                let list: Vec<String> = list.iter().map(u64::to_string).collect();
                format!(r#""enum":[{}]"#, list.join(","))
            }
            Kind::WordOrNumber(list) => {
                format!(r#""anyOf":[{{"enum":[{}]}},{{"type":"integer"}}]"#, words(list))
            }
            Kind::Bool => r#""type":"boolean""#.to_owned(),
            Kind::List => r#""type":"array","items":{"type":"string"}"#.to_owned(),
            Kind::Numbers => r#""type":"array","items":{"type":"integer","minimum":0}"#.to_owned(),
        };
        if about.nullable {
            schema = format!(r#""anyOf":[{{{schema}}},{{"type":"null"}}]"#);
        }
        let otel = about.otel.map(|name| format!(r#","x-otel":{}"#, quoted(name))).unwrap_or_default();
        format!(r#"{{"description":{},{schema}{otel}}}"#, quoted(about.text))
    }
}

/// One kind of row.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Which rows these are, where a tool has several kinds; else nothing.
    pub about: &'static str,
    /// The columns, in the order of their declaration.
    pub fields: Vec<Field>,
    /// Whether this run prints them as a table.
    used: bool,
}

impl Rows {
    /// The rows of `table`.
    pub fn new<R>(about: &'static str, table: Table<R>) -> Self {
        Self { about, fields: table.fields(), used: true }
    }

    /// A run prints them only if `used`: another option may ask for other rows.
    #[must_use]
    pub fn used_if(mut self, used: bool) -> Self {
        self.used = used;
        self
    }

    /// Whether this run prints them as a table.
    pub fn is_used(&self) -> bool {
        self.used
    }

    /// What `-o` may name: their columns, and the two that every row of JSON begins with.
    pub fn choosable(&self) -> Vec<Field> {
        let [time, moment] = Field::of_every_row();
        let time = Field { about: Some(About::text(TIME)), ..time };
        let moment = Field { about: Some(About::count(MOMENT)), ..moment };
        self.fields.iter().cloned().chain([time, moment]).collect()
    }

    /// What these are called, each name once.
    pub fn names(&self) -> Vec<Listed> {
        let all = self.choosable();
        let listed = |name: String| {
            let mut fields = all.iter().filter(|field| field.key() == name).peekable();
            let text = fields.peek().map_or("", |field| field.text());
            Listed { text, remedy: fields.map(Field::unknown).min().flatten(), name }
        };
        names_of(&all).map(listed).collect()
    }
}

/// A column as a list for users has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// What it is called.
    pub name: String,
    /// The sentence about it.
    pub text: &'static str,
    /// What would make its values known, if this run does not know them.
    pub remedy: Option<&'static str>,
}

const TIME: &str = "When it happened: the local time of day. JSON has the whole time in any case.";
const MOMENT: &str = "When it happened on the kernel's monotonic clock, in nanoseconds.";

/// The JSON key that a title stands for.
pub(super) fn key_of(title: &str) -> String {
    let words: Vec<&str> =
        title.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.join("_").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(about: About) -> String {
        Field { title: "X", key: None, formats: 7, always: 7, about: Some(about), unknown: None }.schema()
    }

    #[test]
    fn schemas() {
        assert_eq!(
            schema(About::count("Its \"count\".").otel("a.b")),
            r#"{"description":"Its \"count\".","type":"integer","minimum":0,"x-otel":"a.b"}"#
        );
        assert_eq!(
            schema(About::new(Kind::Word(&["a", "b"]), "x").or_null()),
            r#"{"description":"x","anyOf":[{"enum":["a","b"]},{"type":"null"}]}"#
        );
        assert_eq!(schema(About::new(Kind::Choice(&[4, 6]), "x")), r#"{"description":"x","enum":[4,6]}"#);
    }

    #[test]
    fn keys() {
        assert_eq!(["TIME(s)", "C-PID", "PID"].map(key_of), ["time_s", "c_pid", "pid"]);
    }
}
