//! BTF from memory and from a file in pieces: what the first way takes, the second takes, too, and says the same. The
//! second reads no more than it needs, so it does not see that what comes after is cut short.
#![no_main]

use std::cell::RefCell;
use std::fs::File;
use std::io::{Seek as _, Write as _};

use libfuzzer_sys::fuzz_target;
use netbcc::fuzzing;
use netbcc::sys::btf::Wanted;
use netbcc_common::kernel::FIELDS;

thread_local! {
    static FILE: RefCell<File> = RefCell::new(tempfile::tempfile().expect("a file"));
}

fn wanted() -> Wanted {
    Wanted {
        functions: vec!["inet_csk_accept".into(), "tcp_set_state".into(), "f".into()],
        tracepoints: vec!["inet_sock_set_state".into(), "t".into()],
        enums: vec!["skb_drop_reason".into(), "e".into()],
        structs: vec!["bpf_mem_alloc".into(), "s".into()],
        typedefs: vec!["class_srcu_fast_notrace_t".into(), "s".into()],
    }
}

fuzz_target!(|data: &[u8]| {
    FILE.with_borrow_mut(|file| {
        file.rewind().and_then(|()| file.write_all(data)).expect("room in the file");
        file.set_len(data.len() as u64).expect("it can be cut");
        let wanted = wanted();
        match fuzzing::btf(data, file, &wanted) {
            // It reads names as long as the kernel has them.
            [Ok(whole), _]
                if wanted.enums.iter().flat_map(|name| whole.members_of(name)).any(|m| m.1.len() > 500) => {}
            [Ok(whole), Ok(pieces)] => {
                assert_eq!(whole.offsets(), pieces.offsets());
                for name in &wanted.functions {
                    assert_eq!(whole.function(name), pieces.function(name), "{name}");
                }
                for name in &wanted.tracepoints {
                    assert_eq!(whole.tracepoint(name), pieces.tracepoint(name), "{name}");
                }
                for name in &wanted.enums {
                    assert_eq!(whole.members_of(name), pieces.members_of(name), "{name}");
                }
                for (field, _) in FIELDS {
                    let [one, other] = [&whole, &pieces]
                        .map(|kernel| kernel.require(*field).map_err(|error| error.to_string()));
                    assert_eq!(one, other);
                }
            }
            [Ok(_), Err(error)] => panic!("in pieces: {error:#}"),
            [Err(_), _] => {}
        }
    });
});
