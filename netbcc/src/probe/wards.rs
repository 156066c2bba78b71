//! The cgroups that a run asks for: whether a process is left in them. Who asks for a container that ended would wait for rows
//! that cannot come, as one that is started anew has another cgroup.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::outside::watch;
use crate::options::select::Groups;

/// The cgroups of one run that are watched. There is nothing to watch in a run that names none.
#[derive(Default)]
pub(super) struct Wards {
    watched: Vec<Ward>,
    /// The kernel announces a change of `cgroup.events` as what has priority, of which an event loop may not know.
    changes: Option<(Epoll, AsyncFd<OwnedFd>)>,
}

struct Ward {
    called: String,
    events: File,
}

impl Wards {
    /// Begins to watch those that are to be shown.
    ///
    /// # Errors
    /// No descriptor is free.
    pub(super) fn watch(groups: Option<&Groups>) -> Result<Self> {
        let wanted = groups.map_or(&[][..], |groups| &groups.named).iter().filter(|group| !group.excludes);
        let copy = |group: &crate::options::select::Group| {
            Some(Ward { called: group.called.clone(), events: group.events()?.try_clone().ok()? })
        };
        let watched: Vec<Ward> = wanted.filter_map(copy).collect();
        if watched.is_empty() {
            return Ok(Self::default());
        }
        let changes = || -> io::Result<_> {
            let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
            for (nth, ward) in (0..).zip(&watched) {
                epoll.add(&ward.events, EpollEvent::new(EpollFlags::EPOLLPRI, nth))?;
            }
            let fd = epoll.0.try_clone()?;
            Ok((epoll, watch(fd, Interest::READABLE)?))
        };
        let changes = changes().context("watch the cgroups")?;
        Ok(Self { watched, changes: Some(changes) })
    }

    /// Waits until no process is left in one of them; a sentence, once for each.
    pub(super) async fn ended(&mut self) -> String {
        loop {
            let Some((epoll, ready)) = &self.changes else { return std::future::pending().await };
            let Ok(mut guard) = ready.readable().await else { return std::future::pending().await };
            let mut events = [EpollEvent::empty()];
            let count = epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or_default();
            if count == 0 {
                guard.clear_ready();
                continue;
            }
            let ward = usize::try_from(events[0].data()).ok().and_then(|nth| self.watched.get(nth));
            let Some(ward) = ward else { continue };
            if is_populated(&ward.events) {
                continue;
            }
            // Whatever comes, it is said.
            let _was_there = epoll.delete(&ward.events);
            return format!(
                "no process is left in {}: if it is made anew, it is another one, and is not shown in this run",
                ward.called
            );
        }
    }
}

/// Whether a process is in the cgroup, or in one below. A cgroup that was removed has no file to read.
fn is_populated(events: &File) -> bool {
    let mut text = [0; 256];
    let len = events.read_at(&mut text, 0).unwrap_or_default();
    String::from_utf8_lossy(&text[..len]).lines().any(|line| line == "populated 1")
}
