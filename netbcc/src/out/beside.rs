//! What is known of a row's process from elsewhere: columns of every tool that says which process a row is of.
//!
//! Lives here: what these columns are called and mean. Must never live here: how they come to be known, or a tool's name.

use std::cell::RefCell;
use std::rc::Rc;

use super::Clock;
use super::cell::Cell;
use super::field::{About, Kind};

/// The process that a row is of.
#[derive(Clone, Copy, Debug)]
pub struct Process<'r> {
    /// Its number; 0 where nobody knows.
    pub pid: u32,
    /// The name of one of its threads, if the row has it.
    pub comm: Option<&'r [u8; 16]>,
    /// How long before the row's time it was noted at the earliest, in nanoseconds. It may have ended since.
    pub before_ns: u64,
}

impl<'r> Process<'r> {
    /// The process that made the row, or was interrupted by it.
    pub const fn now(pid: u32) -> Self {
        Self { pid, comm: None, before_ns: 0 }
    }

    /// One of its threads has this name.
    #[must_use]
    pub const fn named(mut self, comm: &'r [u8; 16]) -> Self {
        self.comm = Some(comm);
        self
    }

    /// It was noted so long before the row's time at the earliest.
    #[must_use]
    pub const fn noted_before(mut self, ns: u64) -> Self {
        self.before_ns = ns;
        self
    }
}

/// Something that is known of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Its user.
    User,
    /// Its parent.
    Ppid,
    /// The file that it runs.
    Exe,
    /// Its arguments.
    Cmdline,
    /// Its cgroup.
    Cgroup,
    /// Its unit of systemd.
    Unit,
    /// Its container, by a name if there is one.
    Container,
    /// Its container, by the runtime's number.
    ContainerId,
    /// Its pod of Kubernetes, by its name if that is known.
    Pod,
    /// Its pod, by Kubernetes's number.
    PodUid,
    /// The namespace of Kubernetes that its pod is in.
    Namespace,
}

impl Fact {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Self; 11] = [
        Self::User,
        Self::Ppid,
        Self::Exe,
        Self::Cmdline,
        Self::Cgroup,
        Self::Unit,
        Self::Container,
        Self::ContainerId,
        Self::Pod,
        Self::PodUid,
        Self::Namespace,
    ];

    /// What its column is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Ppid => "ppid",
            Self::Exe => "exe",
            Self::Cmdline => "cmdline",
            Self::Cgroup => "cgroup",
            Self::Unit => "unit",
            Self::Container => "container",
            Self::ContainerId => "container_id",
            Self::Pod => "pod",
            Self::PodUid => "pod_uid",
            Self::Namespace => "namespace",
        }
    }

    /// Whether a process's cgroups tell it.
    pub const fn is_of_cgroups(self) -> bool {
        !matches!(self, Self::User | Self::Ppid | Self::Exe | Self::Cmdline)
    }

    /// What its column means.
    pub const fn about(self) -> About {
        let about = match self {
            Self::User => About::text(
                "The real user of the process that PID says, by its name in /etc/passwd, else by number. As with all that is \
                 told of a process: known if it is still there when the row is printed, or was a moment ago.",
            )
            .otel("process.real_user.name"),
            Self::Ppid => {
                About::new(Kind::Count, "The number of the parent of the process that PID says.").otel("process.parent_pid")
            }
            Self::Exe => About::text(
                "The file that the process runs. Mostly known only of processes that were there when the tool began: \
                 later it has no power left to ask.",
            )
            .otel("process.executable.path"),
            Self::Cmdline => About::text(
                "The arguments of the process, the program's name first, with blanks between; their first 1024 bytes. A \
                 process can change its own.",
            )
            .otel("process.command_line"),
            Self::Cgroup => About::text(
                "The cgroup of the process, as /proc names it: of version 2, or where all is in its root there, of version \
                 1's systemd or memory.",
            ),
            Self::Unit => About::text("The systemd unit of the process, or of what holds its container."),
            Self::Container => About::text(
                "The container of the process, from its cgroup: its name in Kubernetes, LXC or systemd-nspawn, else the \
                 first 12 digits of its id. Who may make cgroups can choose what stands here. -o +container made a row some \
                 1200 instructions dearer.",
            ),
            Self::ContainerId => About::text("The id of the container, as docker, podman, containerd or cri-o have it.")
                .otel("container.id"),
            Self::Pod => About::text(
                "The Kubernetes pod of the process: its name if /var/log/pods says it, else its uid.",
            ),
            Self::PodUid => About::text("The uid of the Kubernetes pod.").otel("k8s.pod.uid"),
            Self::Namespace => About::text("The Kubernetes namespace of the pod, if /var/log/pods says it.")
                .otel("k8s.namespace.name"),
        };
        about.or_null()
    }
}

/// What is known of a process: a value per [`Fact`].
#[derive(Clone, Debug, Default)]
pub struct Facts([Value; Fact::ALL.len()]);

/// The value of a fact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Value {
    /// It is not known, or nobody asked for it.
    #[default]
    Unknown,
    /// A number.
    Number(u64),
    /// Bytes from the traced world, or a name from a file.
    Text(Box<[u8]>),
}

impl Facts {
    /// What is known of this.
    pub fn get(&self, fact: Fact) -> &Value {
        &self.0[fact as usize]
    }

    /// Takes note of a value.
    pub fn set(&mut self, fact: Fact, value: Value) {
        self.0[fact as usize] = value;
    }

    /// Takes from `before` what is not known.
    pub fn complete(&mut self, before: &Self) {
        for (value, old) in self.0.iter_mut().zip(&before.0) {
            if *value == Value::Unknown {
                value.clone_from(old);
            }
        }
    }

    pub(super) fn cell(&self, fact: Fact) -> Cell<'_> {
        match self.get(fact) {
            Value::Unknown => Cell::Empty,
            Value::Number(number) => Cell::Unsigned(*number),
            Value::Text(text) => Cell::Name(text),
        }
    }
}

/// Whoever knows processes.
pub trait Beside {
    /// What is known of the process of a row, which happened at `ts_ns` of the kernel's monotonic clock.
    fn facts(&mut self, process: &Process<'_>, ts_ns: u64, clock: &Clock) -> Rc<Facts>;
}

/// Shared by the pages of a run.
pub(super) type Shared = Rc<RefCell<dyn Beside>>;
