//! Layouts of the tools, declared as a tool would and compared with the bytes that the specs give.

use std::net::IpAddr;

use std::fs::File;

use super::*;

/// One row that has something for every tool.
struct Row {
    pid: u32,
    uid: u32,
    comm: [u8; 16],
    local: IpAddr,
    lport: u16,
    remote: IpAddr,
    rport: u16,
    tx: u64,
    rx: u64,
    us: u64,
    netns: u32,
    query: &'static str,
    old: &'static str,
    new: &'static str,
    sk: u64,
}

impl Row {
    fn version(&self) -> Cell<'_> {
        Cell::Unsigned(if self.local.is_ipv4() { 4 } else { 6 })
    }

    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn ms(&self) -> Cell<'_> {
        Cell::Float(self.us as f64 / 1000.0)
    }
}

fn row() -> Row {
    Row {
        pid: 1479,
        uid: 1000,
        comm: *b"telnet\0\0\0\0\0\0\0\0\0\0",
        local: [127, 0, 0, 1].into(),
        lport: 46644,
        remote: [127, 0, 0, 1].into(),
        rport: 23,
        tx: 0,
        rx: 2,
        us: 230,
        netns: 4_026_531_969,
        query: "",
        old: "CLOSE",
        new: "SYN_SENT",
        sk: 0xffff_9fd7_e819_2000,
    }
}

fn v6(text: &str) -> IpAddr {
    IpAddr::V6(text.parse().unwrap())
}

/// 2023-01-03 07:38:55.123456789 UTC is monotonic 0.
const OFFSET: i64 = 1_672_731_535_123_456_789;

fn memory(format: Format) -> Out {
    Out::memory(format, Clock::fixed(OFFSET, 0))
}

fn print(table: &Table<Row>, row: &Row) -> (String, String) {
    let mut out = memory(table.format);
    out.header(table);
    let header = out.take();
    out.row(table, 0, row);
    (header, out.take())
}

fn tcpconnect([t, uid, lport, dns]: [bool; 4]) -> Table<Row> {
    let table = Table::<Row>::new(Format::Text)
        .col_if(t, seconds(9, 3).gap(""))
        .col_if(uid, left("UID", 6, |r: &Row| r.uid.into()).gap(""))
        .col(left("PID", 7, |r| r.pid.into()))
        .col(left("COMM", 12, |r: &Row| Cell::from(&r.comm)).cut())
        .col(left("IP", 2, Row::version))
        .col(left("SADDR", 16, |r| r.local.into()))
        .col_if(lport, left("LPORT", 6, |r| r.lport.into()))
        .col(left("DADDR", 16, |r| r.remote.into()))
        .col(left("DPORT", 6, |r| r.rport.into()));
    if dns { table.col(left("QUERY", 0, |r| Cell::Name(r.query.as_bytes()))) } else { table.tail(" ") }
}

#[test]
fn tcpconnect_rows_end_with_a_blank_that_the_header_lacks() {
    let (header, line) = print(&tcpconnect([false, false, false, false]), &row());
    assert_eq!(header, "PID     COMM         IP SADDR            DADDR            DPORT \n");
    assert_eq!(line, "1479    telnet       4  127.0.0.1        127.0.0.1        23     \n");
}

#[test]
fn tcpconnect_with_its_other_columns() {
    let (header, _) = print(&tcpconnect([true, true, true, false]), &row());
    assert_eq!(
        header,
        "TIME(s)  UID   PID     COMM         IP SADDR            LPORT  DADDR            DPORT \n"
    );
    let mut row = row();
    row.query = "www.domain.com (123.342ms)";
    row.uid = 1_000_000;
    let (header, line) = print(&tcpconnect([true, true, false, true]), &row);
    assert_eq!(
        header,
        "TIME(s)  UID   PID     COMM         IP SADDR            DADDR            DPORT  QUERY\n"
    );
    assert_eq!(
        line,
        "0.000    10000001479    telnet       4  127.0.0.1        127.0.0.1        23     \
         www.domain.com (123.342ms)\n"
    );
}

#[test]
fn tcpconnect_counts() {
    let table = Table::<Row>::new(Format::Text)
        .col(left("LADDR", 25, |r| r.local.into()))
        .col(left("RADDR", 25, |r| r.remote.into()))
        .col(left("RPORT", 20, |r| r.rport.into()))
        .col(left("CONNECTS", 10, |r| r.rx.into()));
    let (header, line) = print(&table, &row());
    assert_eq!(header, format!("{:<25} {:<25} {:<20} {:<10}\n", "LADDR", "RADDR", "RPORT", "CONNECTS"));
    assert_eq!(line, format!("{:<25} {:<25} {:<20} {:<10}\n", "127.0.0.1", "127.0.0.1", 23, 2));
}

fn tcplife(format: Format, wide: bool, times: bool) -> Table<Row> {
    let comm = if wide { 16 } else { 10 };
    let addr = if wide { 39 } else { 15 };
    let kb = if wide { 6 } else { 5 };
    Table::<Row>::new(format)
        .col_if(times, wall(8))
        .col_if(times, seconds(9, 6))
        .col(left("PID", 5, |r| r.pid.into()))
        .col(left("COMM", comm, |r: &Row| Cell::from(&r.comm)).cut())
        .col_if(wide || format != Format::Text, left("IP", 2, Row::version))
        .col(left("LADDR", addr, |r| r.local.into()))
        .col(left("LPORT", 5, |r| r.lport.into()))
        .col(left("RADDR", addr, |r| r.remote.into()))
        .col(left("RPORT", 5, |r| r.rport.into()))
        .col(right("TX_KB", kb, |r| r.tx.into()))
        .col(right("RX_KB", kb, |r| r.rx.into()))
        .col(left("MS", 0, Row::ms).precision(2))
}

#[test]
fn tcplife_plain_wide_and_csv() {
    let mut row = Row { pid: 22597, rport: 28527, ..row() };
    row.comm = *b"recordProgramSt\0";
    let (header, line) = print(&tcplife(Format::Text, false, false), &row);
    assert_eq!(header, "PID   COMM       LADDR           LPORT RADDR           RPORT TX_KB RX_KB MS\n");
    assert_eq!(line, "22597 recordProg 127.0.0.1       46644 127.0.0.1       28527     0     2 0.23\n");
    let (header, line) = print(&tcplife(Format::Text, true, true), &row);
    let gap = |text: &str| format!("{text:<39}");
    assert_eq!(
        header,
        format!(
            "TIME     TIME(s)   PID   COMM             IP {} LPORT {} RPORT  TX_KB  RX_KB MS\n",
            gap("LADDR"),
            gap("RADDR")
        )
    );
    assert_eq!(header.len(), 134 + 9 + 10 + 1);
    assert_eq!(
        line,
        format!(
            "07:38:55 0.000000  22597 recordProgramSt  4  {addr} 46644 {addr} 28527      0      2 0.23\n",
            addr = gap("127.0.0.1")
        )
    );
    let (header, line) = print(&tcplife(Format::Csv, true, true), &row);
    assert_eq!(header, "TIME,TIME(s),PID,COMM,IP,LADDR,LPORT,RADDR,RPORT,TX_KB,RX_KB,MS\n");
    assert_eq!(line, "07:38:55,0.000000,22597,recordProgramSt,4,127.0.0.1,46644,127.0.0.1,28527,0,2,0.23\n");
}

#[test]
fn tcpaccept_with_both_times() {
    let table = Table::<Row>::new(Format::Text)
        .col(wall(9).gap(""))
        .col(seconds(9, 3).gap(""))
        .col(left("PID", 7, |r| r.pid.into()))
        .col(left("COMM", 12, |r: &Row| Cell::from(&r.comm)).cut())
        .col(left("IP", 2, Row::version))
        .col(left("RADDR", 16, |r| r.remote.into()))
        .col(left("RPORT", 5, |r| r.rport.into()))
        .col(left("LADDR", 16, |r| r.local.into()))
        .col(left("LPORT", 5, |r| r.lport.into()));
    let mut row = row();
    (row.remote, row.local) = (v6("::ffff:192.168.26.100"), v6("::ffff:192.168.26.100"));
    row.lport = 4569;
    let (header, line) = print(&table, &row);
    assert_eq!(
        header,
        "TIME     TIME(s)  PID     COMM         IP RADDR            RPORT LADDR            LPORT\n"
    );
    assert_eq!(
        line,
        "07:38:55 0.000    1479    telnet       6  ::ffff:192.168.26.100 23    ::ffff:192.168.26.100 4569 \n"
    );
}

#[test]
fn tcpretrans_stream_and_flows() {
    let table = |sequence: bool| {
        let state = left("STATE", if sequence { 12 } else { 0 }, |r: &Row| r.new.into());
        Table::<Row>::new(Format::Text)
            .col(wall(8))
            .col(left("PID", 7, |r| r.pid.into()))
            .col(left("IP", 2, Row::version))
            .col(left("LADDR:LPORT", 20, |r| Cell::Endpoint(r.local, r.lport)))
            .col(right("T", 1, |_: &Row| "R".into()).gap("> "))
            .col(left("RADDR:RPORT", 20, |r| Cell::Endpoint(r.remote, r.rport)))
            .col(state)
            .col_if(sequence, left("SEQ", 0, |r: &Row| r.rx.into()).header_width(10))
    };
    let (header, line) = print(&table(false), &row());
    assert_eq!(header, "TIME     PID     IP LADDR:LPORT          T> RADDR:RPORT          STATE\n");
    assert_eq!(line, "07:38:55 1479    4  127.0.0.1:46644      R> 127.0.0.1:23         SYN_SENT\n");
    let (header, line) = print(&table(true), &row());
    assert_eq!(
        header,
        "TIME     PID     IP LADDR:LPORT          T> RADDR:RPORT          STATE        SEQ       \n"
    );
    assert_eq!(line, "07:38:55 1479    4  127.0.0.1:46644      R> 127.0.0.1:23         SYN_SENT     2\n");

    let flows = Table::<Row>::new(Format::Text)
        .col(
            left("LADDR:LPORT", 20, |r: &Row| Cell::FlowEnd(r.local, r.lport))
                .gap(" <-> ")
                .header_width(25)
                .header_gap(" "),
        )
        .col(left("RADDR:RPORT", 20, |r: &Row| Cell::FlowEnd(r.remote, r.rport)).header_width(25))
        .col(right("RETRANSMITS", 10, |r| r.tx.into()));
    let mut flow = Row { lport: 60366, rport: 443, tx: 700, ..row() };
    (flow.local, flow.remote) = ([192, 168, 10, 50].into(), [172, 217, 21, 194].into());
    let (header, line) = print(&flows, &flow);
    assert_eq!(header, "LADDR:LPORT               RADDR:RPORT               RETRANSMITS\n");
    assert_eq!(line, "[192.168.10.50]#60366 <-> [172.217.21.194]#443        700\n");
}

#[test]
fn tcpstates_has_its_arrow_in_text_only() {
    let table = |format| {
        Table::<Row>::new(format)
            .col(left("SKADDR", 16, |r| Cell::Hex(r.sk)))
            .col(left("C-PID", 5, |r| r.pid.into()))
            .col(left("C-COMM", 10, |r: &Row| Cell::from(&r.comm)).cut())
            .col_if(format != Format::Text, left("IP", 2, Row::version))
            .col(left("LADDR", 15, |r| r.local.into()))
            .col(left("LPORT", 5, |r| r.lport.into()))
            .col(left("RADDR", 15, |r| r.remote.into()))
            .col(left("RPORT", 5, |r| r.rport.into()))
            .col(left("OLDSTATE", 11, |r: &Row| r.old.into()).gap(" -> "))
            .col(left("NEWSTATE", 11, |r| r.new.into()))
            .col(left("MS", 0, Row::ms).precision(3))
    };
    let mut row =
        Row { pid: 22384, lport: 0, rport: 80, us: 0, comm: *b"curl\0\0\0\0\0\0\0\0\0\0\0\0", ..row() };
    (row.local, row.remote) = ([100, 66, 100, 185].into(), [52, 33, 159, 26].into());
    let (header, line) = print(&table(Format::Text), &row);
    assert_eq!(
        header,
        "SKADDR           C-PID C-COMM     LADDR           LPORT RADDR           RPORT OLDSTATE    -> NEWSTATE    MS\n"
    );
    assert_eq!(
        line,
        "ffff9fd7e8192000 22384 curl       100.66.100.185  0     52.33.159.26    80    CLOSE       -> SYN_SENT    0.000\n"
    );
    let (header, line) = print(&table(Format::Csv), &row);
    assert_eq!(header, "SKADDR,C-PID,C-COMM,IP,LADDR,LPORT,RADDR,RPORT,OLDSTATE,NEWSTATE,MS\n");
    assert_eq!(line, "ffff9fd7e8192000,22384,curl,4,100.66.100.185,0,52.33.159.26,80,CLOSE,SYN_SENT,0.000\n");
    let (header, line) = print(&table(Format::Json), &row);
    assert_eq!(header, "");
    assert_eq!(
        line,
        "{\"time\":\"2023-01-03T07:38:55.123456789Z\",\"ts_ns\":0,\"skaddr\":\"ffff9fd7e8192000\",\"c_pid\":22384,\
         \"c_comm\":\"curl\",\"ip\":4,\"laddr\":\"100.66.100.185\",\"lport\":0,\"raddr\":\"52.33.159.26\",\
         \"rport\":80,\"oldstate\":\"CLOSE\",\"newstate\":\"SYN_SENT\",\"ms\":0}\n"
    );
}

fn tcptracer(verbose: bool, netns: bool) -> Table<Row> {
    let port = left("DPORT", 6, |r: &Row| r.rport.into());
    Table::<Row>::new(Format::Text)
        .col_if(!verbose, left("T", 2, |_| "C".into()))
        .col_if(verbose, left("TYPE", 12, |_| "connect".into()))
        .col(left("PID", 6, |r| r.pid.into()))
        .col(left("COMM", 16, |r| Cell::from(&r.comm)))
        .col(left("IP", 2, Row::version))
        .col(left("SADDR", 16, |r| Cell::Bracketed(r.local)))
        .col(left("DADDR", 16, |r| Cell::Bracketed(r.remote)))
        .col(left("SPORT", 6, |r| r.lport.into()))
        .col(if verbose && !netns { port.header_width(7) } else { port })
        .col_if(verbose && netns, left("NETNS", 8, |r| r.netns.into()))
}

#[test]
fn tcptracer_brackets_ipv6_and_widens_a_header() {
    let mut row = Row { pid: 28943, lport: 59306, ..row() };
    (row.local, row.remote) = ([192, 168, 1, 2].into(), [192, 168, 1, 1].into());
    let (header, line) = print(&tcptracer(false, false), &row);
    assert_eq!(header, "T  PID    COMM             IP SADDR            DADDR            SPORT  DPORT \n");
    assert_eq!(line, "C  28943  telnet           4  192.168.1.2      192.168.1.1      59306  23    \n");
    let (header, line) = print(&tcptracer(true, true), &row);
    assert_eq!(
        header,
        "TYPE         PID    COMM             IP SADDR            DADDR            SPORT  DPORT  NETNS   \n"
    );
    assert_eq!(
        line,
        "connect      28943  telnet           4  192.168.1.2      192.168.1.1      59306  23     4026531969\n"
    );
    (row.local, row.remote, row.lport, row.rport) = (v6("::1"), v6("::1"), 55758, 80);
    let (header, line) = print(&tcptracer(true, false), &row);
    assert!(header.ends_with(" SPORT  DPORT  \n"), "{header:?}");
    assert!(line.ends_with("6  [::1]            [::1]            55758  80    \n"), "{line:?}");
}

#[test]
fn tcptracer_counts_nanoseconds_from_the_first_row() {
    let table = Table::<Row>::new(Format::Text).col(nanos(14).gap("")).col(left("T", 2, |_| "X".into()));
    let mut out = memory(Format::Text);
    out.header(&table);
    out.row(&table, 5_000, &row());
    out.row(&table, 5_123, &row());
    out.row(&table, 4_999, &row());
    assert_eq!(out.take(), "TIME(ns)      T \n0             X \n123           X \n-1            X \n");
}

#[test]
fn tcpconnlat_ends_without_blanks() {
    let table = Table::<Row>::new(Format::Text)
        .col(seconds(9, 3).gap(""))
        .col(left("PID", 7, |r| r.pid.into()))
        .col(left("COMM", 12, |r: &Row| Cell::from(&r.comm)).cut())
        .col(left("IP", 2, Row::version))
        .col(left("SADDR", 16, |r| r.local.into()))
        .col(left("LPORT", 6, |r| r.lport.into()))
        .col(left("DADDR", 16, |r| r.remote.into()))
        .col(left("DPORT", 5, |r| r.rport.into()))
        .col(left("LAT(ms)", 0, Row::ms).precision(2));
    let (header, line) = print(&table, &row());
    assert_eq!(
        header,
        "TIME(s)  PID     COMM         IP SADDR            LPORT  DADDR            DPORT LAT(ms)\n"
    );
    assert_eq!(
        line,
        "0.000    1479    telnet       4  127.0.0.1        46644  127.0.0.1        23    0.23\n"
    );
}

#[test]
fn tcpdrop_composes_cells() {
    struct Drop {
        addr: IpAddr,
        flags: Flags,
        stack: Vec<String>,
    }
    struct Flags(&'static str, &'static [&'static str]);
    impl fmt::Display for Flags {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{} ({})", self.0, self.1.join("|"))
        }
    }
    let table = |format| {
        Table::<Drop>::new(format)
            .col(
                left("SADDR:SPORT", 20, |r: &Drop| Cell::Endpoint(r.addr, 80))
                    .gap(" > ")
                    .except(Format::Json),
            )
            .col(left("DADDR:DPORT", 20, |r: &Drop| Cell::Endpoint(r.addr, 33280)).except(Format::Json))
            .col(left("STATE (FLAGS)", 20, |r: &Drop| Cell::Shown(&r.flags)).except(Format::Json))
            .col(left("REASON (CODE)", 0, |_: &Drop| "NETFILTER_DROP (12)".into()).except(Format::Json))
            .col(data("saddr", |r| r.addr.into()))
            .col(data("stack", |r| Cell::List(&r.stack)))
    };
    let drop = Drop {
        addr: [39, 156, 66, 10].into(),
        flags: Flags("SYN_SENT", &["SYN", "ACK"]),
        stack: vec!["kfree_skb+0x1".into(), "ip_\"x".into()],
    };
    let mut out = memory(Format::Text);
    let text = table(Format::Text);
    out.header(&text);
    out.row(&text, 0, &drop);
    out.line("\tkfree_skb+0x1");
    assert_eq!(
        out.take(),
        "SADDR:SPORT          > DADDR:DPORT          STATE (FLAGS)        REASON (CODE)
39.156.66.10:80      > 39.156.66.10:33280   SYN_SENT (SYN|ACK)   NETFILTER_DROP (12)
\tkfree_skb+0x1
"
    );
    let mut out = memory(Format::Json);
    out.row(&table(Format::Json), 1, &drop);
    out.line("not in JSON");
    assert_eq!(
        out.take(),
        "{\"time\":\"2023-01-03T07:38:55.123456790Z\",\"ts_ns\":1,\"saddr\":\"39.156.66.10\",\
         \"stack\":[\"kfree_skb+0x1\",\"ip_\\\"x\"]}\n"
    );
}

#[test]
fn tcptop_and_tcpsubnet_align_right() {
    let table = |header, width| {
        Table::<Row>::new(Format::Text)
            .col(left("PID", 7, |r: &Row| r.pid.into()))
            .col(left("COMM", 12, |r: &Row| Cell::from(&r.comm)).cut())
            .col(left(header, width, |r: &Row| Cell::Endpoint(r.local, r.lport)).key("laddr"))
            .col(right("RX_KB", 6, |r| r.rx.into()))
            .col(right("TX_KB", 6, |r| r.tx.into()))
    };
    let (header, line) = print(&table("LADDR", 21), &row());
    assert_eq!(header, "PID     COMM         LADDR                  RX_KB  TX_KB\n");
    assert_eq!(line, "1479    telnet       127.0.0.1:46644            2      0\n");
    let (header, _) = print(&table("LADDR6", 32), &row());
    assert_eq!(header, "PID     COMM         LADDR6                            RX_KB  TX_KB\n");

    let subnet = Table::<Row>::new(Format::Text).col(left("SUBNET", 21, |_| "0.0.0.0/0".into())).col(right(
        "BYTES",
        6,
        |_| 5780_u32.into(),
    ));
    assert_eq!(print(&subnet, &row()).1, "0.0.0.0/0               5780\n");
}

#[test]
fn solisten_pads_its_last_column() {
    let table = Table::<Row>::new(Format::Text)
        .col(left("PID", 7, |r| r.pid.into()))
        .col(left("COMM", 12, |r: &Row| Cell::from(&r.comm)).cut())
        .col(left("PROTO", 6, |_| "TCPv4".into()))
        .col(left("BACKLOG", 8, |_| Cell::Signed(-1)))
        .col(left("PORT", 5, |r| r.rport.into()))
        .col(left("ADDR", 39, |r| r.local.into()));
    let (header, line) = print(&table, &row());
    assert_eq!(header, format!("PID     COMM         PROTO  BACKLOG  PORT  ADDR{:35}\n", ""));
    assert_eq!(header.len(), 83);
    assert_eq!(line, format!("1479    telnet       TCPv4  -1       23    127.0.0.1{:30}\n", ""));
}

#[test]
fn softirqs_totals() {
    let table = Table::<Row>::new(Format::Text).col(left("SOFTIRQ", 16, |_| "timer".into())).col(right(
        "TOTAL_usecs",
        11,
        |_| 306_256_u64.into(),
    ));
    assert_eq!(
        print(&table, &row()),
        ("SOFTIRQ          TOTAL_usecs\n".into(), "timer                 306256\n".into())
    );
}

#[test]
fn netqtop_begins_lines_with_a_blank_and_scales_numbers() {
    struct Queue(Cell<'static>, Cell<'static>, u64);
    let table = |format| {
        Table::<Queue>::new(format)
            .lead(" ")
            .col(left("QueueID", 11, |q: &Queue| q.0).gap(""))
            .col(left("avg_size", 11, |q: &Queue| q.1).gap(""))
            .col(left("[0, 64)", 11, |q: &Queue| Cell::Scaled(q.2)).gap("").key("under_64"))
            .col(left("[64, 512)", 11, |_: &Queue| Cell::Scaled(0)).gap("").key("under_512"))
    };
    let mut out = memory(Format::Text);
    let text = table(Format::Text);
    out.header(&text);
    out.row(&text, 0, &Queue(0_u32.into(), Cell::ScaledFloat(38.0), 1));
    out.row(&text, 0, &Queue("Total".into(), Cell::Scaled(0), 1500));
    assert_eq!(
        out.take(),
        " QueueID    avg_size   [0, 64)    [64, 512)  \n \
         0          38.0       1          0          \n \
         Total      0          1.46K      0          \n"
    );
    let mut out = memory(Format::Json);
    out.row(&table(Format::Json), 0, &Queue("Total".into(), Cell::ScaledFloat(38.5), 1500));
    assert!(
        out.take().ends_with(",\"queueid\":\"Total\",\"avg_size\":38.5,\"under_64\":1500,\"under_512\":0}\n")
    );
}

#[test]
fn hostile_names_are_escaped_cut_and_padded_by_what_is_seen() {
    let table = Table::<Row>::new(Format::Text)
        .col(left("COMM", 12, |r: &Row| Cell::from(&r.comm)).cut())
        .col(left("IP", 2, Row::version));
    let line = |comm: &[u8]| {
        let mut row = row();
        row.comm = [0; 16];
        row.comm[..comm.len()].copy_from_slice(comm);
        print(&table, &row).1
    };
    assert_eq!(line(b"\x1b[31mred"), "\\x1b[31mred  4 \n");
    assert_eq!(line("größe".as_bytes()), "größe        4 \n");
    assert_eq!(line("größegrößegröße".as_bytes().split_at(16).0), "größegrößegr 4 \n");
    // The third escape has no room: it is left out whole.
    assert_eq!(line(b"abc\xff\xfe\xfd"), "abc\\xff\\xfe  4 \n");
    // A name that has the letters of an escape is not taken for one with the byte.
    assert_eq!(line(br"a\x1bb"), "a\\x5cx1bb    4 \n");
    assert_eq!(line(br"C:\\xy\"), "C:\\\\x5cxy\\   4 \n");
    assert_eq!(line(b"\\\x1b"), "\\\\x1b        4 \n");
    assert_eq!(line(br"0123456789a\x"), "0123456789a  4 \n");
    assert_eq!(line(br"0123456789ab\"), "0123456789ab 4 \n");
    assert_eq!(line("ab\u{202e}cd".as_bytes()), "ab           4 \n");
    assert_eq!(line(b""), "             4 \n");
    // Nothing that takes no column, nothing that turns the line round; wide characters take two columns.
    assert_eq!(line("\u{200b}b".as_bytes()), "\\xe2\\x80\\x8b 4 \n");
    assert_eq!(line("\u{ad}b".as_bytes()), "\\xc2\\xadb    4 \n");
    assert_eq!(line("e\u{301}".as_bytes()), "e\\xcc\\x81    4 \n");
    assert_eq!(line("\u{5d0}b".as_bytes()), "\\xd7\\x90b    4 \n");
    assert_eq!(line("\u{65e5}\u{672c}".as_bytes()), "\u{65e5}\u{672c}         4 \n");
}

#[test]
fn csv_quotes_only_what_would_break_the_record() {
    let mut row = row();
    let mut line = |comm: &[u8; 16]| {
        row.comm = *comm;
        let text = print(&tcplife(Format::Csv, false, false), &row).1;
        text.strip_prefix("1479,")
            .and_then(|rest| rest.split_once(",4,"))
            .map(|(name, _)| name.to_owned())
            .unwrap()
    };
    assert_eq!(line(b"plain name\0\0\0\0\0\0"), "plain name");
    assert_eq!(line(b"a,b\0\0\0\0\0\0\0\0\0\0\0\0\0"), "\"a,b\"");
    assert_eq!(line(b"a\"b\0\0\0\0\0\0\0\0\0\0\0\0\0"), "\"a\"\"b\"");
    assert_eq!(line(b"a\r\nb\0\0\0\0\0\0\0\0\0\0\0\0"), "a\\x0d\\x0ab");
}

#[test]
fn seconds_count_from_the_first_printed_row() {
    let table = Table::<Row>::new(Format::Text).col(seconds(9, 6)).col(left("PID", 0, |r| r.pid.into()));
    let mut out = memory(Format::Text);
    // Whole microseconds are subtracted, as BCC does: 1.999 µs is 1, 2.000 µs is 2.
    out.row(&table, 1_999, &row());
    out.row(&table, 2_000, &row());
    out.row(&table, 123_456_789_000, &row());
    out.row(&table, 0, &row());
    assert_eq!(out.take(), "0.000000  1479\n0.000001  1479\n123.456788 1479\n-0.000001 1479\n");
}

#[test]
fn a_full_disk_is_an_error_and_a_gone_reader_is_a_broken_pipe() {
    let mut full = memory(Format::Text);
    full.sink = Some(Sink::new(File::options().write(true).open("/dev/full").unwrap()));
    full.line("x");
    let err = full.flush().unwrap_err();
    assert_eq!(format!("{err:#}"), "write to standard output: No space left on device (os error 28)");
    assert_eq!(crate::error::exit_code(&err), 1);
    assert!(full.flush().is_ok(), "an error is told once");

    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let mut gone = memory(Format::Text);
    gone.sink = Some(Sink::new(File::from(std::os::fd::OwnedFd::from(writer))));
    gone.line("x");
    assert!(crate::error::is_reader_gone(&gone.flush().unwrap_err()));
}

#[test]
fn all_waits_at_the_end_leave_a_part_of_the_promised_second_for_work() {
    let (promised, work) = (Duration::from_secs(1), Duration::from_millis(300));
    assert!(LAST_WAIT + STDERR_WAIT + work <= promised);
    // Who waits for anything else takes it from the same time.
    let mut out = memory(Format::Text);
    assert_eq!(out.time_left(), Duration::ZERO, "it was not told to end yet");
    out.end_soon();
    let left = out.time_left();
    out.end_soon();
    assert!(left <= LAST_WAIT && out.time_left() <= left, "told twice, it ends once");
}

#[test]
fn a_large_batch_goes_out_in_pieces_and_its_error_waits_for_the_flush() {
    let mut full = memory(Format::Text);
    full.sink = Some(Sink::new(File::options().write(true).open("/dev/full").unwrap()));
    let table = tcpconnect([false, false, false, false]);
    for _ in 0..5000 {
        full.row(&table, 0, &row());
        assert!(full.buf.len() < SPILL + 256, "a record more, as none is written in pieces");
    }
    assert!(full.flush().is_err());
}

#[test]
fn an_error_is_one_line_and_its_hint_may_have_more() {
    let err = anyhow::anyhow!("no such\nthing \x1b[2J").context("open 'x'");
    let err = crate::error::hinted(err, "try this\nor that");
    assert_eq!(
        String::from_utf8(error_text("tcplife", &err)).unwrap(),
        "tcplife: open 'x': no such\\x0athing \\x1b[2J\n  try this\n  or that\n"
    );
    let err = crate::error::hinted(anyhow::anyhow!("no permission"), "run it as root");
    assert_eq!(
        String::from_utf8(error_text("tcplife", &err)).unwrap(),
        "tcplife: no permission; run it as root\n"
    );
}

#[test]
fn a_page_is_cut_where_the_screen_ends() {
    let mut page = memory(Format::Text);
    for line in ["ascii only", "\u{6f22}\u{5b57}\u{6f22}", "", "\\x1b[2J is escaped", "e\u{301}\u{1b}[2J"] {
        page.line(line);
    }
    let shown = |columns, lines| {
        let mut out = memory(Format::Text);
        out.show_lines(&page, (columns, lines));
        out.take()
    };
    assert_eq!(shown(usize::MAX, usize::MAX), String::from_utf8_lossy(&page.buf));
    // Of a letter that takes two columns there is no half.
    assert_eq!(shown(5, 3), "ascii\n\u{6f22}\u{5b57}\n\n");
    assert_eq!(shown(4, 4), "asci\n\u{6f22}\u{5b57}\n\n\\x1b\n");
    for columns in 0..30 {
        assert!(!shown(columns, 9).contains('\u{1b}'), "{columns}");
    }
    let out = memory(Format::Text);
    assert!(!out.is_terminal());
    assert_eq!(out.room(), (usize::MAX, usize::MAX));
}

mod properties {
    use proptest::prelude::*;
    use serde_json::Value;
    use unicode_width::UnicodeWidthChar as _;

    use super::*;

    #[derive(Debug)]
    struct Any {
        name: Vec<u8>,
        number: u64,
        signed: i64,
        float: f64,
        ip: IpAddr,
    }

    prop_compose! {
        fn any_row()(
            name in proptest::collection::vec(prop_oneof![4 => any::<u8>(), 1 => Just(b'\\'), 1 => Just(b'x')], 0..40),
            number: u64, signed: i64, float in proptest::num::f64::ANY, v6: u128, v4: u32, is_v4: bool,
        ) -> Any {
            let ip = if is_v4 { IpAddr::V4(v4.into()) } else { IpAddr::V6(v6.into()) };
            Any { name, number, signed, float, ip }
        }
    }

    fn table(format: Format) -> Table<Any> {
        Table::<Any>::new(format)
            .col(left("NAME", 12, |r: &Any| Cell::Name(&r.name)).cut())
            .col(right("NUMBER", 8, |r| r.number.into()))
            .col(left("SIGNED", 8, |r| r.signed.into()))
            .col(left("FLOAT", 8, |r: &Any| r.float.into()).precision(2))
            .col(left("IP", 16, |r| r.ip.into()))
    }

    fn line(format: Format, row: &Any) -> String {
        let mut out = memory(format);
        out.row(&table(format), 7, row);
        out.take()
    }

    /// The bytes of a name, by what README.md says about `\xNN`.
    fn unescaped(text: &str) -> Vec<u8> {
        let mut pieces = text.split("\\x");
        let mut name = pieces.next().unwrap().as_bytes().to_vec();
        for piece in pieces {
            let (digits, rest) = piece.split_at(2);
            name.push(u8::from_str_radix(digits, 16).unwrap());
            name.extend(rest.as_bytes());
        }
        name
    }

    proptest! {
        #[test]
        fn json_reads_back_as_what_was_written(row in any_row()) {
            let line = line(Format::Json, &row);
            prop_assert!(line.ends_with('\n') && line.matches('\n').count() == 1);
            prop_assert!(!line.trim_end().chars().any(escape::hostile));
            let value: Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(unescaped(value["name"].as_str().unwrap()), row.name);
            prop_assert_eq!(value["number"].as_u64(), Some(row.number));
            prop_assert_eq!(value["signed"].as_i64(), Some(row.signed));
            prop_assert_eq!(value["ts_ns"].as_u64(), Some(7));
            match value["float"].as_f64() {
                Some(float) => prop_assert_eq!(float.to_bits(), row.float.to_bits()),
                None => prop_assert!(!row.float.is_finite() && value["float"].is_null()),
            }
            prop_assert_eq!(value["ip"].as_str().unwrap().parse::<IpAddr>().unwrap(), row.ip);
        }

        #[test]
        fn text_is_one_line_of_harmless_characters_in_its_columns(row in any_row()) {
            let line = line(Format::Text, &row);
            prop_assert!(line.ends_with('\n'));
            prop_assert!(!line.trim_end_matches('\n').chars().any(escape::hostile));
            let mut column = 0;
            let end = line.char_indices().find(|&(_, c)| {
                let before = column;
                column += c.width().unwrap_or_default();
                before == 12
            });
            let (name, rest) = line.split_at(end.unwrap().0);
            prop_assert!(rest.starts_with(' '), "{name:?} then {rest:?}");
            prop_assert_eq!(rest.split_whitespace().next().unwrap(), row.number.to_string());
        }

        #[test]
        fn a_csv_record_has_its_fields(row in any_row()) {
            let line = line(Format::Csv, &row);
            let mut fields = 1;
            let mut quoted = false;
            for c in line.trim_end_matches('\n').chars() {
                match c {
                    '"' => quoted = !quoted,
                    ',' if !quoted => fields += 1,
                    _ => {}
                }
            }
            prop_assert_eq!((fields, quoted), (5, false));
        }
    }
}
