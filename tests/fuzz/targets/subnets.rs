//! tcpsubnet's list: the first subnet of an address gets it, and C's forms of addresses are read as C reads them.
#![no_main]

use std::net::{Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use netbcc::fuzzing;

fuzz_target!(|data: &[u8]| {
    let Ok(list) = str::from_utf8(data) else { return };
    // The check below compares all with all.
    if list.split(',').count() > 64 {
        return;
    }
    let subnets = match fuzzing::subnets(list) {
        Ok(subnets) => subnets,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let mask = |len: u32| u128::MAX.checked_shl(128 - len).unwrap_or(0);
    for (nth, (label, v6, bits, len, has_place)) in subnets.iter().enumerate() {
        assert!(list.split(',').any(|item| item.trim() == label));
        assert_eq!(bits & !mask(*len), 0, "{label}");
        assert!(*len <= if *v6 { 128 } else { 32 }, "{label}");
        let (address, _) = label.split_once('/').expect("it was taken");
        // What the standard library takes means the same to us.
        if let Ok(ip) = address.parse::<Ipv4Addr>() {
            assert_eq!(*bits, (u128::from(u32::from(ip)) << 96) & mask(*len), "{label}");
        }
        if let Ok(ip) = address.parse::<Ipv6Addr>() {
            assert_eq!(*bits, u128::from(ip) & mask(*len), "{label}");
        }
        // What an earlier one has all of is out; what none has all of is in.
        let inside = |(_, other_v6, other_bits, other_len, _): &(String, bool, u128, u32, bool)| {
            // An IPv6 socket has the addresses of IPv4, too.
            let (other_bits, other_len) = if *v6 && !other_v6 {
                (0xffff << 32 | other_bits >> 96, other_len + 96)
            } else {
                (*other_bits, *other_len)
            };
            (*v6 || !other_v6) && other_len <= *len && other_bits == bits & mask(other_len)
        };
        assert_eq!(*has_place, !subnets[..nth].iter().any(inside), "{label}");
    }
});
