//! How owners of sockets come to be known (ARCHITECTURE.md, D43): the ladder of the programs that `probes-ebpf/src/owner.rs`
//! gives to the objects of tools that can name owners.

use netbcc_common::kernel::Func;

use crate::hook::{Ladder, LessExact, Need, Prog, Rung, RungName, fentry, iter, kprobe, tp_btf};

/// What is asked for with the programs that a table of owners needs.
pub const TABLE: &str = "owners in a table";

/// Sockets that are open when the tool starts, and who has them: on whichever rung the rest is.
pub const SNAPSHOT: Ladder = {
    const PROGRAMS: &[Prog] = &[iter("owner_file_iter", OPEN_FILES)];
    const fn rung(name: RungName) -> Rung {
        Rung { name, programs: PROGRAMS, less_exact: None }
    }
    Ladder {
        name: "sockets from before the start",
        rungs: &[rung(RungName::Fexit), rung(RungName::Tracepoint), rung(RungName::Kprobe)],
    }
};

/// The map in which owners are noted by the addresses of sockets.
pub const BY_ADDRESS: &str = "OWNERS_BY_SK";
/// The map in which owners are noted with the sockets.
pub const WITH_SOCKET: &str = "SOCKET_OWNERS";

/// The function whose type an iterator over open files has.
const OPEN_FILES: &str = "bpf_iter_task_file";

/// Owners come to be known.
pub const OWNERS: Ladder = Ladder {
    name: "owners of sockets",
    rungs: &[
        Rung {
            name: RungName::Fexit,
            programs: &[
                fentry("owner_graft_fentry", "security_sock_graft").twice(),
                tp_btf("owner_state_tp", "inet_sock_set_state").twice(),
                tp_btf("owner_destroy_tp", "tcp_destroy_sock").when(Need::Asked(TABLE)),
                // Last: what is opened while it looks is seen already.
                iter("owner_file_iter", OPEN_FILES),
            ],
            less_exact: None,
        },
        Rung {
            name: RungName::Tracepoint,
            programs: &[
                tp_btf("owner_state_tp", "inet_sock_set_state").twice(),
                tp_btf("owner_read_tp", "tcp_rcv_space_adjust"),
                tp_btf("owner_destroy_tp", "tcp_destroy_sock").when(Need::Asked(TABLE)),
                iter("owner_file_iter", OPEN_FILES),
            ],
            less_exact: Some(
                LessExact::new("a server's socket belongs to the process that first reads from it").detail(
                    "accept() cannot be traced in this way. Until then it belongs to whoever has the listener.",
                ),
            ),
        },
        Rung {
            name: RungName::Kprobe,
            programs: &[
                kprobe("owner_state_kprobe", "tcp_set_state"),
                kprobe("owner_listen_kprobe", "inet_csk_listen_start"),
                kprobe("owner_graft_kprobe", "security_sock_graft"),
                kprobe("owner_mptcp_kprobe", "mptcp_token_destroy")
                    .arity(Func::MptcpTokenDestroy, 1)
                    .when(Need::IfThere),
                tp_btf("owner_destroy_tp", "tcp_destroy_sock"),
                iter("owner_file_iter", OPEN_FILES),
            ],
            less_exact: None,
        },
    ],
};
