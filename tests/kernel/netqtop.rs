//! netqtop: what is counted, on which queue of which interface, and in which form.
//!
//! Datagrams of a known size go through interfaces that only the test has, on which nothing moves by itself: every
//! count is exact. A link header has 14 bytes, one of IPv4 20, one of UDP 8.

use std::fs::{self, File};
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use netbcc_tests::checks;
use netbcc_tests::kernel::{Case, Check};
use netbcc_tests::net::{Net, Space};
use netbcc_tests::run::Run;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use nix::unistd::{pipe2, write};
use serde_json::Value;

pub(crate) const CHECKS: &[Check] = checks![
    each_queue_counts_its_own_flows,
    queues_without_a_row_are_in_the_total,
    sizes_fall_on_the_documented_sides,
    another_namespace_with_the_same_interface_does_not_count,
    blocks_are_exactly_these_bytes,
    sums_over_intervals_lose_nothing,
];

pub(crate) const ANY: &[Check] = checks![
    an_interface_that_is_removed_ends_the_tool,
    an_interface_that_moves_away_ends_the_tool,
    an_interface_that_is_renamed_is_followed,
    blocks_before_an_error_reach_a_reader_that_is_slow,
    idle_queues_have_rows_of_zeros,
    signals_print_nothing_of_the_interval_under_way,
    two_copies_count_the_same,
];

/// Headers below IP.
const LINK: u64 = 14;
/// Headers of IPv4 and UDP.
const UDP: u64 = 28;

/// A socket that receives, and is never read: what it has no room for is dropped without an answer.
fn sink(space: &Space, at: SocketAddr) -> (UdpSocket, SocketAddr) {
    let socket = space.enter(|| UdpSocket::bind(at)).expect("a port");
    let address = socket.local_addr().expect("it is bound");
    (socket, address)
}

/// A socket that sends there.
fn source(space: &Space, to: SocketAddr) -> UdpSocket {
    let socket = space.enter(|| UdpSocket::bind("0.0.0.0:0")).expect("a port");
    socket.connect(to).expect("there is a route");
    socket
}

fn send(from: &UdpSocket, payload: u64) {
    let payload = vec![b'x'; usize::try_from(payload).expect("it is short")];
    assert_eq!(from.send(&payload).expect("it is sent"), payload.len());
}

/// Starts the tool in a namespace.
fn start<'n>(case: &Case, args: &str, net: &'n Net, space: &Space) -> Run<'n> {
    space.enter(|| case.launch(args).start(net))
}

/// What a JSON run told until now of a queue, or in its totals, by these names.
fn sums<const N: usize>(lines: &[String], direction: &str, queue: Option<u64>, names: [&str; N]) -> [u64; N] {
    let mut sums = [0; N];
    for line in lines {
        let row: Value = serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
        if row["direction"] == direction && row["queue"] == queue.map_or(Value::Null, Value::from) {
            for (sum, name) in sums.iter_mut().zip(names) {
                *sum += row[name].as_u64().unwrap_or_else(|| panic!("no {name} in {line}"));
            }
        }
    }
    sums
}

/// Waits until the tool counted so many packets, and then for two more whole blocks of so many lines: all that it says.
fn all(run: Run<'_>, direction: &str, packets: u64, lines: usize) -> Vec<String> {
    let (mut known, mut counted) = (0, 0);
    // Each line is read once: an emulated processor takes long for it, and more lines come meanwhile.
    while counted < packets {
        let told = run.await_lines(known + 1);
        let [more] = sums(&told[known..], direction, None, ["packets"]);
        counted += more;
        known = told.len();
    }
    run.await_lines(known + 2 * lines);
    run.finish().stdout
}

/// Ten flows from here to there, the next always with twice as many packets: which flows a queue had is in the bits of
/// its count.
fn flows(net: &Net) -> Vec<UdpSocket> {
    let (sink, to) = sink(net.far(), net.v4_of(2, 0));
    let mut open = vec![sink];
    for bit in 0..10 {
        let from = source(net.near(), to);
        (0..1 << bit).for_each(|_| send(&from, 50));
        open.push(from);
    }
    open
}

const PACKETS: u64 = (1 << 10) - 1;

/// Packets per queue.
fn per_queue(lines: &[String], direction: &str, queues: u64) -> Vec<u64> {
    (0..queues).map(|queue| sums(lines, direction, Some(queue), ["packets"])[0]).collect()
}

fn each_queue_counts_its_own_flows(case: &Case) {
    let net = Net::cable((4, 4), (4, 4));
    let near = start(case, "-n cable -i 0.1 --json", &net, net.near());
    let far = start(case, "-n cable -i 0.1 --json", &net, net.far());
    let _open = flows(&net);
    let (near, far) = (all(near, "tx", PACKETS, 10), all(far, "rx", PACKETS, 10));
    let names = ["packets", "bytes", "under_64", "under_512"];
    assert_eq!(sums(&near, "tx", None, names), [PACKETS, PACKETS * (50 + UDP + LINK), 0, PACKETS]);
    assert_eq!(sums(&far, "rx", None, names), [PACKETS, PACKETS * (50 + UDP), 0, PACKETS]);
    let sent = per_queue(&near, "tx", 4);
    assert!(sent.iter().filter(|&&packets| packets > 0).count() >= 2, "{sent:?}");
    // Each flow was on one queue.
    assert_eq!(sent.iter().fold(0, |bits, packets| bits ^ packets), PACKETS, "{sent:?}");
    assert_eq!(sent.iter().sum::<u64>(), PACKETS);
    // veth leaves the sender's queue there, which on RX means one less.
    assert_eq!(per_queue(&far, "rx", 4), [sent[0] + sent[1], sent[2], sent[3], 0]);
    assert_eq!(sums(&near, "rx", None, ["packets"]), [0]);
    assert_eq!(sums(&far, "tx", None, ["packets"]), [0]);
}

fn two_copies_count_the_same(case: &Case) {
    let net = Net::cable((4, 4), (4, 4));
    let runs = [0, 1].map(|_| start(case, "-n cable -i 0.1 --json", &net, net.near()));
    let _open = flows(&net);
    let [one, other] = runs.map(|run| per_queue(&all(run, "tx", PACKETS, 10), "tx", 4));
    assert_eq!(one, other);
    assert_eq!(one.iter().sum::<u64>(), PACKETS);
}

fn queues_without_a_row_are_in_the_total(case: &Case) {
    let net = Net::cable((8, 1), (1, 1));
    let near = start(case, "-n cable -i 0.1 --json", &net, net.near());
    let far = start(case, "-n cable -i 0.1 --json", &net, net.far());
    let _open = flows(&net);
    let (near, far) = (all(near, "tx", PACKETS, 11), all(far, "rx", PACKETS, 4));
    let sent = per_queue(&near, "tx", 8);
    assert_eq!(sent.iter().sum::<u64>(), PACKETS);
    assert_eq!(per_queue(&far, "rx", 1), [sent[0] + sent[1]]);
    let names = ["packets", "bytes", "under_512"];
    assert_eq!(sums(&far, "rx", None, names), [PACKETS, PACKETS * (50 + UDP), PACKETS]);
    // No other queue has a row.
    assert!(far.iter().all(|line| line.contains("\"queue\":0,") || line.contains("\"queue\":null,")));
}

fn sizes_fall_on_the_documented_sides(case: &Case) {
    let net = Net::new();
    let (_sink, to) = sink(net.near(), net.v4(0));
    let from = source(net.near(), to);
    let run = start(case, "-n lo -i 0.1 --json", &net, net.near());
    // On both sides of each border, on TX and on RX; and the smallest and the largest datagram.
    let mut payloads = vec![0, 65_507];
    for border in [64, 512, 2048, 16_384, 65_536] {
        for size in [border - 1, border] {
            payloads.extend([size - UDP - LINK, size - UDP].iter().filter(|&&payload| payload <= 65_507));
        }
    }
    for &payload in &payloads {
        send(&from, payload);
    }
    let count = payloads.len() as u64;
    let told = all(run, "rx", count, 4);
    let names =
        ["under_64", "under_512", "under_2k", "under_16k", "under_64k", "from_64k", "packets", "bytes"];
    for (direction, header) in [("tx", UDP + LINK), ("rx", UDP)] {
        let sizes: Vec<u64> = payloads.iter().map(|payload| payload + header).collect();
        let between = |from, to| sizes.iter().filter(|&&size| from <= size && size < to).count() as u64;
        let expected = [
            between(0, 64),
            between(64, 512),
            between(512, 2048),
            between(2048, 16_384),
            between(16_384, 65_536),
            between(65_536, u64::MAX),
            count,
            sizes.iter().sum(),
        ];
        assert_eq!(sums(&told, direction, None, names), expected, "{direction}");
        assert_eq!(sums(&told, direction, Some(0), names), expected, "{direction}");
    }
    assert!(sums(&told, "tx", None, ["from_64k"]) >= [2], "larger than all classes");
}

fn another_namespace_with_the_same_interface_does_not_count(case: &Case) {
    // Both ends have the same name and number.
    let net = Net::cable((1, 1), (1, 1));
    let (sink, to) = sink(net.far(), net.v4_of(2, 0));
    let from = source(net.near(), to);
    let near = start(case, "-n cable -i 0.1 --json", &net, net.near());
    let far = start(case, "-n cable -i 0.1 --json", &net, net.far());
    (0..7).for_each(|_| send(&from, 10));
    sink.connect(from.local_addr().expect("it is bound")).expect("there is a route");
    (0..3).for_each(|_| send(&sink, 1000));
    let (near, far) = (all(near, "rx", 3, 4), all(far, "tx", 3, 4));
    let names = ["packets", "bytes"];
    assert_eq!(sums(&near, "tx", None, names), [7, 7 * (10 + UDP + LINK)]);
    assert_eq!(sums(&near, "rx", None, names), [3, 3 * (1000 + UDP)]);
    assert_eq!(sums(&far, "tx", None, names), [3, 3 * (1000 + UDP + LINK)]);
    assert_eq!(sums(&far, "rx", None, names), [7, 7 * (10 + UDP)]);
}

/// The block of `lines` lines in which everything is that `act` sends: what was cut by the end of an interval is sent
/// again. Also the first block, in which nothing is.
fn block_of(case: &Case, args: &str, net: &Net, lines: usize, act: impl Fn()) -> [Vec<String>; 2] {
    for _ in 0..10 {
        let run = start(case, args, net, net.near());
        run.await_lines(lines);
        act();
        let blocks: Vec<Vec<String>> =
            run.await_lines(4 * lines).chunks_exact(lines).map(<[String]>::to_vec).collect();
        run.finish();
        // The time differs always.
        let busy: Vec<&Vec<String>> =
            blocks[1..].iter().filter(|block| block[1..] != blocks[0][1..]).collect();
        if let [block] = busy[..]
            && block != &blocks[3]
        {
            return [blocks[0].clone(), block.clone()];
        }
    }
    panic!("an interval always ends while datagrams are sent");
}

const HEADER: &str = " QueueID    avg_size   [0, 64)    [64, 512)  [512, 2K)  [2K, 16K)  [16K, 64K) ";
const IDLE: &str = "0          0          0          0          0          0          ";

fn blocks_are_exactly_these_bytes(case: &Case) {
    let net = Net::new();
    let (_sink, to) = sink(net.near(), net.v4(0));
    let from = source(net.near(), to);
    let rule = "-".repeat(77);
    let [idle, block] = block_of(case, "-n lo -i 0.5", &net, 11, || send(&from, 10));
    let told = "38.0       1          0          0          0          0          ";
    let sent = "52.0       1          0          0          0          0          ";
    let row = |queue: &str, rest: &str| format!(" {queue:<11}{rest}");
    let lines = |tx: &str, rx: &str| {
        [
            "TX".into(),
            HEADER.into(),
            row("0", tx),
            row("Total", tx),
            String::new(),
            "RX".into(),
            HEADER.into(),
            row("0", rx),
            row("Total", rx),
            rule.clone(),
        ]
    };
    assert_eq!(idle[1..], lines(IDLE, IDLE));
    assert_eq!(block[1..], lines(sent, told));
}

fn idle_queues_have_rows_of_zeros(case: &Case) {
    let net = Net::cable((3, 2), (1, 1));
    let run = start(case, "-n cable -t -i 0.25", &net, net.near());
    let told = run.await_lines(28);
    run.finish();
    let header = format!("{HEADER}BPS        PPS        ");
    let row = |queue: &str| format!(" {queue:<11}{IDLE}0.0        0.0        ");
    for block in told.chunks_exact(14) {
        is_asctime(&block[0]);
        let rows = [
            "TX".into(),
            header.clone(),
            row("0"),
            row("1"),
            row("2"),
            row("Total"),
            String::new(),
            "RX".into(),
            header.clone(),
            row("0"),
            row("1"),
            row("Total"),
            "-".repeat(95),
        ];
        assert_eq!(block[1..], rows);
    }
}

/// `Www Mmm dd HH:MM:SS YYYY`, as C's asctime has it.
fn is_asctime(line: &str) {
    let bytes = line.as_bytes();
    assert!(bytes.len() == 24 && bytes[13] == b':' && bytes[16] == b':' && bytes[19] == b' ', "{line:?}");
    assert!(bytes[8] == b' ' || bytes[8].is_ascii_digit(), "{line:?}");
}

fn sums_over_intervals_lose_nothing(case: &Case) {
    const EACH: u64 = 5000;
    let net = Net::new();
    let (_sink, to) = sink(net.near(), net.v4(0));
    let run = start(case, "-n lo -i 0.02 --json", &net, net.near());
    let senders: Vec<_> = (0..2)
        .map(|_| {
            let from = source(net.near(), to);
            thread::spawn(move || (0..EACH).for_each(|_| send(&from, 100)))
        })
        .collect();
    for sender in senders {
        sender.join().expect("all are sent");
    }
    let told = all(run, "tx", 2 * EACH, 4);
    // What the backlog had no room for was sent, but not received.
    let received = net.near().enter(|| received_by("lo"));
    assert!(received > 0);
    let names = ["packets", "bytes", "under_512"];
    assert_eq!(sums(&told, "tx", None, names), [2 * EACH, 2 * EACH * (100 + UDP + LINK), 2 * EACH]);
    assert_eq!(sums(&told, "rx", None, names), [received, received * (100 + UDP), received]);
    assert!(told.len() >= 3 * 4, "several intervals");
}

/// Packets that an interface received, as the kernel counts them.
fn received_by(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/dev").expect("/proc is mounted");
    let line = text.lines().find_map(|line| line.trim().strip_prefix(&format!("{name}:")));
    let packets = line.expect("it is there").split_whitespace().nth(1);
    packets.and_then(|packets| packets.parse().ok()).expect("a number")
}

fn an_interface_that_is_removed_ends_the_tool(case: &Case) {
    let net = Net::cable((2, 2), (2, 2));
    // Long before its interval ends.
    let run = start(case, "-n cable -i 3600", &net, net.near());
    let far = start(case, "-n cable -i 3600 --json", &net, net.far());
    let other = start(case, "-n lo -i 3600", &net, net.near());
    net.near().ip("link del cable");
    for run in [run, far] {
        run.ends().code(1).one_line("netqtop", &["the network interface cable is gone"]);
    }
    // Its neighbour goes on.
    other.finish();
}

fn an_interface_that_moves_away_ends_the_tool(case: &Case) {
    let net = Net::cable((1, 1), (1, 1));
    let run = start(case, "-n cable -i 3600", &net, net.near());
    net.near().ip(&format!("link set cable down name moved netns {}", net.far().path()));
    run.ends().code(1).one_line("netqtop", &["cable is gone", "moved to another namespace"]);
}

fn blocks_before_an_error_reach_a_reader_that_is_slow(case: &Case) {
    // The first block is due after a second, on a machine that is not busy.
    let written = (1..=10).map(|tenths| Duration::from_millis(1000 + 300 * tenths)).any(|pause| {
        let net = Net::cable((2, 2), (2, 2));
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).expect("it holds a page");
        write(&writer, &[b'\n'; 4096]).expect("it has room for a page");
        let run = net.near().enter(|| case.launch("-n cable -i 1 --json").stdout(writer).start(&net));
        thread::sleep(pause);
        net.near().ip("link del cable");
        let text = std::io::read_to_string(File::from(reader)).expect("rows are UTF-8");
        run.ends().code(1).one_line("netqtop", &["the network interface cable is gone"]);
        text.lines().any(|line| line.starts_with('{'))
    });
    assert!(written, "no block that waited when the interface left was written");
}

fn an_interface_that_is_renamed_is_followed(case: &Case) {
    let net = Net::cable((1, 1), (1, 1));
    let run = start(case, "-n cable -i 0.1 --json", &net, net.near());
    net.near().ip("link set cable down\nlink set cable name other\nlink set other up");
    net.near().ip(&net.neighbour(2, "other"));
    let (_sink, to) = sink(net.far(), net.v4_of(2, 0));
    let from = source(net.near(), to);
    (0..5).for_each(|_| send(&from, 10));
    let told = all(run, "tx", 5, 4);
    assert_eq!(sums(&told, "tx", None, ["packets", "bytes"]), [5, 5 * (10 + UDP + LINK)]);
    // Its last message has its last name.
    let run = start(case, "-n other -i 3600", &net, net.near());
    net.near().ip("link set other down\nlink set other name third\nlink del third");
    run.ends().code(1).one_line("netqtop", &["the network interface third is gone"]);
}

fn signals_print_nothing_of_the_interval_under_way(case: &Case) {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let net = Net::new();
        let (_sink, to) = sink(net.near(), net.v4(0));
        let run = start(case, "-n lo -i 3600", &net, net.near());
        send(&source(net.near(), to), 10);
        let ended = run.signal(signal);
        ended.code(0).quiet();
        assert_eq!(ended.stdout, Vec::<String>::new());
    }
}
