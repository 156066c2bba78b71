//! What users may say: the tools' options, and what their values mean.
//!
//! Lives here: one small struct per meaning of an option, shared by the tools that agree on its letter. Must
//! never live here: what an option does to a probe, or an option of one tool only.
//! Doc comments on the structs would replace the commands' descriptions, hence `//`.

mod common;
mod groups;
pub mod select;
mod values;

pub use self::common::{manners, output};
pub use self::groups::{
    Containers, Every, Existing, FILTERS, Family, FlowPorts, Json, JsonForm, OUTPUT, Owner, Pid, PidOrAll,
    Timestamp, Uid, Verbose, WallClock, WideCsv,
};
pub use self::values::{Ports, Words, cpu, given, path, pid_or_all, ports, positive, word_list};
